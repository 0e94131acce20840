# An application that knows nothing of the cluster, and has no file of the node bundle.
ARG BASE
ARG NODE
FROM $BASE AS builder
RUN apt-get -qq update && apt-get -qq install --no-install-recommends busybox-static >/dev/null && mkdir /www && echo served >/www/index.html
FROM scratch
COPY --from=builder /bin/busybox /busybox
COPY --from=builder /www /www
CMD ["/busybox", "sh", "-c", "trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait"]

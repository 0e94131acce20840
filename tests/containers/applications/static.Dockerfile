# A static binary and nothing else: no shell, no /bin, no /etc/passwd.
ARG BASE
ARG NODE
FROM $NODE AS node
FROM $BASE AS builder
RUN apt-get -qq update && apt-get -qq install --no-install-recommends busybox-static >/dev/null && mkdir /www && echo served >/www/index.html
FROM scratch
COPY --from=builder /bin/busybox /busybox
COPY --from=builder /www /www
COPY --from=node / /
ENV SERVICES="shop=8080:w5 files=8081/index.html"
ENTRYPOINT ["/init"]
CMD ["/busybox", "sh", "-c", "httpd -p 8081 -h /www; exec httpd -f -p 8080 -h /www"]

# A userland of musl, without any file of glibc's: a server that needs musl's loader.
ARG BASE
ARG NODE
FROM $NODE AS node
FROM $BASE AS builder
RUN apt-get -qq update && apt-get -qq install --no-install-recommends gcc libc6-dev musl-tools >/dev/null
COPY server.c /
RUN mkdir -p /tree/lib && musl-gcc -O2 -Wall -Werror -o /tree/server /server.c && cp -L /lib/ld-musl-*.so.1 /tree/lib/
FROM scratch
COPY --from=builder /tree /
COPY --from=node / /
ENV APP_PORT=8080 APP_CHECK=/
ENTRYPOINT ["/init"]
CMD ["/server"]

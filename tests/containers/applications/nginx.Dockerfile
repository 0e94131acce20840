# An application as its packager made it: root, a stop signal and a health check of its own.
ARG BASE
ARG NODE
FROM $NODE AS node
FROM $BASE
RUN apt-get -qq update && apt-get -qq install --no-install-recommends nginx-light >/dev/null && rm -rf /var/lib/apt/lists/* \
    && echo served >/var/www/html/index.html && echo kept >/var/log/nginx/kept
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=1s --start-period=1s CMD ["test", "-s", "/run/nginx.pid"]
COPY --from=node / /
ENV APP_PORT=80
ENTRYPOINT ["/init"]
CMD ["nginx", "-g", "daemon off;"]

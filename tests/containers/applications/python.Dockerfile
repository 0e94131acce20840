# An application whose image has an ordinary user, a directory and variables of its own.
ARG BASE
ARG NODE
FROM $NODE AS node
FROM $BASE
RUN apt-get -qq update && apt-get -qq install --no-install-recommends python3 >/dev/null && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /srv/site && echo served >/srv/site/index.html
WORKDIR /srv/site
ENV SITE.NAME="two words" SITE_SECRET=hunter2hunter2
USER 1234:1234
COPY --from=node / /
ENV APP_PORT=8000 APP_CHECK=/index.html
ENTRYPOINT ["/init"]
CMD ["python3", "-u", "-m", "http.server", "8000"]

# A server of Debian's Node and npm's Express; it knows nothing of the cluster, and finishes its requests at SIGTERM.
ARG BASE
ARG NODE
FROM $NODE AS node
FROM $BASE
RUN apt-get -qq update && apt-get -qq install --no-install-recommends nodejs >/dev/null && rm -rf /var/lib/apt/lists/*
WORKDIR /srv/app
COPY packages/node_modules node_modules
COPY express.js .
ENV NODE_ENV=production
USER 1234:1234
COPY --from=node / /
ENV APP_PORT=3000
ENTRYPOINT ["/init"]
CMD ["node", "express.js"]

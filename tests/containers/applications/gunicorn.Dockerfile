# A server of PyPI's gunicorn with two workers, as its users run it.
ARG BASE
ARG NODE
FROM $NODE AS node
FROM $BASE
RUN apt-get -qq update && apt-get -qq install --no-install-recommends python3 >/dev/null && rm -rf /var/lib/apt/lists/*
WORKDIR /srv/app
COPY packages packages
COPY wsgi.py .
ENV PYTHONPATH=/srv/app/packages PYTHONDONTWRITEBYTECODE=1
USER 1234:1234
COPY --from=node / /
ENV APP_PORT=8000
ENTRYPOINT ["/init"]
CMD ["python3", "-m", "gunicorn", "--bind", "0.0.0.0:8000", "--workers", "2", "--worker-tmp-dir", "/dev/shm", "wsgi"]

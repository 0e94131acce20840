"""The keys of sticky cookies, each made from a file of secrets."""

import dataclasses

from serf_haproxy.control.rules import read_secret_file
from serf_haproxy.control.secrets import find_origin
from serf_haproxy.policy.proof import Secret
from serf_haproxy.services.file import Services
from serf_haproxy.services.service import Service
from serf_haproxy.settings import Settings


def add_cookie_keys(services: Services, settings: Settings) -> Services:
    """Return the services, each with the key of its cookies.

    HAProxy hashes a server's address, port and this key into its cookie: the same on every balancer, whenever the
    server was added. The key gets into haproxy.cfg, the secret does not: a key is made for each service.

    Raises:
        SystemFault: A file of secrets is missing or wrong. With another key every client would lose its server, so
            nothing is changed.
    """
    secrets: dict[str, Secret] = {}  # most often all services name the same file

    def add_key(service: Service) -> Service:
        path = service.cookie_secret_file
        if not service.cookie or not path:
            return service
        if path not in secrets:
            secrets[path], *_ = read_secret_file(path, find_origin(service, "cookie_secret_file", settings))
        return dataclasses.replace(service, cookie_key=secrets[path].derive(f"serf-haproxy cookie v1 {service.name}"))

    return services._replace(listed=tuple(map(add_key, services.listed)))

"""From settings and services to the rules by which members become servers."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.damping import FlapRules
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.proof import SECRET_CHARACTERS, Secret, read_secrets
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.file import Services
from serf_haproxy.services.service import Service, make_default
from serf_haproxy.settings import Settings, variable
from serf_haproxy.system.files import read_text
from serf_haproxy.system.network import locate_bind

_SECRET_FILE_BYTES = 2**16


class Released(NamedTuple):
    """When operators have released servers last, nanoseconds since the epoch.

    Attributes:
        all_ns: All servers; 0 for never.
        nodes_ns: Those of one node, by its name.
    """

    all_ns: int = 0
    nodes_ns: Mapping[str, int] = {}


_NEVER = Released()


def read_rules(
    settings: Settings, self_name: str, released: Released = _NEVER, services: Services | None = None
) -> tuple[Rules, ...]:
    """Return the rules of every service, those of the default service first.

    Raises:
        SystemFault: A file of secrets is missing or wrong.
    """
    services = services or Services((make_default(settings),))
    binds = [settings.frontend_bind, settings.stats_bind, *(one.bind for one in services.listed if one.bind)]
    binds += [f":{settings.peers_port}"] if any(one.stick for one in services.listed) else []
    binds += [settings.https_bind] if settings.https_bind else []
    base = Rules(
        settings.default_port,
        balancer_roles=settings.balancer_roles,
        self_name=self_name,
        check_rate=settings.checks_per_s,
        binds=tuple(map(locate_bind, binds)),
        are_named=services.are_named,
    )
    secrets: dict[str, tuple[Secret, ...]] = {}

    def find_secrets(path: str, where: str) -> tuple[Secret, ...]:
        if path not in secrets:
            secrets[path] = read_secret_file(path, where)
        return secrets[path]

    listed = sorted(services.listed, key=lambda service: service.name != DEFAULT_SERVICE)
    return tuple(_make_rules(base, service, settings, released, find_secrets) for service in listed)


def _make_rules(
    base: Rules,
    service: Service,
    settings: Settings,
    released: Released,
    find_secrets: Callable[[str, str], tuple[Secret, ...]],
) -> Rules:
    def find_origin(key: str) -> str:
        return service.where(key) if getattr(service, key) != getattr(settings, key) else variable(key)

    return base._replace(
        service=service.name,
        roles=service.roles,
        drain_timeout_s=service.drain_timeout_s,
        failed_grace_s=service.failed_grace_s,
        policy=Policy(
            service.networks,
            service.ports,
            find_secrets(service.proof_secret_file, find_origin("proof_secret_file")),
            find_origin("networks"),
            find_origin("ports"),
            service.addr_networks,
            find_origin("addr_networks"),
        ),
        guard=GuardRules(service.guard_share, service.guard_window_s, service.guard_hold_s, *released),
        flaps=FlapRules(service.flap_cutoff, service.flap_half_life_s),
        split=service.split,
        is_sticky=service.is_sticky,
        measured_by=service.balance if service.is_measured else "",
    )


def read_secret_file(path: str, where: str = "SERF_HAPROXY_PROOF_SECRET_FILE") -> tuple[Secret, ...]:
    """Return the secrets of a file, such as those that members must prove to know; none when `path` is "".

    Args:
        path: The file.
        where: Where an operator names another one.

    Raises:
        SystemFault: The file is missing or wrong. Without it any member could become a server, so nothing is changed.
    """
    if not path:
        return ()
    try:
        text = read_text(path, _SECRET_FILE_BYTES)
        if text is not None:
            return read_secrets(text)
        fault = f"there is no such file; write a secret of {SECRET_CHARACTERS} or more characters into it"
    except SystemFault as error:
        fault = f"cannot be read: {str(error).removeprefix(f'cannot read {path}: ')}; make it readable for this user"
    except ValueError as error:
        fault = f"{error}; correct it"
    raise SystemFault(f"{path}: {fault}, or change {where}")

"""One service as the operator describes it: its keys, what they allow, and where they come from."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.route import read_hosts, read_routes
from serf_haproxy.settings import Settings, variable
from serf_haproxy.system import kinds
from serf_haproxy.system.kinds import Kind
from serf_haproxy.system.network import Network

HTTP, TCP = "http", "tcp"
TEXT, LIST, NUMBER, SWITCH = "text", "list", "number", "true or false"  # what a value is in TOML

_SETTINGS = {field.name: field for field in dataclasses.fields(Settings)}
_STATUS = r"[1-5][0-9]{2}(-[1-5][0-9]{2})?"


def _read_statuses(text: str) -> str:
    if not re.fullmatch(rf"{_STATUS}(,{_STATUS})*", text, re.ASCII):
        raise ValueError(text)
    return text


_MODE = Kind("http or tcp", {HTTP: HTTP, TCP: TCP}.__getitem__)
_STATUSES = Kind("status codes and ranges like 200,301-302", _read_statuses)
_ROUTES = Kind(
    "a list of routes: shop.example.com, *.example.com, shop.example.com/cart, or /cart for every host", read_routes
)

_HOSTS = Kind("a list of hosts like db.example.com or *.example.com", read_hosts)


def _key(kind: Kind, default: Any, form: str, doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"kind": kind, "form": form, "doc": doc})


def _inherited(name: str, form: str) -> Any:
    """Return a key that overrides the setting of the same name for one service."""
    field = _SETTINGS[name]
    metadata = {"kind": field.metadata["kind"], "form": form, "doc": field.metadata["doc"], "is_inherited": True}
    return dataclasses.field(default=field.default, metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """All that the operator says of a service; the metadata of each field holds its kind, form and meaning."""

    name: str
    mode: str = _key(_MODE, HTTP, TEXT, "what its servers speak")
    routes: tuple[str, ...] = _key(_ROUTES, (), LIST, "the requests that it gets; mode http only")
    bind: str = _key(kinds.BIND, "", TEXT, "where its clients connect; mode tcp only")
    sni: tuple[str, ...] = _key(
        _HOSTS, (), LIST, "the hosts that its clients name in their TLS handshakes, for a shared bind; mode tcp only"
    )
    health: str = _key(
        _MODE, HTTP, TEXT, "health check: http asks for health_path, tcp only connects; default: the mode"
    )
    health_status: str = _key(_STATUSES, "", TEXT, "statuses of a good health check; default: 2xx and 3xx")
    cookie: str = _key(
        kinds.COOKIE, "", TEXT, "name of a cookie that keeps a client at its server; mode http only; default: none"
    )
    balance: str = _inherited("balance", TEXT)
    health_path: str = _inherited("health_path", TEXT)
    redirect_https: bool = _inherited("redirect_https", SWITCH)
    hsts_max_age_s: int = _inherited("hsts_max_age_s", NUMBER)
    health_method: str = _inherited("health_method", TEXT)
    health_host: str = _inherited("health_host", TEXT)
    roles: tuple[str, ...] = _inherited("roles", LIST)
    networks: tuple[Network, ...] = _inherited("networks", LIST)
    ports: tuple[tuple[int, int], ...] = _inherited("ports", LIST)
    proof_secret_file: str = _inherited("proof_secret_file", TEXT)
    drain_timeout_s: float = _inherited("drain_timeout_s", NUMBER)
    failed_grace_s: float = _inherited("failed_grace_s", NUMBER)
    guard_share: float = _inherited("guard_share", NUMBER)
    guard_window_s: float = _inherited("guard_window_s", NUMBER)
    guard_hold_s: float = _inherited("guard_hold_s", NUMBER)
    flap_cutoff: float = _inherited("flap_cutoff", NUMBER)
    flap_half_life_s: float = _inherited("flap_half_life_s", NUMBER)

    @property
    def is_default(self) -> bool:
        """Whether it gets the requests that no route leads elsewhere."""
        return self.name == DEFAULT_SERVICE

    @property
    def check(self) -> str:
        """The health check in words, such as `HEAD /`."""
        return f"{self.health_method} {self.health_path}" if self.health == HTTP else "a connection"

    def where(self, key: str) -> str:
        """Return where an operator changes one of its keys."""
        return variable(key) if self.is_default else f"{key} of service {self.name}"


KEYS = {field.name: field for field in dataclasses.fields(Service) if field.name != "name"}
INHERITED = tuple(name for name, field in KEYS.items() if field.metadata.get("is_inherited"))
FORMS: Mapping[str, tuple[type, ...]] = {TEXT: (str,), LIST: (list, str), NUMBER: (int, float), SWITCH: (bool,)}


def make_service(name: str, settings: Settings, **values: Any) -> Service:
    """Return a service with these values, and all others from the settings."""
    inherited = {key: getattr(settings, key) for key in INHERITED}
    return Service(**({"name": name} | inherited | values))


def make_default(settings: Settings, **values: Any) -> Service:
    """Return the default service."""
    return make_service(DEFAULT_SERVICE, settings, **({"cookie": settings.cookie} | values))

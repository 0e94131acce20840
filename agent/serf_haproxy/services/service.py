"""One service as the operator describes it: its keys, what they allow, and where they come from."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from serf_haproxy.services import DEFAULT_SERVICE, words
from serf_haproxy.services.route import HOSTS_PATTERN, ROUTE_PATTERN, read_hosts, read_routes
from serf_haproxy.services.scaling import Scale
from serf_haproxy.settings import Settings, variable
from serf_haproxy.system import kinds
from serf_haproxy.system.kinds import Kind
from serf_haproxy.system.network import Network

HTTP, TCP = "http", "tcp"
HTTP_ONLY = ("routes", "cookie", "server_proto", "redirect_https", "hsts_max_age_s", "forwarded_for", "trusted_proxies")
TEXT, LIST, NUMBER, TABLE, TRUTH = "text", "list", "number", "table", "boolean"  # what a value is in TOML

SETTINGS = {field.name: field for field in dataclasses.fields(Settings)}
_STATUS = r"[1-5][0-9]{2}(-[1-5][0-9]{2})?"


def _read_statuses(text: str) -> str:
    if not re.fullmatch(rf"{_STATUS}(,{_STATUS})*", text, re.ASCII) or any(
        low > high for low, _, high in (word.partition("-") for word in text.split(",")) if high
    ):
        raise ValueError(text)
    return text


_TIME = kinds.seconds(0.1, 86400)
_MODE = kinds.choose(HTTP, TCP)
_STICK = kinds.choose("source", "", allowed="source, or empty")
_STATUSES = Kind("status codes and ranges like 200,301-302", _read_statuses, {"pattern": rf"^{_STATUS}(,{_STATUS})*$"})
_ROUTES = Kind(
    "a list of routes: shop.example.com, *.example.com, shop.example.com/cart, or /cart for every host",
    read_routes,
    {"pattern": ROUTE_PATTERN},
)
_SCALED = {
    "kind": Kind("a table with keys of its own: [NAME.scale]", tuple),  # `services.scaling` reads it
    "form": TABLE,
    "doc": "servers that come and go with the load; needs server_maxconn; default: none",
}
_HOSTS = Kind("a list of hosts like db.example.com or *.example.com", read_hosts, {"pattern": HOSTS_PATTERN})


class Peer(NamedTuple):
    """A balancer that shares the tables of sticky clients.

    Attributes:
        name: The name of its node.
        endpoint: Where it listens for the others.
        is_self: Whether it is this balancer.
    """

    name: str
    endpoint: str
    is_self: bool = False


def _key(kind: Kind, default: Any, form: str, doc: str, otherwise: str = "") -> Any:
    """Return a key of services alone; `otherwise` says what counts without it, where the default alone does not."""
    shown = f"{default:g}" if form == NUMBER else "none" if default in ("", ()) else str(default).lower()
    metadata = {"kind": kind, "form": form, "doc": f"{doc}; default: {otherwise or shown}"}
    return dataclasses.field(default=default, metadata=metadata)


def _inherited(name: str, form: str, kind: Kind | None = None) -> Any:
    """Return a key that overrides the setting of the same name for one service; it may allow more than the setting."""
    field = SETTINGS[name]
    metadata = {
        "kind": kind or field.metadata["kind"],
        "form": form,
        "doc": field.metadata["doc"],
        "is_inherited": True,
    }
    return dataclasses.field(default=field.default, metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """All that the operator says of a service; the metadata of each field holds its kind, form and meaning."""

    name: str
    mode: str = _key(_MODE, HTTP, TEXT, "what its servers speak")
    routes: tuple[str, ...] = _key(_ROUTES, (), LIST, "the requests that it gets; mode http only")
    bind: str = _key(kinds.BIND, "", TEXT, "where its clients connect; mode tcp only")
    sni: tuple[str, ...] = _key(
        _HOSTS, (), LIST, "the hosts that its clients name in their TLS handshakes, for a shared bind; mode tcp only"
    )
    health: str = _key(
        words.HEALTH,
        HTTP,
        TEXT,
        "health check: http asks for health_path, tcp only connects, others speak their protocol",
        "the mode",
    )
    health_user: str = _key(
        words.HEALTH_USER, "haproxy", TEXT, "the user of the checks pgsql and mysql, without a password"
    )
    health_status: str = _key(_STATUSES, "", TEXT, "statuses of a good health check", "2xx and 3xx")
    cookie: str = _key(kinds.COOKIE, "", TEXT, "name of a cookie that keeps a client at its server; mode http only")
    weights: str = _key(
        kinds.WEIGHTS,
        "static",
        TEXT,
        "measured: servers that are slow or fail get less than their weight; or static",
    )
    split: tuple[tuple[str, int], ...] = _key(words.SPLIT, (), TABLE, "share of the requests of each version, percent")
    scale: Scale | None = dataclasses.field(default=None, metadata=_SCALED)
    hash_key: str = _key(words.HASH_KEY, "", TEXT, "what balance hash looks at: the same value goes to the same server")
    backups: str = _key(words.BACKUPS, "first", TEXT, "while no other server is up: the first backup server, or all")
    client_networks: tuple[Network, ...] = _key(
        kinds.NETWORKS, (), LIST, "networks of its clients; others get 403, or are cut off by mode tcp", "all"
    )
    rate_limit: int = _key(
        kinds.count(0, 1000000),
        0,
        NUMBER,
        "most requests of one client address in rate_period_s, or connections in mode tcp",
        "0, no limit",
    )
    rate_period_s: int = _key(kinds.count(1, 3600), 10, NUMBER, "the time of that limit")
    connect_timeout_s: float = _key(_TIME, 2.0, NUMBER, "wait for a server to accept a connection")
    queue_timeout_s: float = _key(_TIME, 10.0, NUMBER, "wait of a request for a free server")
    server_timeout_s: float = _key(_TIME, 60.0, NUMBER, "how long a server may be silent")
    retries: int = _key(kinds.count(0, 10), 3, NUMBER, "further tries to connect, each at another server")
    server_maxconn: int = _key(
        kinds.count(0, 1000000), 0, NUMBER, "most connections to each server, further ones wait", "0, no limit"
    )
    server_maxqueue: int = _key(
        kinds.count(0, 1000000), 0, NUMBER, "most that wait for one server, others go elsewhere", "0, no limit"
    )
    slowstart_s: float = _key(
        kinds.seconds(0, 3600), 0.0, NUMBER, "time in which the share of a server that comes up grows"
    )
    server_proto: str = _key(words.PROTOCOL, "h1", TEXT, "what HTTP its servers speak: h2 for gRPC")
    tls: bool = _key(words.TRUTH, False, TRUTH, "whether its servers speak TLS, checks included")
    tls_ca_file: str = _key(
        kinds.PATH, "", TEXT, "PEM file with the certificates of those that sign the servers' certificates"
    )
    tls_name: str = _key(
        words.TLS_NAME, "", TEXT, "the name in the servers' certificates, also sent as SNI", "any name"
    )
    tunnel_timeout_s: float = _inherited("tunnel_timeout_s", NUMBER)
    balance: str = _inherited("balance", TEXT, words.ALGORITHM)
    cookie_secret_file: str = _inherited("cookie_secret_file", TEXT)
    stick: str = _key(
        _STICK, "", TEXT, "source: keep each client address at its server, by a table; mode tcp only", "no table"
    )
    stick_size: int = _key(kinds.count(100, 1000000), 100000, NUMBER, "most client addresses in that table")
    stick_expire_s: int = _key(
        kinds.count(10, 604800), 3600, NUMBER, "how long that table remembers a client without a connection"
    )
    health_path: str = _inherited("health_path", TEXT)
    redirect_https: bool = _inherited("redirect_https", TRUTH, words.TRUTH)
    hsts_max_age_s: int = _inherited("hsts_max_age_s", NUMBER)
    forwarded_for: str = _inherited("forwarded_for", TEXT)
    trusted_proxies: tuple[Network, ...] = _inherited("trusted_proxies", LIST)
    health_method: str = _inherited("health_method", TEXT)
    health_host: str = _inherited("health_host", TEXT)
    roles: tuple[str, ...] = _inherited("roles", LIST)
    networks: tuple[Network, ...] = _inherited("networks", LIST)
    addr_networks: tuple[Network, ...] = _inherited("addr_networks", LIST)
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
    def shares(self) -> Mapping[str, int]:
        """The share of each version, percent; empty without a split."""
        return dict(self.split)

    @property
    def is_measured(self) -> bool:
        """Whether its servers' weights follow what HAProxy measures of them."""
        return self.weights == words.MEASURED and self.balance in words.WEIGHED

    @property
    def hash_fetch(self) -> str:
        """What HAProxy hashes, in its own words; "" where it hashes nothing of a key."""
        return words.write_fetch(self.hash_key)

    @property
    def is_sticky(self) -> bool:
        """Whether clients stay at their server between their requests or connections."""
        return bool(self.cookie or self.stick)

    @property
    def check(self) -> str:
        """The health check in words, such as `HEAD /`."""
        if self.health in words.PROTOCOL_CHECKS:
            return words.PROTOCOL_CHECKS[self.health]
        return f"{self.health_method} {self.health_path}" if self.health == HTTP else "a connection"

    def where(self, key: str) -> str:
        """Return where an operator changes one of its keys."""
        return variable(key) if self.is_default else f"{key} of service {self.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Service(Options):
    """A service as this balancer has it.

    Attributes:
        peers: The balancers that share its table of sticky clients, this one first; `control.sharing` finds them.
        cookie_key: The key of its cookies, "" without a secret; `control.cookies` makes it.
    """

    peers: tuple[Peer, ...] = ()
    cookie_key: str = dataclasses.field(default="", repr=False)


KEYS = {field.name: field for field in dataclasses.fields(Options) if field.metadata}
INHERITED = tuple(name for name, field in KEYS.items() if field.metadata.get("is_inherited"))
FORMS: Mapping[str, tuple[type, ...]] = {
    TEXT: (str,),
    LIST: (list, str),
    NUMBER: (int, float),
    TABLE: (dict,),
    TRUTH: (bool,),
}


def make_service(name: str, settings: Settings, **values: Any) -> Service:
    """Return a service with these values, and all others from the settings; mode tcp inherits nothing of HTTP."""
    is_tcp = values.get("mode") == TCP
    inherited = {key: getattr(settings, key) for key in INHERITED if not (is_tcp and key in HTTP_ONLY)}
    return Service(**({"name": name} | inherited | values))


def make_default(settings: Settings, **values: Any) -> Service:
    """Return the default service."""
    return make_service(
        DEFAULT_SERVICE, settings, **({"cookie": settings.cookie, "weights": settings.weights} | values)
    )

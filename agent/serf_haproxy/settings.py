"""Settings: environment variables and an optional TOML file become one frozen, validated value.

Every setting `name` is the variable `SERF_HAPROXY_NAME`; the TOML file, named by `SERF_HAPROXY_SETTINGS_FILE`,
has the key `name`. The environment wins. Durations are seconds. Faults are collected and raised together.
"""

import dataclasses
import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from serf_haproxy.errors import SettingsError
from serf_haproxy.system.network import Network, read_networks, read_ports

PREFIX = "SERF_HAPROXY_"
SETTINGS_FILE = PREFIX + "SETTINGS_FILE"
BALANCE_ALGORITHMS = ("roundrobin", "leastconn", "first", "random", "static-rr", "source", "uri")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of value: what is allowed, in words, and the function that reads it or raises ValueError."""

    allowed: str
    read: Callable[[str], Any]


def _path(text: str) -> str:
    # Some paths become words of haproxy.cfg, where these characters have a special meaning.
    if not (text.startswith("/") and text.isprintable() and set(" \"'#$\\").isdisjoint(text)):
        raise ValueError(text)
    return text


def _matching(pattern: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(text)
        return text

    return read


def _between(convert: Callable[[str], float], low: float, high: float) -> Callable[[str], Any]:
    def read(text: str) -> float:
        value = convert(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _words(text: str) -> tuple[str, ...]:
    return tuple(sorted({_matching(r"[A-Za-z0-9_.-]+")(word) for word in text.replace(",", " ").split()}))


def _bind(text: str) -> str:
    pattern = r"(\*|[0-9A-Fa-f:.]*|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]):[0-9]+"
    host, _, port = _matching(pattern)(text).rpartition(":")
    if host not in ("", "*"):
        ipaddress.ip_address(host.strip("[]"))
    _between(int, 1, 65535)(port)
    return text


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return _matching(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+")(host).strip("[]"), _between(int, 1, 65535)(port)


def _or_empty(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: read(text) if text else text


PATH = Kind("an absolute path without blanks, quotes, backslash, # and $", _path)
OPTIONAL_PATH = Kind(f"{PATH.allowed}; or empty", _or_empty(_path))
WORDS = Kind("words of letters, digits, dot, dash and underscore, separated by commas", _words)
BIND = Kind("address:port with an IP address, * or nothing before the colon", _bind)
HOST_PORT = Kind("host:port", _host_port)
PROGRAM = Kind("a program's name or absolute path", _matching(r"[A-Za-z0-9_./+-]+"))
URL_PATH = Kind("a URL path of letters, digits and /_.-~?=&%", _matching(r"/[A-Za-z0-9/_.~?=&%-]*"))
NETWORKS = Kind("networks like 10.1.0.0/16, separated by commas", read_networks)
PORTS = Kind("ports and ranges like 80,8000-8999", read_ports)
SWITCH = Kind("on or off", lambda text: {"on": True, "off": False}[text])
MODE = Kind("600 or 660", _matching("6[06]0"))
BALANCE = Kind("one of " + ", ".join(BALANCE_ALGORITHMS), _matching("|".join(BALANCE_ALGORITHMS)))
COOKIE = Kind("a cookie name of letters, digits, dash and underscore, or empty", _matching(r"[A-Za-z0-9_-]*"))


def _seconds(low: float, high: float) -> Kind:
    return Kind(f"{low:g} to {high:g} seconds", _between(float, low, high))


def _count(low: int, high: int) -> Kind:
    return Kind(f"a whole number, {low} to {high}", _between(int, low, high))


def _number(low: float, high: float) -> Kind:
    return Kind(f"a number, {low:g} to {high:g}", _between(float, low, high))


def _setting(default: str, kind: Kind, doc: str) -> Any:
    metadata = {"default": default, "kind": kind, "doc": doc}
    return dataclasses.field(default=kind.read(default), metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """All settings; the metadata of each field holds its default as text, its kind and its meaning."""

    nodes_dir: str = _setting("/run/serf-haproxy/nodes", PATH, "directory of the node files")
    wake_fifo: str = _setting("/run/serf-haproxy/wake", PATH, "FIFO by which handlers wake the daemon")
    state_dir: str = _setting("/var/lib/serf-haproxy", PATH, "directory in which the daemon keeps its state")
    config_path: str = _setting(
        "/etc/haproxy/haproxy.cfg", PATH, "the live configuration; its directory must be writable"
    )
    template_path: str = _setting("", OPTIONAL_PATH, "a custom Jinja2 template; empty: the built-in one")
    template_timeout_s: float = _setting("5", _seconds(0.1, 600), "time limit of a custom template")
    template_memory_mib: int = _setting("256", _count(16, 65536), "memory limit of a custom template, MiB")
    haproxy_bin: str = _setting(
        "haproxy", PROGRAM, "the HAProxy program that checks configurations, and that the s6 tree runs"
    )
    master_socket: str = _setting("/run/haproxy/master.sock", PATH, "HAProxy's master CLI socket (-S)")
    runtime_socket: str = _setting("/run/haproxy/admin.sock", PATH, "HAProxy's runtime socket (stats socket)")
    runtime_socket_mode: str = _setting("600", MODE, "file mode of the runtime socket, which may change everything")
    service_dir: str = _setting(
        "/run/service/haproxy", PATH, "s6 service directory of HAProxy, for a reload without a master socket"
    )
    rpc_addr: tuple[str, int] = _setting("127.0.0.1:7373", HOST_PORT, "RPC address of the local Serf agent")
    rpc_auth_file: str = _setting("", OPTIONAL_PATH, "file with the RPC auth key; empty: no authentication")
    rpc_timeout_s: float = _setting("5", _seconds(0.1, 60), "time limit of one exchange with Serf")
    hints: bool = _setting("on", SWITCH, "watch Serf's log for early signs of a change; off: wait for its events")
    quiet_s: float = _setting("0.2", _seconds(0, 10), "quiet time after a wake before a pass")
    max_wait_s: float = _setting("2", _seconds(0, 60), "longest wait for that quiet time")
    resync_interval_s: float = _setting("60", _seconds(0.5, 86400), "interval at which Serf's roster is asked")
    check_timeout_s: float = _setting("30", _seconds(1, 600), "time limit of haproxy -c")
    reload_timeout_s: float = _setting("30", _seconds(1, 600), "time limit of a reload and its confirmation")
    reload_interval_s: float = _setting("2", _seconds(0, 3600), "shortest time between two reloads")
    frozen_worker_s: float = _setting(
        "60", _seconds(0, 86400), "how long a reload waits for a HAProxy worker that does not answer"
    )
    retry_max_s: float = _setting("300", _seconds(1, 86400), "longest pause before a failed reload is retried")
    drain_timeout_s: float = _setting("30", _seconds(0, 86400), "how long a node that left may finish its requests")
    failed_grace_s: float = _setting("10", _seconds(0, 86400), "how long a node that failed stays under health checks")
    guard_share: float = _setting("0.5", _number(0, 1), "servers are held when more than this share is lost at once")
    guard_window_s: float = _setting("60", _seconds(1, 86400), "losses no further apart than this count as one")
    guard_hold_s: float = _setting("86400", _seconds(0, 604800), "how long lost servers are held; 0: never")
    flap_cutoff: float = _setting("6", _number(0, 1000), "failures and returns after which a node is damped; 0: never")
    flap_half_life_s: float = _setting("60", _seconds(1, 86400), "time in which half of these count no more")
    default_port: int = _setting("3000", _count(1, 65535), "port of a server whose node has no tag port")
    roles: tuple[str, ...] = _setting("", WORDS, "roles that become servers; empty: all but balancer_roles")
    networks: tuple[Network, ...] = _setting("", NETWORKS, "networks in which servers may be; empty: all usual ones")
    ports: tuple[tuple[int, int], ...] = _setting("", PORTS, "ports that servers may have; empty: all")
    proof_secret_file: str = _setting(
        "", OPTIONAL_PATH, "file with the secrets of the proofs; empty: members need no proof"
    )
    balancer_roles: tuple[str, ...] = _setting("balancer,lb", WORDS, "roles that never become servers")
    frontend_bind: str = _setting(":80", BIND, "where clients connect")
    stats_bind: str = _setting(":1936", BIND, "where the stats page is")
    balance: str = _setting("roundrobin", BALANCE, "HAProxy's balance algorithm")
    health_path: str = _setting("/", URL_PATH, "path of the health check, asked with HEAD")
    maxconn: int = _setting(
        "20000", _count(100, 1000000), "most client connections at once; fewer where the process may open few files"
    )
    checks_per_s: int = _setting("400", _count(10, 100000), "most health checks a second, of all servers together")
    cookie: str = _setting("", COOKIE, "name of a cookie that keeps a client at its server; empty: none")
    hard_stop_after_s: int = _setting("60", _count(1, 86400), "longest life of an old worker after a reload")
    old_workers_max: int = _setting("20", _count(1, 1000), "limit of old workers; HAProxy ends the oldest beyond it")

    @property
    def server_state_path(self) -> str:
        """The file by which a reload learns the state of the servers."""
        return f"{self.config_path}.state"

    @property
    def file_limit(self) -> int:
        """The most files that HAProxy may open: two for each connection, and a reserve for all else."""
        return 2 * self.maxconn + 2000

    @property
    def successor_socket(self) -> str:
        """The socket by which an old worker reaches the newest one."""
        return f"{self.master_socket}.next"

    def replace(self, **changes: Any) -> "Settings":
        """Return a copy with some settings changed."""
        return dataclasses.replace(self, **changes)


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Read all settings; an empty variable counts as unset.

    Raises:
        SettingsError: At least one is wrong; the text has one line for each fault.
    """
    faults: list[str] = []
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    from_file = _read_file(environ.get(SETTINGS_FILE, ""), set(fields), faults)
    values, wrong = {}, set()
    for name, field in fields.items():
        text, origin = environ.get(variable(name), ""), variable(name)
        if not text and name in from_file:
            text, origin = from_file[name], f"{name} in {environ[SETTINGS_FILE]}"
        if not text:
            continue
        kind: Kind = field.metadata["kind"]
        try:
            values[name] = kind.read(text)
        except (ValueError, KeyError):
            wrong.add(name)
            faults.append(f"{origin}={text!a}: must be {kind.allowed}")
    settings = Settings(**values)
    if settings.max_wait_s < settings.quiet_s and wrong.isdisjoint({"max_wait_s", "quiet_s"}):
        allowed = f"must be at least {variable('quiet_s')} ({settings.quiet_s:g})"
        faults.append(f"{variable('max_wait_s')}={settings.max_wait_s:g}: {allowed}")
    if faults:
        raise SettingsError("\n".join(faults))
    return settings


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that look like settings of ours and are none: most likely misspelt."""
    known = {variable(field.name) for field in dataclasses.fields(Settings)} | {SETTINGS_FILE}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def _read_file(path: str, known: set[str], faults: list[str]) -> dict[str, str]:
    if not path:
        return {}
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError) as error:
        faults.append(f"{SETTINGS_FILE}={path!a}: {error}")
        return {}
    faults.extend(f"{name!a} in {path}: there is no such setting" for name in table if name not in known)
    return {name: _as_text(value) for name, value in table.items()}


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

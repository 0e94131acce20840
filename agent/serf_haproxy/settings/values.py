"""The settings that there are: the default of each, its kind, and what it means. Durations are seconds."""

import dataclasses
import hashlib
import ipaddress
import os
from typing import Any

from serf_haproxy.system import kinds
from serf_haproxy.system.kinds import Kind
from serf_haproxy.system.network import Network

PREFIX = "SERF_HAPROXY_"
SETTINGS_FILE = PREFIX + "SETTINGS_FILE"
DEFAULT_FILE = "/etc/serf-haproxy/settings.toml"
_BINDS = ("frontend_bind", "stats_bind", "https_bind", "web_bind")  # the settings that name a listener
SOCKET_BYTES = 97  # HAProxy first binds a temporary, longer path, and the kernel allows 107 bytes


def _setting(default: str, kind: Kind, doc: str) -> Any:
    metadata = {"default": default, "kind": kind, "doc": doc}
    return dataclasses.field(default=kind.read(default), metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """All settings; the metadata of each field holds its default as text, its kind and its meaning."""

    nodes_dir: str = _setting("/run/serf-haproxy/nodes", kinds.PATH, "directory of the node files")
    wake_fifo: str = _setting("/run/serf-haproxy/wake", kinds.PATH, "FIFO by which handlers wake the daemon")
    state_dir: str = _setting("/var/lib/serf-haproxy", kinds.PATH, "directory in which the daemon keeps its state")
    config_path: str = _setting(
        "/etc/haproxy/haproxy.cfg", kinds.PATH, "the live configuration; its directory must be writable"
    )
    template_path: str = _setting("", kinds.OPTIONAL_PATH, "a custom Jinja2 template; empty: the built-in one")
    services_file: str = _setting(
        "/etc/serf-haproxy/services.toml", kinds.PATH, "the services file; where it is absent, there is one service"
    )
    announced_domain: str = _setting(
        "", kinds.DOMAIN, "domain of HTTP services that only members announce, at NAME.DOMAIN; empty: none are"
    )
    announced_max: int = _setting("20", kinds.count(1, 200), "most such services at a time")
    template_timeout_s: float = _setting("5", kinds.seconds(0.1, 600), "time limit of a custom template")
    template_memory_mib: int = _setting("256", kinds.count(16, 65536), "memory limit of a custom template, MiB")
    haproxy_bin: str = _setting(
        "haproxy", kinds.PROGRAM, "the HAProxy program that checks configurations, and that the s6 tree runs"
    )
    haproxy_user: str = _setting("", kinds.BALANCER_NAME, "user of HAProxy's workers; empty: that of the master")
    haproxy_group: str = _setting("", kinds.BALANCER_NAME, "group of these workers; empty: that of the master")
    haproxy_chroot: str = _setting("", kinds.OPTIONAL_PATH, "directory to which they are confined; empty: none")
    master_socket: str = _setting("/run/haproxy/master.sock", kinds.PATH, "HAProxy's master CLI socket (-S)")
    runtime_socket: str = _setting("/run/haproxy/admin.sock", kinds.PATH, "HAProxy's runtime socket (stats socket)")
    runtime_socket_mode: str = _setting(
        "600", kinds.MODE, "file mode of the runtime socket, which may change everything"
    )
    service_dir: str = _setting(
        "/run/service/haproxy", kinds.PATH, "s6 service directory of HAProxy, for a reload without a master socket"
    )
    rpc_addr: tuple[str, int] = _setting("127.0.0.1:7373", kinds.HOST_PORT, "RPC address of the local Serf agent")
    rpc_auth_file: str = _setting("", kinds.OPTIONAL_PATH, "file with the RPC auth key; empty: no authentication")
    rpc_timeout_s: float = _setting("5", kinds.seconds(0.1, 60), "time limit of one exchange with Serf")
    hints: bool = _setting("on", kinds.SWITCH, "watch Serf's log for early signs of a change; off: wait for its events")
    log_format: str = _setting("logfmt", kinds.choose("logfmt", "json"), "format of the daemon's log")
    quiet_s: float = _setting("0.2", kinds.seconds(0, 10), "quiet time after a wake before a pass")
    max_wait_s: float = _setting("2", kinds.seconds(0, 60), "longest wait for that quiet time")
    resync_interval_s: float = _setting("60", kinds.seconds(0.5, 86400), "interval at which Serf's roster is asked")
    check_timeout_s: float = _setting("30", kinds.seconds(1, 600), "time limit of haproxy -c")
    reload_timeout_s: float = _setting("30", kinds.seconds(1, 600), "time limit of a reload and its confirmation")
    reload_interval_s: float = _setting("2", kinds.seconds(0, 3600), "shortest time between two reloads")
    frozen_worker_s: float = _setting(
        "60", kinds.seconds(0, 86400), "how long a reload waits for a HAProxy worker that does not answer"
    )
    retry_max_s: float = _setting("300", kinds.seconds(1, 86400), "longest pause before a failed reload is retried")
    drain_timeout_s: float = _setting(
        "30", kinds.seconds(0, 86400), "how long a node that left may finish its requests"
    )
    failed_grace_s: float = _setting(
        "10", kinds.seconds(0, 86400), "how long a node that failed stays under health checks"
    )
    guard_share: float = _setting(
        "0.5", kinds.number(0, 1), "servers are held when more than this share is lost at once"
    )
    guard_window_s: float = _setting("60", kinds.seconds(1, 86400), "losses no further apart than this count as one")
    guard_hold_s: float = _setting("86400", kinds.seconds(0, 604800), "how long lost servers are held; 0: never")
    flap_cutoff: float = _setting(
        "6", kinds.number(0, 1000), "failures and returns after which a node is damped; 0: never"
    )
    flap_half_life_s: float = _setting("60", kinds.seconds(1, 86400), "time in which half of these count no more")
    default_port: int = _setting("3000", kinds.count(1, 65535), "port of a server whose node has no tag port")
    roles: tuple[str, ...] = _setting("", kinds.WORDS, "roles that become servers; empty: all but balancer_roles")
    networks: tuple[Network, ...] = _setting(
        "", kinds.NETWORKS, "networks in which servers may be; empty: all usual ones"
    )
    addr_networks: tuple[Network, ...] = _setting(
        "", kinds.NETWORKS, "networks in which servers may be that members announce by a tag addr; empty: none"
    )
    ports: tuple[tuple[int, int], ...] = _setting("", kinds.PORTS, "ports that servers may have; empty: all")
    proof_secret_file: str = _setting(
        "", kinds.OPTIONAL_PATH, "file with the secrets of the proofs; empty: members need no proof"
    )
    orders_secret_file: str = _setting(
        "", kinds.OPTIONAL_PATH, "file with the secrets that sign orders between balancers; empty: those of the proofs"
    )
    unsigned_orders: bool = _setting(
        "off", kinds.SWITCH, "obey orders from Serf that no secret signs; on: every member may give orders"
    )
    balancer_roles: tuple[str, ...] = _setting("balancer,lb", kinds.WORDS, "roles that never become servers")
    frontend_bind: str = _setting(":80", kinds.BIND, "where clients connect")
    https_bind: str = _setting("", kinds.OPTIONAL_BIND, "where clients connect with TLS; empty: nowhere")
    https_port: int = _setting("443", kinds.count(1, 65535), "port of HTTPS as clients see it, for redirects")
    certificates_dir: str = _setting("/etc/serf-haproxy/certificates", kinds.PATH, "directory of certificates for TLS")
    certificate_copies_dir: str = _setting(
        "/var/lib/serf-haproxy/certificates", kinds.PLAIN_PATH, "directory of their copies, which HAProxy loads"
    )
    redirect_https: bool = _setting(
        "off", kinds.SWITCH, "redirect HTTP requests to HTTPS, and mark sticky cookies Secure"
    )
    hsts_max_age_s: int = _setting("0", kinds.count(0, 63072000), "max-age of Strict-Transport-Security; 0: not sent")
    stats_bind: str = _setting(":1936", kinds.BIND, "where the stats page is")
    balance: str = _setting("roundrobin", kinds.BALANCE, "HAProxy's balance algorithm")
    weights: str = _setting(
        "static", kinds.WEIGHTS, "measured: servers that are slow or fail get less than their weight, or static"
    )
    health_path: str = _setting("/", kinds.URL_PATH, "path of the health check")
    health_method: str = _setting("HEAD", kinds.METHOD, "method of the health check; GET where HEAD answers 405 or 501")
    health_host: str = _setting("localhost", kinds.HOST, "header Host of the health check")
    forwarded_for: str = _setting(
        "replace", kinds.FORWARDING, "what the application is told of the client; append: trusted proxies are believed"
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        "", kinds.NETWORKS, "networks of the proxies in front, whose word counts with forwarded_for=append"
    )
    proxy_protocol_networks: tuple[Network, ...] = _setting(
        "", kinds.NETWORKS, "networks whose connections begin with the PROXY protocol; empty: none"
    )
    balancer_name: str = _setting(
        "", kinds.BALANCER_NAME, "name by which the balancer knows its own requests again; empty: the host's name"
    )
    tunnel_timeout_s: int = _setting("3600", kinds.count(1, 604800), "longest silence on a WebSocket or other tunnel")
    client_fin_timeout_s: int = _setting(
        "30", kinds.count(1, 86400), "longest silence of a client on a connection that the server has closed"
    )
    no_server_wait_s: int = _setting(
        "0", kinds.count(0, 600), "how long a request waits for a server while none is up; 0: it gets 503 at once"
    )
    maxconn: int = _setting(
        "20000",
        kinds.count(100, 1000000),
        "most client connections at once; fewer where the process may open few files",
    )
    checks_per_s: int = _setting("400", kinds.count(10, 100000), "most health checks a second, of all servers together")
    cookie: str = _setting("", kinds.COOKIE, "name of a cookie that keeps a client at its server; empty: none")
    cookie_secret_file: str = _setting(
        "",
        kinds.OPTIONAL_PATH,
        "file with a secret for these cookies, the same on all balancers: joins then take no reload; empty: node names",
    )
    peers_port: int = _setting(
        "7947",
        kinds.count(1, 65535),
        "port at which balancers share the tables of sticky clients; the same on all of them",
    )
    hard_stop_after_s: int = _setting("60", kinds.count(1, 86400), "longest life of an old worker after a reload")
    old_workers_max: int = _setting(
        "20", kinds.count(1, 1000), "limit of old workers; HAProxy ends the oldest beyond it"
    )
    web_bind: str = _setting("", kinds.LISTENER, "where status, metrics and the page are served; empty: nowhere")
    web_token_file: str = _setting(
        "", kinds.OPTIONAL_PATH, "file with a token that they ask for; needed where web_bind is not this machine alone"
    )

    @property
    def binds(self) -> dict[str, str]:
        """The addresses and ports of our listeners, by setting; a Unix socket is not among them."""
        return {name: bind for name in _BINDS if (bind := getattr(self, name)) and not bind.startswith("/")}

    @property
    def is_web_local(self) -> bool:
        """Whether only this machine reaches the web process: by loopback or a Unix socket."""
        host = self.web_bind.rpartition(":")[0].strip("[]")
        return self.web_bind.startswith("/") or (host not in ("", "*") and ipaddress.ip_address(host).is_loopback)

    @property
    def server_state_path(self) -> str:
        """The file by which a reload learns the state of the servers."""
        return f"{self.config_path}.state"

    @property
    def inbox_dir(self) -> str:
        """The directory into which handlers write the orders that Serf brings."""
        return os.path.join(os.path.dirname(self.wake_fifo), "inbox")

    @property
    def answers_dir(self) -> str:
        """The directory of what handlers answer to queries of Serf."""
        return os.path.join(os.path.dirname(self.wake_fifo), "answers")

    @property
    def has_https(self) -> bool:
        """Whether clients can use HTTPS, here or at a proxy in front that is believed."""
        return bool(self.https_bind) or self.forwarded_for == "append"

    @property
    def certificate_list(self) -> str:
        """The crt-list of the HTTPS listener."""
        return os.path.join(self.certificate_copies_dir, "list")

    @property
    def wait_script(self) -> str:
        """The script by which a request waits for a server; HAProxy reads it as it starts and reloads."""
        return os.path.join(os.path.dirname(os.path.dirname(__file__)), "config", "templates", "wait.lua")

    @property
    def loop_token(self) -> str:
        """What this balancer writes into the header CDN-Loop of each request (RFC 8586)."""
        name = self.balancer_name or os.uname().nodename
        return f"serf-haproxy-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"

    @property
    def file_limit(self) -> int:
        """The most files that HAProxy may open: two for each connection, and a reserve for all else."""
        return 2 * self.maxconn + 2000

    @property
    def successor_socket(self) -> str:
        """The socket by which an old worker reaches the newest one; workers in a chroot see no socket outside of it."""
        place = os.path.dirname(self.master_socket) if not self.haproxy_chroot else self.haproxy_chroot
        return os.path.join(place, f"{os.path.basename(self.master_socket)}.next")

    @property
    def successor_path(self) -> str:
        """The path of that socket as workers see it."""
        return f"/{os.path.basename(self.successor_socket)}" if self.haproxy_chroot else self.successor_socket

    def describe(self) -> dict[str, str]:
        """Return the settings that differ from their defaults, and the state directory in any case, as text by name."""
        return {
            field.name: str(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default or field.name == "state_dir"
        }

    def replace(self, **changes: Any) -> "Settings":
        """Return a copy with some settings changed."""
        return dataclasses.replace(self, **changes)


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()

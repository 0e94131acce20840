"""The steps of the tour: changes of a cluster of three services."""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import requests

from serf_haproxy.control.give import Desk
from serf_haproxy.control.give import Wish as OrderWish
from serf_haproxy.errors import SystemFault
from serf_haproxy.lab import ports
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.lab.services import NodeOptions, Wish
from serf_haproxy.lab.tour_checks import Step
from serf_haproxy.policy.claim import tag_of
from serf_haproxy.policy.orders import DRAIN, MAINT
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.service import HTTP, TCP
from serf_haproxy.settings import load_settings
from serf_haproxy.system.files import write_durably

WISHES = (Wish("pg", TCP, 0), Wish("api", HTTP, 0))  # the further services; their nodes join in a step
STEP_COUNT = 9
_PG, _API = (wish.name for wish in WISHES)
_API_SERVERS = {"api1": "127.0.1.41", "api2": "127.0.1.42", "api3": "127.0.1.43"}
_VERSIONS = {"api1": "v1", "api2": "v1", "api3": "v2"}
_TRY_COUNT = 50  # clients that are sent until one gets to a given server
_TIMEOUT_S = 10.0


def list_steps(lab: Lab) -> Iterator[Step]:
    """Yield the steps, to be made in this order."""
    yield from _list_of_nodes(lab)
    second = {"pg1": "127.0.1.31", "pg2": "127.0.1.32"}
    yield Step(
        "Two nodes join a second service, pg, over TCP",
        lambda: _add_all(lab, second, _PG),
        second,
        "The operator's services.toml has named pg; its nodes offer it by the tag svc.pg. Web nodes are as before.",
        _PG,
    )
    yield from _list_of_api(lab)


def _list_of_nodes(lab: Lab) -> Iterator[Step]:
    first = {f"web{number}": f"127.0.1.{number}" for number in (1, 2, 3)}
    yield Step(
        "Three nodes join",
        lambda: _add_all(lab, first),
        first,
        "Each node is a web application with its own Serf agent; the balancer's Serf agent heard of them.",
    )
    yield Step(
        "A fourth node joins",
        lambda: lab.add("web4", "127.0.1.4", wait_s=0),
        first | {"web4": "127.0.1.4"},
        "One more line in haproxy.cfg, and one more server in the running HAProxy.",
    )
    yield Step(
        "web2 leaves gracefully",
        lambda: lab.leave("web2"),
        {"web1": "127.0.1.1", "web3": "127.0.1.3", "web4": "127.0.1.4"},
        "Its Serf agent announced it. Its application ended only after HAProxy had stopped using it.",
        explained="web2",
    )
    yield Step(
        "web3 crashes (SIGKILL, without a leave)",
        lambda: lab.crash("web3"),
        {"web1": "127.0.1.1", "web4": "127.0.1.4"},
        "Serf detects a crash after some seconds. Until then HAProxy's health checks keep requests away.",
    )
    yield Step(
        "web2 returns with a new address",
        lambda: lab.return_("web2", "127.0.1.20", wait_s=0),
        {"web1": "127.0.1.1", "web2": "127.0.1.20", "web4": "127.0.1.4"},
        "Same name, another address: its node file and its line in haproxy.cfg were rewritten.",
    )


def _list_of_api(lab: Lab) -> Iterator[Step]:
    """Yield the steps of a service with two versions, whose clients keep their servers by a cookie."""
    yield Step(
        "A third service, api: two nodes of version v1, and a canary of v2 with 5 %",
        lambda: _start_api(lab),
        _API_SERVERS,
        "Nodes say their versions; the split in services.toml says what each version gets: v1 = 95, v2 = 5.",
        _API,
        {"api1": 47.5, "api2": 47.5, "api3": 5},
    )
    yield Step(
        "The operator moves the canary from 5 % to 50 %",
        lambda: _write_table(lab, "v1 = 50, v2 = 50"),
        _API_SERVERS,
        "Only the split in services.toml changed; the weights of running servers followed.",
        _API,
        {"api1": 25, "api2": 25, "api3": 50},
        forbids_reload=True,
    )
    client = StickyClient(lab)
    yield Step(
        "The operator orders api1 to drain: serf-haproxy maint set api1 --service api --reason 'a new disk'",
        lambda: _drain(lab, client, "api1"),
        _API_SERVERS,
        "It keeps a client that has its cookie. New clients do not get there; api2 has all of v1's share meanwhile.",
        _API,
        {"api1": 0, "api2": 50, "api3": 50},
        forbids_reload=True,
        ask_sticky=client.ask,
        home="api1",
        explained="api1",
    )


class StickyClient:
    """A client of the service api that keeps its cookies."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._session = requests.Session()

    def come_to(self, address: str) -> None:
        """Come as a new client until the server at an address answers and gives its cookie.

        Raises:
            SystemFault: It never does.
        """
        for _ in range(_TRY_COUNT):
            self._session.cookies.clear()
            if self.ask() == address:
                return
        raise SystemFault(f"{address} has answered none of {_TRY_COUNT} clients of {_API}")

    def ask(self) -> str:
        """Make a request with a new connection; return the address that answered, "" for a failure."""
        row = next(row for row in self._lab.status()["services"] if row["service"] == _API)
        self._session.trust_env = False  # a proxy of the environment cannot reach loopback
        try:
            answer = self._session.get(row["reached_at"][0], timeout=_TIMEOUT_S, headers={"Connection": "close"})
        except requests.RequestException:
            return ""
        return answer.headers.get("X-Backend-IP", "") if answer.ok else ""


def _add_all(lab: Lab, addresses: dict[str, str], service: str = DEFAULT_SERVICE) -> None:
    for name, address in addresses.items():
        lab.add(name, address, wait_s=0, options=NodeOptions(service))


def _start_api(lab: Lab) -> None:
    _write_table(lab, "v1 = 95, v2 = 5")
    for name, address in _API_SERVERS.items():
        lab.add(name, address, wait_s=0, options=NodeOptions(_API, tags=_make_tag(lab, name)))


def _drain(lab: Lab, client: StickyClient, name: str) -> None:
    client.come_to(_API_SERVERS[name])
    desk = Desk(load_settings(lab.env()))
    desk.give([desk.make(MAINT, DRAIN, OrderWish(reason="a new disk"), _API, name)])


def _make_tag(lab: Lab, name: str) -> dict[str, str]:
    """Return the tag with which a node offers its version of api."""
    port = ports.number_ports(lab.status()["port_base"]).app
    return {tag_of(_API): ":".join((str(port), _VERSIONS[name]))}


def _write_table(lab: Lab, split: str) -> None:
    """Write what the operator says of api into the balancer's services file: a split, and a cookie without reloads."""
    path = Path(load_settings(lab.env()).services_file)
    secret = path.with_name("cookie.secret")
    if not secret.exists():
        write_durably(str(secret), secrets.token_hex(32) + "\n", 0o600)
    said = f'balance = "roundrobin"\nsplit = {{{split}}}\ncookie = "SRV"\ncookie_secret_file = "{secret}"\n'
    kept = re.sub(r"^(?:balance|split|cookie|cookie_secret_file) = .*\n", "", path.read_text(), flags=re.MULTILINE)
    write_durably(str(path), kept.replace(f"[{_API}]\n", f"[{_API}]\n{said}"))

"""The tour behind `make demo`: six changes of a cluster, each checked by HAProxy's state and by real requests."""

import collections
import contextlib
import os
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import requests

from serf_haproxy.control.report import format_table, read_report
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.lab import processes, screen
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.lab.services import NodeOptions, Wish
from serf_haproxy.lab.watch import greet
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.service import TCP
from serf_haproxy.settings import Settings, load_settings

_REQUEST_COUNT = 120
_STEP_S = 60.0
_POLL_S = 0.02
_TO_TRY = ("add web9", "leave web1", "crash web4", "add pg3 --service pg", "status")
_FURTHER = Wish("pg", TCP, 0)  # the second service; its nodes join in a step


class Step(NamedTuple):
    """One step of the tour.

    Attributes:
        title: The change, in a few words.
        act: Makes the change.
        servers: The addresses of the nodes that serve afterwards, by name.
        remark: An explanation of the result.
        service: The service of these nodes.
    """

    title: str
    act: Callable[[], None]
    servers: dict[str, str]
    remark: str
    service: str = DEFAULT_SERVICE


class Tour:
    """A tour of a lab with one balancer.

    Attributes:
        failures: The checks that failed, each with its step.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.failures: list[str] = []

    def run(self) -> None:
        """Run all steps; when a step fails, note that and go on."""
        for number, step in enumerate(self._steps(), 1):
            self._go(number, step)

    def _steps(self) -> Iterable[Step]:
        lab = self._lab
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
        second = {"pg1": "127.0.1.31", "pg2": "127.0.1.32"}
        yield Step(
            "Two nodes join a second service, pg, over TCP",
            lambda: _add_all(lab, second, _FURTHER.name),
            second,
            "The operator's services.toml has named pg; its nodes offer it by the tag svc.pg. Web nodes are as before.",
            _FURTHER.name,
        )

    def _go(self, number: int, step: Step) -> None:
        screen.say("", screen.bold(f"━━ {number}. {step.title}"))
        settings = load_settings(self._lab.env())
        before = _server_lines(settings)
        started_s = time.monotonic()
        step.act()
        acted_s = time.monotonic()
        meanwhile = self._ask_until(settings, step, acted_s + _STEP_S)
        done_s = time.monotonic()
        self._show_status(settings)
        shares = self._ask(_REQUEST_COUNT, step.service)
        screen.show_shares(shares, step.servers)
        screen.show_change(before, _server_lines(settings))
        screen.say(f"  Done after {done_s - started_s:.1f} s. {step.remark}")
        if meanwhile:
            screen.say(f"  Requests during the change: {meanwhile.total()}, failed: {meanwhile['failed']}.")
        self._judge(number, step, settings, shares, meanwhile["failed"])

    def _ask_until(self, settings: Settings, step: Step, deadline_s: float) -> "collections.Counter[str]":
        """Make HTTP requests, from the first server on, until HAProxy has the step's servers; count as `_ask` does."""
        shares: collections.Counter[str] = collections.Counter()
        had_server = any(map(_is_up, _list_servers(settings, DEFAULT_SERVICE).values()))
        while time.monotonic() < deadline_s:
            views = _list_servers(settings, step.service)
            if views.keys() == step.servers.keys() and all(map(_is_up, views.values())):
                break
            if had_server:
                shares += self._ask(1, DEFAULT_SERVICE)
            had_server = had_server or any(map(_is_up, views.values()))
            time.sleep(_POLL_S)
        return shares

    def _ask(self, count: int, service: str) -> "collections.Counter[str]":
        """Make requests, each with a new connection; count them by the address that answered, or as failed."""
        row = next(row for row in self._lab.status()["services"] if row["service"] == service)
        url = row["reached_at"][0]
        shares: collections.Counter[str] = collections.Counter()
        for _ in range(count):
            if row["mode"] == TCP:
                shares[greet(url) or "failed"] += 1
                continue
            try:
                answer = requests.get(url, timeout=10, headers={"Connection": "close"})
            except requests.RequestException:
                shares["failed"] += 1
                continue
            shares[answer.headers.get("X-Backend-IP", "failed") if answer.ok else "failed"] += 1
        return shares

    def _show_status(self, settings: Settings) -> None:
        for line in format_table(read_report(settings)).splitlines():
            screen.say(f"  {line}" if line else "")

    def _judge(
        self,
        number: int,
        step: Step,
        settings: Settings,
        shares: "collections.Counter[str]",
        lost: int,
    ) -> None:
        found = set(_list_servers(settings, step.service))
        faults = []
        if found != step.servers.keys():
            faults.append(f"HAProxy has {sorted(found)} instead of {sorted(step.servers)}")
        if shares.keys() != set(step.servers.values()):
            faults.append(f"requests were answered by {dict(shares)} instead of {sorted(step.servers.values())}")
        elif max(shares.values()) - min(shares.values()) > _REQUEST_COUNT / 10:
            faults.append(f"the shares are uneven: {dict(shares)}")
        if lost:
            faults.append(f"{lost} requests failed during the change")
        self.failures += [f"step {number}, {step.title}: {fault}" for fault in faults]
        for fault in faults:
            screen.say(screen.red(f"  ✗ {fault}"))


def run_tour(lab: Lab, is_once: bool) -> int:
    """Run the tour, stay up until Ctrl-C unless `is_once`, and take the lab down in the end.

    Returns:
        0 when all checks of all steps passed, 111 otherwise.

    Raises:
        InputError: There is a lab already; it stays as it is.
        KeyboardInterrupt: A signal came before the end of the tour.
    """
    screen.say(screen.bold("serf-haproxy keeps HAProxy's servers equal to the live nodes of a Serf cluster."))
    screen.say("This tour shows it in six steps, with real processes on loopback. It takes about half a minute.")
    screen.say("A balancer starts first: HAProxy, the serf-haproxy daemon and a Serf agent, supervised by s6.")
    lab.up(nodes=0, services=[_FURTHER])  # cleans up after itself when it fails, so it stands before the `try`
    tour = Tour(lab)
    try:
        tour.run()
        balancer = lab.status()["balancers"][0]
        screen.say("", screen.bold("━━ All steps succeeded." if not tour.failures else "━━ These checks failed:"))
        screen.say(*(screen.red(f"  {failure}") for failure in tour.failures))
        if not is_once:
            screen.say("  The cluster stays up, so that you can try it:", "")
            screen.say(f"  frontend    {balancer['frontend_url']}", f"  stats page  {balancer['stats_url']}")
            screen.say(*(f"  {row['service']:11} {row['reached_at'][0]}" for row in lab.status()["services"][1:]), "")
            screen.say("  In another terminal, change the cluster:", "")
            screen.say(*(f"    .venv/bin/serf-haproxy lab {words}" for words in _TO_TRY))
            screen.say("", "  Press Ctrl-C to stop and remove it.")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
            screen.say("")
    finally:
        with processes.hold_signals():
            lab.down()
    return 111 if tour.failures else 0


def _add_all(lab: Lab, addresses: dict[str, str], service: str = DEFAULT_SERVICE) -> None:
    for name, address in addresses.items():
        lab.add(name, address, wait_s=0, options=NodeOptions(service))


def _list_servers(settings: Settings, service: str) -> dict[str, ServerStatus]:
    """Return the servers of a service in HAProxy by name; none while it does not answer."""
    status = Runtime(settings.runtime_socket, settings.master_socket).read_status() or {}
    return {name: row for (section, name), row in status.items() if section == service}


def _is_up(view: ServerStatus) -> bool:
    return view.status == "UP" and bool(view.check)


def _server_lines(settings: Settings) -> list[str]:
    if not os.path.exists(settings.config_path):
        return []
    with open(settings.config_path, encoding="utf-8") as file:
        return [line.strip() for line in file if line.lstrip().startswith("server ")]

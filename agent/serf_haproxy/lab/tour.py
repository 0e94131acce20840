"""The tour behind `make demo`: what happens to a cluster, step by step, and the proof that it really happened."""

import collections
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import requests

from serf_haproxy.control.report import format_status, read_status
from serf_haproxy.haproxy.runtime import ServerView, read_servers
from serf_haproxy.lab import processes
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.settings import Settings, load_settings

_REQUEST_COUNT = 120
_STEP_S = 60.0
_POLL_S = 0.02
_BAR = 40


class Step(NamedTuple):
    """One step of the tour.

    Attributes:
        title: What happens.
        act: Makes it happen.
        servers: The nodes that serve afterwards, by name, each with its address.
        remark: What to look at.
    """

    title: str
    act: Callable[[], None]
    servers: dict[str, str]
    remark: str


class Tour:
    """A tour of a lab with one balancer.

    Attributes:
        failures: What should have happened in a step and did not.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.failures: list[str] = []

    def run(self) -> None:
        """Go through all steps; a step that fails is noted and the tour goes on."""
        for number, step in enumerate(self._steps(), 1):
            self._go(number, step)

    def _steps(self) -> Iterable[Step]:
        lab = self._lab
        first = {f"web{number}": f"127.0.1.{number}" for number in (1, 2, 3)}
        yield Step(
            "Three backends join",
            lambda: _add_all(lab, first),
            first,
            "Each is a web application with a Serf agent of its own; nobody touched a file.",
        )
        yield Step(
            "One more joins",
            lambda: lab.add("web4", "127.0.1.4", wait_s=0),
            first | {"web4": "127.0.1.4"},
            "One line more; requests that were under way were finished by the worker before.",
        )
        yield Step(
            "web2 leaves gracefully",
            lambda: lab.leave("web2"),
            {"web1": "127.0.1.1", "web3": "127.0.1.3", "web4": "127.0.1.4"},
            "Serf says goodbye first; its application ends once no request goes there any more.",
        )
        yield Step(
            "web3 crashes: SIGKILL, no goodbye",
            lambda: lab.crash("web3"),
            {"web1": "127.0.1.1", "web4": "127.0.1.4"},
            "Serf needs some seconds to notice. Until then HAProxy's health checks keep requests away from it.",
        )
        yield Step(
            "web2 comes back under a new address",
            lambda: lab.return_("web2", "127.0.1.20", wait_s=0),
            {"web1": "127.0.1.1", "web2": "127.0.1.20", "web4": "127.0.1.4"},
            "Same name, another address: its node file and its line in haproxy.cfg were rewritten.",
        )

    def _go(self, number: int, step: Step) -> None:
        _say("", _bold(f"━━ {number}. {step.title}"))
        settings = load_settings(self._lab.env())
        before = _server_lines(settings)
        started_s = time.monotonic()
        step.act()
        acted_s = time.monotonic()
        meanwhile = self._ask_until(settings, step, acted_s + _STEP_S)
        done_s = time.monotonic()
        self._show_status(settings)
        shares = self._ask(_REQUEST_COUNT)
        _show_shares(step, shares)
        _show_change(before, _server_lines(settings))
        _say(f"  Right after {done_s - started_s:.1f} s. {step.remark}")
        if meanwhile:
            _say(f"  {meanwhile.total()} requests were made meanwhile, {meanwhile['failed']} of them failed.")
        self._judge(number, step, settings, shares, meanwhile["failed"])

    def _ask_until(self, settings: Settings, step: Step, deadline_s: float) -> "collections.Counter[str]":
        """Make requests until the step has come about, as soon as there is a server; return their shares."""
        shares: collections.Counter[str] = collections.Counter()
        had_server = any(map(_is_up, (read_servers(settings) or {}).values()))
        while time.monotonic() < deadline_s:
            views = read_servers(settings) or {}
            if views.keys() == step.servers.keys() and all(map(_is_up, views.values())):
                break
            if had_server:
                shares += self._ask(1)
            had_server = had_server or any(map(_is_up, views.values()))
            time.sleep(_POLL_S)
        return shares

    def _ask(self, count: int) -> "collections.Counter[str]":
        """Make requests with new connections; count them by the address that answered, or as failed."""
        url = self._lab.status()["balancers"][0]["frontend_url"]
        shares: collections.Counter[str] = collections.Counter()
        for _ in range(count):
            try:
                answer = requests.get(url, timeout=10, headers={"Connection": "close"})
            except requests.RequestException:
                shares["failed"] += 1
                continue
            shares[answer.headers.get("X-Backend-IP", "failed") if answer.ok else "failed"] += 1
        return shares

    def _show_status(self, settings: Settings) -> None:
        for line in format_status(read_status(settings)).splitlines():
            _say(f"  {line}" if line else "")

    def _judge(
        self,
        number: int,
        step: Step,
        settings: Settings,
        shares: "collections.Counter[str]",
        lost: int,
    ) -> None:
        found = set(read_servers(settings) or ())
        faults = []
        if found != step.servers.keys():
            faults.append(f"HAProxy has {sorted(found)} instead of {sorted(step.servers)}")
        if shares.keys() != set(step.servers.values()):
            faults.append(f"requests were answered by {dict(shares)} instead of {sorted(step.servers.values())}")
        elif max(shares.values()) - min(shares.values()) > _REQUEST_COUNT / 10:
            faults.append(f"the shares are uneven: {dict(shares)}")
        if lost:
            faults.append(f"{lost} requests failed meanwhile")
        self.failures += [f"step {number}, {step.title}: {fault}" for fault in faults]
        for fault in faults:
            _say(_red(f"  ✗ {fault}"))


def run_tour(lab: Lab, is_once: bool) -> int:
    """Run the tour and, unless told otherwise, stay up until Ctrl-C; take everything down in the end.

    Returns:
        0 when every step really happened, 111 otherwise.

    Raises:
        InputError: There is a lab already; it is untouched.
        KeyboardInterrupt: A signal came before the end of the tour.
    """
    _say(_bold("serf-haproxy: from Serf's gossip to HAProxy, with real processes on this machine"))
    _say("The balancer is an s6 tree of HAProxy, our resident and a Serf agent; it comes up first, alone.")
    lab.up(backends=0)  # undoes itself; only what it has built is ours to take down
    tour = Tour(lab)
    try:
        tour.run()
        balancer = lab.status()["balancers"][0]
        _say("", _bold("━━ All of it happened." if not tour.failures else "━━ Not all of it happened:"))
        _say(*(_red(f"  {failure}") for failure in tour.failures))
        if not is_once:
            _say(f"  frontend    {balancer['frontend_url']}", f"  stats page  {balancer['stats_url']}")
            _say("  In another terminal: .venv/bin/serf-haproxy lab add web9 | leave web1 | crash web4 | status")
            _say("  Ctrl-C ends it.")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
            _say("")
    finally:
        with processes.hold_signals():
            lab.down()
    return 111 if tour.failures else 0


def _add_all(lab: Lab, addresses: dict[str, str]) -> None:
    for name, address in addresses.items():
        lab.add(name, address, wait_s=0)


def _is_up(view: ServerView) -> bool:
    return view.status == "UP" and bool(view.check)


def _server_lines(settings: Settings) -> list[str]:
    if not os.path.exists(settings.config_path):
        return []
    with open(settings.config_path, encoding="utf-8") as file:
        return [line.strip() for line in file if line.lstrip().startswith("server ")]


def _show_shares(step: Step, shares: "collections.Counter[str]") -> None:
    _say("", f"  {_REQUEST_COUNT} requests, each with a new connection:")
    names = {address: name for name, address in step.servers.items()}
    for address, count in sorted(shares.items()):
        bar = "█" * round(_BAR * count / _REQUEST_COUNT)
        _say(f"  {names.get(address, '?'):8} {address:12} {bar} {100 * count / _REQUEST_COUNT:.0f} %")


def _show_change(before: list[str], after: list[str]) -> None:
    _say("", "  haproxy.cfg:")
    _say(*(_red(f"  - {line}") for line in before if line not in after))
    _say(*(_green(f"  + {line}") for line in after if line not in before), "")


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


def _bold(text: str) -> str:
    return _paint("1", text)


def _red(text: str) -> str:
    return _paint("31", text)


def _green(text: str) -> str:
    return _paint("32", text)


def _paint(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() else text

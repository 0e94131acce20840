"""The tour behind `make demo`: changes of a cluster, each checked by HAProxy's state and by real requests."""

import collections
import contextlib
import os
import time

import requests

from serf_haproxy.control.answers import ask_roster
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.report import read_report
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.master import Master
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.lab import ports, processes, screen
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.lab.tour_checks import Finding, Step, has_weights, judge
from serf_haproxy.lab.tour_steps import STEP_COUNT, WISHES, list_steps
from serf_haproxy.lab.watch import greet
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.service import TCP
from serf_haproxy.settings import Settings, load_settings, variable
from serf_haproxy.show.explain import explain_node, format_explanation
from serf_haproxy.show.table import format_table

_REQUEST_COUNT = 120
_STICKY_COUNT = 20
_STEP_S = 60.0
_QUIET_S, _QUIET_POLL_S = 15.0, 0.2
_MASTER_S = 5.0
_POLL_S = 0.02
_TO_TRY = ("add web9", "leave web1", "crash web4", "add pg3 --service pg", "status")


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
        for number, step in enumerate(list_steps(self._lab), 1):
            self._go(number, step)

    def _go(self, number: int, step: Step) -> None:
        screen.say("", screen.bold(f"━━ {number}. {step.title}"))
        settings = load_settings(self._lab.env())
        if step.forbids_reload:
            _wait_quiet(settings)
        before, reload_count = _server_lines(settings), _count_reloads(settings)
        started_s = time.monotonic()
        step.act()
        acted_s = time.monotonic()
        meanwhile = self._ask_until(settings, step, acted_s + _STEP_S)
        done_s = time.monotonic()
        reload_count = _count_reloads(settings) - reload_count
        self._show_status(settings, step)
        shares = self._ask(_REQUEST_COUNT, step.service)
        screen.show_shares(shares, step.servers)
        screen.show_change(before, _server_lines(settings))
        reloads = {0: "without a reload", 1: "with one reload"}.get(reload_count, f"with {reload_count} reloads")
        screen.say(f"  Done after {done_s - started_s:.1f} s, {reloads}. {step.remark}")
        if meanwhile:
            screen.say(f"  Requests during the change: {meanwhile.total()}, failed: {meanwhile['failed']}.")
        sticky = collections.Counter(step.ask_sticky() for _ in range(_STICKY_COUNT) if step.ask_sticky)
        if sticky:
            answered = sticky[step.servers[step.home]]
            screen.say(f"  Requests with the cookie of {step.home}: {_STICKY_COUNT}, answered by it: {answered}.")
        found = frozenset(_list_servers(settings, step.service))
        faults = judge(step, Finding(found, shares, sticky, meanwhile["failed"], reload_count))
        self.failures += [f"step {number}, {step.title}: {fault}" for fault in faults]
        for fault in faults:
            screen.say(screen.red(f"  ✗ {fault}"))

    def _ask_until(self, settings: Settings, step: Step, deadline_s: float) -> "collections.Counter[str]":
        """Make HTTP requests, from the first server on, until HAProxy has the step's servers; count as `_ask` does."""
        shares: collections.Counter[str] = collections.Counter()
        was_up = any(map(_is_up, _list_servers(settings, step.service).values()))
        asked = step.service if was_up else DEFAULT_SERVICE
        had_server = any(map(_is_up, _list_servers(settings, asked).values()))
        while time.monotonic() < deadline_s:
            views = _list_servers(settings, step.service)
            are_up = views.keys() == step.servers.keys() and all(map(_is_up, views.values()))
            if are_up and has_weights(step, _list_weights(settings, step.service)):
                break
            if had_server:
                shares += self._ask(1, asked)
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

    def _show_status(self, settings: Settings, step: Step) -> None:
        """Show the status, and why a node of the step is as it is."""
        report = read_report(settings)
        lines = format_table(report).splitlines()
        for found in explain_node(report, step.explained, step.service, ask_roster(settings)):
            lines += ["", screen.bold(f"serf-haproxy explain {step.explained}")]
            lines += format_explanation(found, report.at_s).splitlines()
        for line in lines:
            screen.say(f"  {line}" if line else "")


def run_tour(lab: Lab, is_once: bool) -> int:
    """Run the tour, stay up until Ctrl-C unless `is_once`, and take the lab down in the end.

    Returns:
        0 when all checks of all steps passed, 111 otherwise.

    Raises:
        InputError: There is a lab already; it stays as it is.
        KeyboardInterrupt: A signal came before the end of the tour.
    """
    screen.say(screen.bold("serf-haproxy keeps HAProxy's servers equal to the live nodes of a Serf cluster."))
    screen.say(f"This tour shows it in {STEP_COUNT} steps, with real processes on loopback, in less than a minute.")
    screen.say("A balancer starts first: HAProxy, the serf-haproxy daemon and a Serf agent, supervised by s6.")
    page = f"{ports.address_balancer('lb1')}:{ports.number_ports(lab.port_base or ports.BASE).page}"
    lab.settings[variable("web_bind")] = page
    lab.up(nodes=0, services=WISHES)  # cleans up after itself when it fails, so it stands before the `try`
    tour = Tour(lab)
    try:
        screen.say(f"Watch it in a browser, if you like: http://{page}/")
        tour.run()
        balancer = lab.status()["balancers"][0]
        screen.say("", screen.bold("━━ All steps succeeded." if not tour.failures else "━━ These checks failed:"))
        screen.say(*(screen.red(f"  {failure}") for failure in tour.failures))
        if not is_once:
            screen.say("  The cluster stays up, so that you can try it:", "")
            screen.say(f"  frontend    {balancer['frontend_url']}", f"  page        http://{page}/")
            screen.say(f"  stats page  {balancer['stats_url']}")
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


def _list_servers(settings: Settings, service: str) -> dict[str, ServerStatus]:
    """Return the servers of a service in HAProxy by name; none while it does not answer."""
    status = Runtime(settings.runtime_socket, settings.master_socket).read_status() or {}
    return {name: row for (section, name), row in status.items() if section == service}


def _list_weights(settings: Settings, service: str) -> dict[str, int]:
    """Return the weights of the servers of a service in HAProxy by name; none while it does not answer."""
    running = Runtime(settings.runtime_socket, settings.master_socket).read_running()
    servers = (running.servers if running else None) or {}
    return {name: seen.weight for (section, name), seen in servers.items() if section == service}


def _is_up(view: ServerStatus) -> bool:
    return view.status in ("UP", "DRAIN") and bool(view.check)


def _wait_quiet(settings: Settings) -> None:
    """Wait until a pass has found nothing to do, so that the next step does not count a reload of the previous one."""
    deadline = time.monotonic() + _QUIET_S
    while read_report(settings).record.verdict != Verdict.UNCHANGED and time.monotonic() < deadline:
        time.sleep(_QUIET_POLL_S)


def _count_reloads(settings: Settings) -> int:
    """Return the number of reloads since HAProxy's start; wait while the master does not answer, during a reload."""
    master = Master(settings.master_socket, settings.service_dir, _MASTER_S)
    deadline = time.monotonic() + _MASTER_S
    while True:
        try:
            return master.read_account().reload_count
        except HaproxyFault:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def _server_lines(settings: Settings) -> list[str]:
    if not os.path.exists(settings.config_path):
        return []
    with open(settings.config_path, encoding="utf-8") as file:
        return [line.strip() for line in file if line.lstrip().startswith("server ")]

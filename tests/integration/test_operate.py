"""The operations page: for each line of "What do you see?" this is broken, and `status` shows what the page quotes."""

import dataclasses
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import probe
from integration.balancer import Balancer, list_haproxy, stopped
from integration.proxy import wait_for
from integration.test_status import run
from serf_haproxy.cli.main import build_parser
from serf_haproxy.control.answers import Answer
from serf_haproxy.control.outcome import DIFFERS
from serf_haproxy.control.report import Report
from serf_haproxy.control.standby import set_aside
from serf_haproxy.control.state import State
from serf_haproxy.haproxy.workers import OldWorkers
from serf_haproxy.show import findings
from serf_haproxy.show.doctor import examine
from serf_haproxy.show.table import format_table

# Holds the daemon's lock until it is killed.
HOLDER = """
import sys, time
from serf_haproxy.system.locks import locked
with locked(sys.argv[1], 5, "a daemon", is_named=True):
    print(flush=True)
    time.sleep(600)
"""

pytestmark = pytest.mark.usefixtures("time_limit")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "operate.md"
TABLE = PAGE.read_text().partition("|---|---|---|\n")[2].partition("\n\n")[0]
ROWS = {cells[0].strip(): cells[1:] for cells in (line.strip("|").split(" | ") for line in TABLE.split("\n"))}


def show(report: Report) -> str:
    """Return what `status -o wide` prints."""
    return format_table(report, width=0)


def lose_serf(balancer: Balancer) -> Iterator[str]:
    """Have the Serf agent hang, then kill it."""
    with stopped(balancer.serf):
        yield show(balancer.read())
    os.kill(balancer.serf, signal.SIGKILL)
    yield show(balancer.read())


def lose_haproxy(balancer: Balancer) -> Iterator[str]:
    """Kill HAProxy."""
    balancer.stop(signal.SIGKILL)
    yield show(balancer.read())


def freeze_haproxy(balancer: Balancer) -> Iterator[str]:
    """Have HAProxy hang."""
    with stopped(*list_haproxy(balancer)):
        yield show(balancer.read())


def lose_daemon(balancer: Balancer) -> Iterator[str]:
    """Have no process hold the daemon's lock."""
    Path(State(balancer.settings.state_dir).daemon_lock_path).unlink()
    yield show(balancer.read())


def stop_daemon(balancer: Balancer) -> Iterator[str]:
    """Have the process that holds the daemon's lock stopped."""
    lock_path = State(balancer.settings.state_dir).daemon_lock_path
    os.unlink(lock_path)  # this process holds it
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock_path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with stopped(holder.pid):
            yield show(balancer.read())
        holder.kill()


def freeze_master(balancer: Balancer) -> Iterator[str]:
    """Have HAProxy's master hang, and its worker serve."""
    with stopped(list_haproxy(balancer)[0]):
        yield show(balancer.read())


def freeze_page(balancer: Balancer) -> Iterator[str]:
    """Have the web process hang: the kernel still accepts connections for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = f"127.0.0.1:{listener.getsockname()[1]}"
        balancer.environment["SERF_HAPROXY_WEB_BIND"] = bind
        balancer.settings = balancer.settings.replace(web_bind=bind)
        yield show(balancer.read())


def hang_daemon(balancer: Balancer) -> Iterator[str]:
    """Let the last pass be long ago."""
    report = balancer.read()
    yield show(report._replace(snapshot=report.snapshot._replace(at_ns=report.snapshot.at_ns + int(1e12))))


def be_another_user(balancer: Balancer) -> Iterator[str]:
    """Look as a user who may not ask."""
    yield show(balancer.read()._replace(serf=Answer(), haproxy=Answer(), daemon=Answer()))


def fail_checks(balancer: Balancer) -> Iterator[str]:
    """Have all health checks fail."""
    for web in balancer.webs.values():
        web.status = 503
    rows = probe.read_status
    wait_for(lambda: all(row.status == "DOWN" for row in rows(balancer.settings).values()), "both are down")
    yield show(balancer.read())


def forget_nodes(balancer: Balancer) -> Iterator[str]:
    """Forget all nodes, as on a balancer that has just been installed."""
    for name in balancer.ports:
        os.unlink(os.path.join(balancer.settings.nodes_dir, name))
    for path in ("known.json", "served", "last_pass.json"):
        os.unlink(os.path.join(balancer.settings.state_dir, path))
    yield show(balancer.read())


def keep_all_out(balancer: Balancer) -> Iterator[str]:
    """Give the only node a wrong tag."""
    yield from forget_nodes(balancer)
    balancer.record("web3", 0)
    yield show(balancer.read())


def lose_all_nodes(balancer: Balancer) -> Iterator[str]:
    """Have all nodes fail together."""
    for name, port in balancer.ports.items():
        balancer.record(name, port, status="failed")
    balancer.run_pass()
    yield show(balancer.read())


def leave_one_that_drains(balancer: Balancer) -> Iterator[str]:
    """Drain one node, and let the other one leave."""
    balancer.record("web1", balancer.ports["web1"], drain="true")
    balancer.record("web2", balancer.ports["web2"], status="left")
    balancer.run_pass()
    yield show(balancer.read())


def reload_over_a_frozen_worker(balancer: Balancer) -> Iterator[str]:
    """Need a reload while the worker hangs."""
    with stopped(*list_haproxy(balancer)):
        balancer.run_pass(balance="leastconn")
        yield show(balancer.read())


def disobey(balancer: Balancer) -> Iterator[str]:
    """Let the last pass have found that a reload did not help."""
    state = State(balancer.settings.state_dir)
    state.write_record(dataclasses.replace(state.read_record(), conditions=[[DIFFERS, "nodes/web1"]]))
    yield show(balancer.read())


def split_without_a_version(balancer: Balancer) -> Iterator[str]:
    """Give a share to a version without a server."""
    Path(balancer.settings.services_file).write_text('[api]\nroutes = ["api.test"]\nsplit = {v1 = 50, v2 = 50}\n')
    for name, port in balancer.ports.items():
        balancer.record(name, port, **{"svc.api": port, "version": "v1"})
    balancer.run_pass()
    balancer.run_pass()
    wait_for(lambda: "split" in show(balancer.read()), lambda: show(balancer.read()))
    yield show(balancer.read())


def announce_one_server_twice(balancer: Balancer) -> Iterator[str]:
    """Have two nodes announce the same address and port."""
    table = '[api]\nroutes = ["api.test"]\naddr_networks = ["192.0.2.0/24"]\n'
    Path(balancer.settings.services_file).write_text(table)
    for name in balancer.ports:
        balancer.record(name, 8080, **{"svc.api": 8080, "addr": "192.0.2.5"})
    balancer.run_pass()
    yield show(balancer.read())


def stand_by(balancer: Balancer) -> Iterator[str]:
    """Set the balancer aside."""
    set_aside(balancer.settings, "upgrade")
    yield show(balancer.read())


def break_template(balancer: Balancer) -> Iterator[str]:
    """Name a template that is none."""
    template = Path(balancer.settings.config_path).with_name("own.j2")
    template.write_text("nonsense\n")
    balancer.run_pass(template_path=str(template))
    yield show(balancer.read())


def apply_without_haproxy(balancer: Balancer) -> Iterator[str]:
    """Need a change while HAProxy is down."""
    balancer.stop(signal.SIGKILL)
    balancer.run_pass(balance="leastconn", reload_timeout_s=0.5)
    yield show(balancer.read())


def have_other_settings(balancer: Balancer) -> Iterator[str]:
    """Make a pass with another setting than this shell has."""
    balancer.run_pass(balance="leastconn")
    yield show(balancer.read())


def have_faults(balancer: Balancer) -> Iterator[str]:
    """Make a fault in the services file, and one in a certificate."""
    Path(balancer.settings.services_file).write_text("[shop]\ncolour = 1\n")
    report = balancer.read()
    record = dataclasses.replace(report.record, certificate_faults=("shop.pem: its key does not match",))
    yield show(report._replace(record=record))


def leave_a_file(balancer: Balancer) -> Iterator[str]:
    """Write a note into the node directory."""
    Path(balancer.settings.nodes_dir, "notes").write_text("call Bob\n")
    yield show(balancer.read())


def keep_old_workers(balancer: Balancer) -> Iterator[str]:
    """Have many old workers."""
    yield show(balancer.read()._replace(old_workers=OldWorkers(99, 2**30, 3600.0)))


def fail_one_check(balancer: Balancer) -> Iterator[str]:
    """Have one health check fail."""
    balancer.webs["web1"].status = 503
    wait_for(lambda: probe.read_status(balancer.settings)["nodes", "web1"].status == "DOWN", "it is down")
    yield show(balancer.read())


def set_by_hand(balancer: Balancer) -> Iterator[str]:
    """Change a server at HAProxy's socket."""
    for state in ("drain", "maint"):
        probe.change(balancer.settings, [f"set server nodes/web1 state {state}"])
        yield show(balancer.read())


def give_orders(balancer: Balancer) -> Iterator[str]:
    """Drain a node by an order, then take it out."""
    for mode in ("--drain", "--stop"):
        assert run(balancer, "maint", "set", "web1", mode, "--reason", "x").returncode == 0
        balancer.run_pass()
        yield show(balancer.read())


def keep_some_out(balancer: Balancer) -> Iterator[str]:
    """Have a wrong tag, a balancer, a node that flaps, and one that left."""
    balancer.record("web3", 0)
    balancer.record("web2", balancer.ports["web2"], status="left")
    yield show(balancer.read())
    balancer.record("web2", balancer.ports["web2"])
    balancer.settings = balancer.settings.replace(flap_cutoff=0.9)
    for status in ("failed", "alive"):
        balancer.record("web2", balancer.ports["web2"], status=status)
        balancer.run_pass()
    yield show(balancer.read())


def pause(balancer: Balancer) -> Iterator[str]:
    """Give the order to pause."""
    run(balancer, "pause")
    balancer.run_pass()
    yield show(balancer.read())


SCENARIOS: dict[str, Callable[[Balancer], Iterator[str]]] = {
    "`Serf down` or `Serf frozen`": lose_serf,
    "`HAProxy down`": lose_haproxy,
    "`HAProxy frozen`": freeze_haproxy,
    "`daemon down`": lose_daemon,
    "`daemon frozen`": stop_daemon,
    "`HAProxy's master`": freeze_master,
    "`web process`": freeze_page,
    "`CRITICAL daemon: it has ended no pass for`": hang_daemon,
    "`daemon ?`, `Serf ?`, `HAProxy ?`": be_another_user,
    "`CRITICAL service shop: ... is down`": fail_checks,
    "`WARNING service shop: ... are one server`": announce_one_server_twice,
    "`CRITICAL service shop: none of its ... nodes can serve`": keep_all_out,
    "`WARNING cluster: no node is known that serves`": forget_nodes,
    "`alone`": lose_all_nodes,
    "`held`": lose_all_nodes,
    "`last`": leave_one_that_drains,
    "`frozen`": reload_over_a_frozen_worker,
    "`differs`": disobey,
    "`split`": split_without_a_version,
    "`standby`": stand_by,
    "`last pass: REJECTED`": break_template,
    "`last pass: UNCONFIRMED`": apply_without_haproxy,
    "`settings: the last pass had others`": have_other_settings,
    "`services file`, `certificates`": have_faults,
    "`node directory`": leave_a_file,
    "`old workers`": keep_old_workers,
    "a node `DOWN`": fail_one_check,
    "a node `MAINT` or `DRAIN`": set_by_hand,
    "a node `draining` or `stopped`": give_orders,
    "a node `quarantined`, `ignored`, `damped`, `gone`": keep_some_out,
    "`paused`": pause,
}


def make_pattern(row: str, quoted: str) -> str:
    """Return a pattern of what the page quotes: of a node it is a cell, of a subject the begin of a line."""
    text = re.escape(quoted).replace(r"\.\.\.", r"[^\n]*").replace("service\\ shop", r"service\ \w+")
    if row.startswith("a node"):
        return rf"^\w+  .*\b{text}\b"
    is_subject = quoted[0].islower() and (
        " " not in quoted or quoted in ("services file", "node directory", "old workers", "web process")
    )
    return rf"^(WARNING |CRITICAL )?{text}: " if is_subject else text


@pytest.mark.parametrize("row", SCENARIOS)
def test_status_shows_what_the_page_quotes(balancer: Balancer, row: str) -> None:
    """Each quoted word is in what `status` prints when this is broken."""
    shown = list(SCENARIOS[row](balancer))
    quoted = re.findall(r"`([^`]+)`", row)
    missing = [one for one in quoted if not any(re.search(make_pattern(row, one), text, re.M) for text in shown)]
    assert missing == [], "\n\n".join(shown)


@pytest.mark.parametrize(
    ("row", "what", "remedy"),
    [
        ("`held`", "held: too many servers were lost", "`serf-haproxy release`, if they are lost indeed"),
        ("`last`", "last: no other server is up", "start another node, or repair one"),
        ("`split`", "split: versions with a share", "start a node of that version, or change `split`"),
        ("`frozen`", "frozen: HAProxy's worker", "look at HAProxy's log, and restart it if it stays so"),
        ("`paused`", "paused: an order to pause", "`serf-haproxy resume`, when the work is done"),
        ("`last pass: REJECTED`", "last pass: REJECTED", "`serf-haproxy check`, and repair the template"),
        (
            "`CRITICAL service shop: ... is down`",
            "service nodes: each of its 2 servers is down",
            "`serf-haproxy explain",
        ),
        ("`services file`, `certificates`", "[shop] colour: there is no such key", "correct it"),
        ("`node directory`", "node directory: the file 'notes' is ignored", "remove the file"),
        ("a node `MAINT` or `DRAIN`", "nodes that are not as they should be: web1", "`serf-haproxy status --pro"),
    ],
)
def test_the_doctor_knows_what_to_do(balancer: Balancer, row: str, what: str, remedy: str) -> None:
    """What is wrong has a remedy, not what the balancer does meanwhile; each thing is one line."""
    for _ in SCENARIOS[row](balancer):
        checks = list(examine(balancer.environment))
    (found,) = (check for check in checks if what in check.what)
    assert found.remedy.startswith(remedy)


@pytest.mark.parametrize("row", SCENARIOS)
def test_status_and_doctor_have_one_remedy(balancer: Balancer, row: str) -> None:
    """Each thing that `status` finds has a remedy, which it says; the doctor says the same one."""
    for _ in SCENARIOS[row](balancer):
        report = balancer.read()
        told = {check.what: check.remedy for check in examine(balancer.environment)}
        for finding in findings.list_findings(report):
            assert finding.remedy
            assert finding.is_whole or finding.remedy in show(report)
            assert told.get(f"{finding.subject}: {finding.what}", finding.remedy) == finding.remedy


def test_a_whole_balancer_shows_none_of_it(balancer: Balancer) -> None:
    """The patterns above are not true of everything."""
    shown = show(balancer.read())
    quoted = [(row, one) for row in SCENARIOS for one in re.findall(r"`([^`]+)`", row)]
    found = [one for row, one in quoted if re.search(make_pattern(row, one), shown, re.M)]
    assert found == ["ignored"]  # the balancer's own node


def test_each_row_of_the_page_has_a_scenario() -> None:
    """A row without one quotes nothing but the word OK."""
    others = [row for row in ROWS if row not in SCENARIOS]
    assert SCENARIOS.keys() <= ROWS.keys()
    assert {word for row in others for word in re.findall(r"`([^`]+)`", row)} == {"OK"}
    assert len(others) == 3
    assert all(means.strip() and do.strip(" |") for means, do in ROWS.values())


def test_each_subject_that_status_can_name_is_on_the_page() -> None:
    """What `status` says in front of the colon is what an operator looks for on the page."""
    source = Path(findings.__file__).read_text()
    subjects = set(re.findall(r'Finding\([^"]*?, f?"([^"{]+?) ?(?:\{[^}]*\})?"', source))
    assert {"Serf", "daemon", "services file", "service", "old workers", "cluster"} <= subjects
    seen = " ".join(ROWS)
    assert {subject for subject in subjects if subject not in seen} == set()


def test_the_commands_on_the_page_are_right() -> None:
    """Each command line of the page is one that the program takes."""
    commands = re.findall(r"`serf-haproxy ([^`]+)`", PAGE.read_text())
    assert len(commands) > 10
    for command in commands:
        build_parser().parse_args(shlex.split(command))

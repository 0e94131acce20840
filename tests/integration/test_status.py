"""`status` says what is wrong, first, and its exit code says how bad that is."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import probe
from integration.balancer import Balancer, list_haproxy, stopped
from integration.proxy import Proxy, wait_for
from serf_haproxy.control.answers import DOWN, Answer
from serf_haproxy.control.report import Reader, Report, read_report
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import record
from serf_haproxy.show.document import to_json
from serf_haproxy.show.findings import judge_report, list_findings
from serf_haproxy.show.levels import Level
from serf_haproxy.show.table import Choice, format_table, format_tsv
from serf_haproxy.show.words import paint
from serf_haproxy.system.network import read_networks

pytestmark = pytest.mark.usefixtures("time_limit")

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "status.md"
COMMAND = (sys.executable, "-m", "serf_haproxy")
COMMAND_S = 2.0  # the longest that a command may take


def run(balancer: Proxy, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as an operator does."""
    environ = os.environ | balancer.environment
    return subprocess.run([*COMMAND, *words], env=environ, capture_output=True, text=True, timeout=60, check=False)


def find_subjects(balancer: Balancer) -> dict[str, Level]:
    """Return what the report finds wrong beside nodes, and how bad."""
    return {finding.subject: finding.level for finding in list_findings(balancer.read())}


def read_first_row(balancer: Balancer) -> str:
    """Return the first node of the table."""
    lines = format_table(balancer.read()).split("\n")
    return lines[lines.index(next(line for line in lines if line.startswith("name "))) + 1]


def test_nothing_is_wrong_on_a_whole_balancer(balancer: Balancer) -> None:
    """The first line has totals and who answers, each with an age, and the exit code is 0."""
    shown = run(balancer, "status")
    assert shown.returncode == 0, shown.stdout
    first = shown.stdout.split("\n")[0]
    assert re.fullmatch(r"OK: 2/2 servers up \| Serf heard \d+s ago \| HAProxy up \d+s \| last pass \d+s ago", first)


def test_serf_that_is_down_is_critical(balancer: Balancer) -> None:
    """When the Serf agent has gone, `status` says so, with the remedy, and exits with 2."""
    os.kill(balancer.serf, signal.SIGKILL)
    shown = run(balancer, "status")
    assert shown.returncode == Level.CRITICAL
    assert shown.stdout.startswith("CRITICAL: 2/2 servers up | Serf down ")
    assert re.search(r"^CRITICAL Serf: .* cannot be reached: .*; start the Serf agent", shown.stdout, re.M)


def test_a_reader_that_has_read_before_reports_the_same(balancer: Balancer) -> None:
    """What a reader keeps to save time changes no report: not after a change, a loss, a pass, or without HAProxy."""
    reader = Reader(balancer.settings)
    nodes_dir = Path(balancer.settings.nodes_dir)
    services = Path(balancer.settings.services_file)

    def describe(report: Report) -> dict[str, object]:
        """Return the report, without what passes with time."""
        document = to_json(report) | {"read_at_s": 0, "haproxy": report.haproxy.state}
        for one in document["members"]:
            one["left_s"] = one["held_s"] = one["damped_s"] = None
        return document

    steps: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "another port": lambda: balancer.record("web1", 9),
        "a node that joins": lambda: balancer.record("web3", 10),
        "a node that left": lambda: balancer.record("web2", balancer.ports["web2"], status="left"),
        "a pass": balancer.run_pass,
        "a service": lambda: services.write_text('[shop]\nroutes = ["shop.example.com"]\n'),
        "a fault": lambda: services.write_text('[shop]\ncolour = "red"\n'),
        "a file that is gone": (nodes_dir / "web3").unlink,
        "no HAProxy": lambda: balancer.stop(signal.SIGKILL),
    }
    reader.read()
    for name, step in steps.items():
        step()
        # HAProxy's own counters may go on between the two reports; what a reader has kept wrongly stays.
        wait_for(lambda: describe(reader.read()) == describe(balancer.read()), name, 10)


def test_nodes_that_are_one_server_are_told(balancer: Balancer) -> None:
    """Nodes that announce one address and port by a tag `addr` are a warning that names them; no pass is made here."""
    settings = balancer.settings.replace(addr_networks=read_networks("192.0.2.0/24"))

    def find_told() -> list[str]:
        return [one.text for one in list_findings(read_report(settings)) if one.subject == "service nodes"]

    for name, addr in (("side1", "192.0.2.5"), ("side2", "192.0.2.5"), ("side3", "192.0.2.6")):
        balancer.record(name, 8080, addr=addr)
    same = "side1, side2 are one server, 192.0.2.5:8080, which gets the share of 2; stop all but one of these nodes"
    assert find_told() == [same]
    shown = {one["name"]: one["address"] for one in to_json(read_report(settings))["members"]}
    assert (shown["side1"], shown["web1"]) == ("192.0.2.5", "127.0.0.1")
    balancer.record("side2", 8080, addr="192.0.2.5", drain="true")
    assert find_told() == []


def test_serf_that_is_frozen_is_critical(balancer: Balancer) -> None:
    """A Serf agent that takes connections and does not answer is told from one that is down."""
    with stopped(balancer.serf):
        report = balancer.read()
    assert (report.serf.state, judge_report(report)) == ("frozen", Level.CRITICAL)


def test_haproxy_that_is_down_is_critical(balancer: Balancer) -> None:
    """When no HAProxy listens, `status` says so and exits with 2."""
    balancer.stop(signal.SIGKILL)
    shown = run(balancer, "status")
    assert shown.returncode == Level.CRITICAL
    assert "| HAProxy down |" in shown.stdout
    assert re.search(r"^CRITICAL HAProxy: no HAProxy listens on .*; start it", shown.stdout, re.M)


@pytest.mark.parametrize("which", [slice(1, None), slice(0, None)], ids=["worker", "all"])
def test_haproxy_that_is_frozen_is_critical(balancer: Balancer, which: slice) -> None:
    """With SIGSTOP in HAProxy, `status` says that it is frozen, and exits with 2."""
    with stopped(*list_haproxy(balancer)[which]):
        shown = run(balancer, "status")
    assert shown.returncode == Level.CRITICAL
    assert "| HAProxy frozen |" in shown.stdout


def test_what_a_haproxy_that_does_not_answer_has_is_not_said(balancer: Balancer) -> None:
    """Neither does a service have 0 servers that are up, nor HAProxy none of a node: that is not known."""

    def look(fault: str) -> None:
        assert to_json(balancer.read())["services"]["nodes"]["up_count"] is None
        explained = run(balancer, "explain", "web1").stdout
        assert f"HAProxy     {fault}" in explained
        assert "does not have it" not in explained

    with stopped(*list_haproxy(balancer)):
        look("HAProxy is there and does not answer")
    balancer.stop(signal.SIGKILL)
    look("no HAProxy listens on ")


def test_a_daemon_that_does_not_run_is_critical(balancer: Balancer) -> None:
    """Without the daemon no change reaches HAProxy."""
    report = balancer.read()._replace(daemon=Answer(DOWN))
    assert (judge_report(report), list_findings(report)[0].subject) == (Level.CRITICAL, "daemon")
    assert judge_report(report._replace(daemon=Answer())) == Level.OK


def test_a_daemon_that_ends_no_pass_is_critical(balancer: Balancer) -> None:
    """A daemon whose last pass is long ago hangs."""
    report = balancer.read()
    later = report.snapshot._replace(at_ns=report.snapshot.at_ns + int(1e12))
    assert list_findings(report._replace(snapshot=later))[0].text.startswith("it has ended no pass for 1")


def test_a_service_without_a_server_that_is_up_is_critical(balancer: Balancer) -> None:
    """When all servers are DOWN, every request fails: the finding names the service and what a check found."""
    for web in balancer.webs.values():
        web.status = 503
    rows = probe.read_status
    wait_for(lambda: all(row.status == "DOWN" for row in rows(balancer.settings).values()), "both are down")
    assert find_subjects(balancer)["service nodes"] == Level.CRITICAL
    table = format_table(balancer.read())
    assert table.startswith("CRITICAL: 0/2 servers up")
    assert (
        "each of its 2 servers is down, so every request to it fails; the health check of web1 found L7STS 503" in table
    )


def test_a_cluster_without_nodes_is_a_warning(balancer: Balancer) -> None:
    """Nothing serves yet: a balancer that has just been installed."""
    for name in balancer.ports:
        os.unlink(os.path.join(balancer.settings.nodes_dir, name))
    for path in ("known.json", "served", "last_pass.json"):
        os.unlink(os.path.join(balancer.settings.state_dir, path))
    assert find_subjects(balancer)["cluster"] == Level.WARNING


def test_nodes_that_are_held_come_first(balancer: Balancer) -> None:
    """Of two nodes that fail together both are held, and the condition is a line before the table."""
    for name, port in balancer.ports.items():
        balancer.record(name, port, status="failed")
    balancer.run_pass()
    lines = format_table(balancer.read()).split("\n")
    assert find_subjects(balancer)["held"] == Level.WARNING
    assert lines[2].startswith("held: too many servers were lost at once")
    assert re.match(r"web1 +held +UP ", read_first_row(balancer))


def test_a_drained_node_is_visible(balancer: Balancer) -> None:
    """A node that its tag drains is shown as draining with weight 0, although its health check is good."""
    balancer.record("web1", balancer.ports["web1"], drain="true")
    balancer.run_pass()
    assert re.search(r"^web1 +draining +UP +0 .* its tag drain is true$", format_table(balancer.read()), re.M)
    member = {one["name"]: one for one in to_json(balancer.read())["members"]}["web1"]
    assert (member["state"], member["check"]["status"], member["weight"], member["wanted_weight"]) == (
        "draining",
        "UP",
        0,
        0,
    )


@pytest.mark.parametrize("state", ["drain", "maint"])
def test_a_server_set_aside_at_haproxys_socket_is_a_problem(balancer: Balancer, state: str) -> None:
    """What a person set at HAProxy's socket is not hidden behind `serving`."""
    probe.change(balancer.settings, [f"set server nodes/web2 state {state}"])
    report = balancer.read()
    assert judge_report(report) == Level.WARNING
    assert f"{state.upper()} was set at HAProxy's socket" in format_table(report, width=0)
    assert read_first_row(balancer).startswith("web2 ")


def test_a_node_with_a_wrong_role_is_visible(balancer: Balancer) -> None:
    """A node whose role does not serve is shown as ignored, with its role and the cause."""
    balancer.settings = balancer.settings.replace(roles=("web",))
    record(balancer.settings.nodes_dir, "alive", Member("web3", "127.0.0.1", "wbe", ("port=9",)))
    member = {one["name"]: one for one in to_json(balancer.read())["members"]}["web3"]
    assert (member["state"], member["cause"], member["role"]) == ("ignored", "role", "wbe")
    assert "role 'wbe' is none of those that become servers" in format_table(balancer.read(), width=0)


def test_the_one_bad_node_of_304_is_first(balancer: Balancer) -> None:
    """Whatever its name, the bad node is the first row, and no line is wider than 80 characters."""
    for number in range(300):
        balancer.record(f"node{number:03}-in-a-rack-with-a-long-name", 9000 + number)
    balancer.record("zzz", 0)
    shown = format_table(balancer.read())
    assert max(map(len, shown.split("\n"))) <= 80
    assert read_first_row(balancer).startswith("zzz   ")
    assert "quarantined" in read_first_row(balancer)


def test_the_reason_is_readable_beside_the_longest_names(balancer: Balancer) -> None:
    """A reason without room gets a line of its own, and the end of a name, in which names differ, is kept."""
    for number in range(2):
        balancer.record(f"{'a-long-name-of-a-rack-' * 3}{number:03}"[-64:], 0)
    run(
        balancer,
        "maint",
        "set",
        "web1",
        "--reason",
        "the disk in slot three of this machine is swapped",
        "--by",
        "alice",
    )
    lines = format_table(balancer.read()).split("\n")
    assert max(map(len, lines)) <= 80
    row = next(index for index, line in enumerate(lines) if line.startswith("web1 "))
    assert lines[row + 1] == "    an order drains it: the disk in slot three of this machine is swapped (alice"
    assert re.fullmatch(r"    at lb1, \S+Z\)", lines[row + 2])
    named = next(line.split()[0] for line in lines if "-000 " in line)
    assert len(named) > 34  # the room that the reason does not take is for names
    for number in range(2):
        row = next(index for index, line in enumerate(lines) if f"-{number:03} " in line)
        assert lines[row + 1] == "    tag port='0' is not a whole number from 1 to 65535"
    lines = format_table(balancer.read(), Choice(["web*"])).split("\n")
    assert [line.split()[0] for line in lines if line.startswith(("name", "web"))] == ["name", "web1", "web2"]


def test_nodes_that_get_less_come_before_those_that_simply_serve(balancer: Balancer) -> None:
    """Of 300 nodes that are as they should be, the one that drains is not row 298."""
    balancer.record("zzz", 9, drain="true")
    names = [line.split("\t")[2] for line in format_tsv(balancer.read(), Choice()).split("\n")[1:]]
    assert names.index("zzz") < names.index("web1")


def test_nodes_are_chosen_and_sorted(balancer: Balancer) -> None:
    """Patterns, states, services and problems choose; the order is asked for; all formats follow."""
    balancer.record("web3", 0)
    report = balancer.read()

    def list_names(**choice: object) -> list[str]:
        return [line.split("\t")[2] for line in format_tsv(report, Choice(**choice)).split("\n")[1:]]  # type: ignore[arg-type]

    assert format_tsv(report, Choice()).split("\n")[0].split("\t")[:3] == ["level", "service", "name"]

    def list_chosen(*words: str) -> list[str]:
        return [one["name"] for one in json.loads(run(balancer, "status", "--json", *words).stdout)["members"]]

    assert list_names(service="nodes")[0] == "web3"
    assert list_chosen() == ["web3", "lb1", "web1", "web2"]
    assert list_chosen("web*", "--sort", "name") == ["web1", "web2", "web3"]
    assert list_chosen("--state", "serving,ignored") == ["lb1", "web1", "web2"]
    assert list_chosen("--problems") == ["web3"]
    assert list_chosen("--service", "other") == []
    assert "there is no node that you ask for" in run(balancer, "status", "nothing").stdout
    assert "there is no service 'other'; there are nodes" in run(balancer, "status", "--service", "other").stdout
    Path(balancer.settings.nodes_dir, "web3").unlink()
    assert "there is no node with a problem" in run(balancer, "status", "--problems").stdout
    wrong = run(balancer, "status", "--state", "ill")
    assert (wrong.returncode, wrong.stderr.split(";")[0]) == (
        100,
        "serf-haproxy: --state 'ill': there is no such state",
    )


def test_a_probe_gets_one_line(balancer: Balancer) -> None:
    """`--exit-code` prints the first line only."""
    shown = run(balancer, "status", "--exit-code")
    assert (shown.returncode, shown.stdout.count("\n")) == (0, 1)


def test_watching_ends_quietly(balancer: Balancer) -> None:
    """`--watch` shows the table again and again; Ctrl-C ends it without a word."""
    argv = [*COMMAND, "status", "--watch", "0.1"]
    environ = os.environ | balancer.environment
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        for _ in range(2):
            assert any(line.startswith("OK: 2/2") for line in iter(process.stdout.readline, ""))
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == ""
    assert process.returncode == 130


def test_colours_are_for_terminals(balancer: Balancer) -> None:
    """A terminal gets colours; a pipe, and a terminal whose user wants none, do not."""
    balancer.record("web3", 0)

    def show_on_terminal(**environ: str) -> str:
        controller, terminal = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, "status"], env=os.environ | balancer.environment | environ, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        text = b""
        try:
            while chunk := os.read(controller, 65536):
                text += chunk
        except OSError:  # the terminal's other end is closed
            pass
        finally:
            process.wait(60)
            os.close(controller)
        return text.decode()

    assert paint(Level.WARNING, "WARNING")[:12] in show_on_terminal(TERM="xterm")
    assert "\x1b" not in show_on_terminal(TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in run(balancer, "status").stdout


def test_json_has_what_the_reference_promises(balancer: Balancer) -> None:
    """The tables of the reference name every key of version 1, and no other."""
    document = to_json(balancer.read())
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S))
    assert document["version"] == 1
    for title, keys in {
        "The document": document.keys(),
        "A member": document["members"][0].keys(),
        "A service": document["services"]["nodes"].keys(),
    }.items():
        assert set(re.findall(r"^\| `(\w+)`", sections[title], re.M)) == set(keys)

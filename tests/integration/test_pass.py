"""Passes with a real HAProxy: their results, and recovery after a pass was interrupted."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import probe
from fakes.web import answering
from integration.proxy import Proxy, running_proxy, wait_for
from integration.test_load import applications
from serf_haproxy.config import fingerprint
from serf_haproxy.control import reconcile, rendering
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.errors import HaproxyFault, SystemFault
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.policy.snapshot import DOWN
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.roster import Roster
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import read_text

BAD_TEMPLATE = "global\n    bogus keyword\n"


def read(path: str) -> str:
    return Path(path).read_text()


def test_a_new_node_is_applied_without_a_reload(proxy: Proxy) -> None:
    """A new node file becomes a server in HAProxy and the live file, and the record has the new digest."""
    proxy.record("web1", 8001)
    outcome = proxy.run_pass()
    assert outcome.verdict is Verdict.APPLIED
    assert outcome.reason == "servers changed: +web1"
    assert proxy.servers() == {"web1"}
    assert proxy.reload_count() == 0
    assert (
        probe.read_record(proxy.settings).digest
        == outcome.digest
        == fingerprint.digest_of(read(proxy.settings.config_path))
    )


def test_a_pass_without_changes_writes_nothing(proxy: Proxy) -> None:
    """When HAProxy runs the right configuration, a pass neither writes the live file nor reloads."""
    proxy.record("web1", 8001)
    proxy.run_pass()
    before = os.stat(proxy.settings.config_path).st_ino, proxy.reload_count()
    assert proxy.run_pass().verdict is Verdict.UNCHANGED
    assert (os.stat(proxy.settings.config_path).st_ino, proxy.reload_count()) == before


@pytest.mark.parametrize("status", ["left", "failed", "leaving"])
def test_a_node_that_is_not_alive_is_removed(proxy: Proxy, status: str) -> None:
    """A node that left, is leaving, or failed longer ago than the grace is removed; the other stays."""
    proxy.record("web1", 8001)
    proxy.record("web2", 8002)
    proxy.run_pass()
    proxy.record("web2", 8002, status=status)
    assert proxy.run_pass(failed_grace_s=0.0).reason == "servers changed: -web2"
    assert proxy.servers() == {"web1"}


def test_a_quarantined_node_affects_no_other(proxy: Proxy) -> None:
    """A node with an invalid port is quarantined with the reason; the others are served."""
    proxy.record("web1", 8001)
    proxy.record("web2", 70000)
    outcome = proxy.run_pass()
    assert proxy.servers() == {"web1"}
    assert outcome.problems == ("node web2 is quarantined: tag port='70000' is not a whole number from 1 to 65535",)


def test_a_template_with_an_error_changes_nothing(proxy: Proxy, short_dir: Path) -> None:
    """A template with an undefined variable is rejected with the line; live file and HAProxy are unchanged."""
    template = short_dir / "own.j2"
    template.write_text("global\n{{ nope }}\n")
    before = read(proxy.settings.config_path)
    outcome = proxy.run_pass(template_path=str(template))
    assert outcome.verdict is Verdict.REJECTED
    assert f"{template}:2: 'nope' is undefined" in outcome.reason
    assert read(proxy.settings.config_path) == before
    assert proxy.reload_count() == 0


def test_a_refused_candidate_is_kept_with_haproxys_errors(proxy: Proxy, short_dir: Path) -> None:
    """A candidate that HAProxy refuses is stored beside the live file as .rejected, with HAProxy's errors."""
    template = short_dir / "own.j2"
    template.write_text(BAD_TEMPLATE)
    before = read(proxy.settings.config_path)
    outcome = proxy.run_pass(template_path=str(template))
    assert outcome.verdict is Verdict.REJECTED
    assert "unknown keyword 'bogus'" in outcome.reason
    rejected = read(f"{proxy.settings.config_path}.rejected")
    assert rejected.startswith(BAD_TEMPLATE)
    assert "# haproxy:" in rejected
    assert "unknown keyword 'bogus'" in rejected
    assert read(proxy.settings.config_path) == before
    assert not os.path.exists(f"{proxy.settings.config_path}.candidate")


def test_a_reload_that_fails_is_rolled_back(short_dir: Path) -> None:
    """A port in use passes the check but not the reload, and the previous file is restored."""
    with running_proxy(short_dir) as proxy, socket.socket() as taken:
        proxy.record("web1", 8001)
        proxy.run_pass()
        good = read(proxy.settings.config_path)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        outcome = proxy.run_pass(frontend_bind=bind)
        assert outcome.verdict is Verdict.UNCONFIRMED
        assert outcome.is_costly
        assert "the previous one was restored" in outcome.reason
        assert read(proxy.settings.config_path) == good
        assert proxy.servers() == {"web1"}
        taken.close()
        assert proxy.run_pass(frontend_bind=bind).verdict is Verdict.RELOADED


@contextlib.contextmanager
def master_that_dies(proxy: Proxy, path: Path) -> Iterator[None]:
    """Relay a socket to the master's; at a reload, kill the master and start it again with the live file."""

    def serve() -> None:
        with contextlib.suppress(OSError):  # the socket is shut down at the end
            while True:
                with listening.accept()[0] as client:
                    command = client.makefile().read().strip()
                    if command == "reload":
                        proxy.stop(signal.SIGKILL)
                        proxy.start()
                        continue
                    with contextlib.suppress(HaproxyFault):  # the master is down: send no answer
                        client.sendall(ask(proxy.settings.master_socket, command, 5).encode())

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        server = threading.Thread(target=serve)
        server.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            server.join(20)


def test_a_master_that_restarts_at_a_reload_confirms_it(proxy: Proxy, short_dir: Path) -> None:
    """When the master dies at a reload and restarts with the new file, the new master confirms it."""
    proxy.record("web1", 8001)
    relay = short_dir / "relay.sock"
    with master_that_dies(proxy, relay):
        outcome = proxy.run_pass(master_socket=str(relay), balance="leastconn")
    assert outcome.verdict is Verdict.RELOADED
    assert "balance leastconn" in read(proxy.settings.config_path)
    assert probe.runs_published(proxy.settings)


def test_a_reload_without_a_master_socket_and_without_s6_is_rolled_back(
    proxy: Proxy, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When neither the master socket nor s6 can reload HAProxy, the pass reports it and restores the file."""
    proxy.record("web1", 8001)
    proxy.run_pass()
    before = read(proxy.settings.config_path)
    programs = short_dir / "bin"
    programs.mkdir()
    (programs / "haproxy").symlink_to("/usr/sbin/haproxy")
    monkeypatch.setenv("PATH", str(programs))
    outcome = proxy.run_pass(master_socket="/nowhere", balance="leastconn")
    assert outcome.verdict is Verdict.UNCONFIRMED
    assert "no answer on /nowhere, and cannot start s6-svstat" in outcome.reason
    assert "the previous one was restored" in outcome.reason
    assert read(proxy.settings.config_path) == before


def test_a_stopped_haproxy_gets_the_configuration_at_its_start(short_dir: Path) -> None:
    """While HAProxy is down, the configuration is checked and published, and confirmed after its start."""
    proxy = Proxy(short_dir)
    proxy.record("web1", 8001)
    outcome = proxy.run_pass()
    assert outcome.verdict is Verdict.UNCONFIRMED
    assert not outcome.is_costly
    assert "published for its start" in outcome.reason
    try:
        proxy.start()
        assert proxy.servers() == {"web1"}
        assert proxy.run_pass().verdict is Verdict.UNCHANGED
    finally:
        proxy.stop()


def test_an_edited_live_file_is_restored(proxy: Proxy) -> None:
    """When only the live file differs from the right configuration, it is published again without a reload."""
    with open(proxy.settings.config_path, "a") as file:
        file.write("# by hand\n")
    before = proxy.reload_count()
    assert proxy.run_pass().verdict is Verdict.APPLIED
    assert "by hand" not in read(proxy.settings.config_path)
    assert proxy.reload_count() == before


def test_a_haproxy_that_runs_something_else_is_reloaded(proxy: Proxy) -> None:
    """When the live file is right but HAProxy runs another configuration, one reload corrects it."""
    proxy.record("web1", 8001)
    proxy.run_pass()
    live = read(proxy.settings.config_path)
    Path(proxy.settings.config_path).write_text(live.replace("balance roundrobin", "balance leastconn"))
    proxy.stop()
    proxy.start()
    Path(proxy.settings.config_path).write_text(live)
    proxy.settings = proxy.settings.replace(balance="leastconn")
    assert (
        proxy.run_pass(balance="roundrobin").verdict is Verdict.UNCHANGED
    )  # the marks are equal, so the difference is invisible
    assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
    assert probe.runs_published(proxy.settings)


DRIFTS = {
    "weight": "set server nodes/web1 weight 7",
    "address": "set server nodes/web1 addr 127.0.0.9 port 99",
    "maintenance": "set server nodes/web1 state maint",
    "drain": "set server nodes/web1 state drain",
    "no checks": "disable health nodes/web1",
    "no checks in maintenance": "disable health nodes/web1; set server nodes/web1 state maint",
    "deleted": "set server nodes/web1 state maint; del server nodes/web1",
    "added": "add server nodes/other 127.0.0.1:8009; enable server nodes/other",
}


@pytest.mark.parametrize("command", DRIFTS.values(), ids=DRIFTS.keys())
def test_manual_changes_of_servers_are_undone_and_reported(proxy: Proxy, command: str) -> None:
    """The next pass undoes manual changes on the runtime socket without a reload, and reports them."""
    proxy.record("web1", 8001)
    proxy.run_pass()
    probe.change(proxy.settings, [command])
    outcome = proxy.run_pass()
    assert outcome.verdict is Verdict.APPLIED
    assert "had drifted" in outcome.reason
    running = probe.read_running(proxy.settings)
    assert running is not None
    assert {key[1]: (seen.endpoint, seen.weight, seen.is_set_aside) for key, seen in running.servers.items()} == {
        "web1": ("127.0.0.1:8001", 1, False)
    }
    assert proxy.reload_count() == 0
    assert proxy.run_pass().verdict is Verdict.UNCHANGED


@pytest.mark.parametrize("command", ["state drain", "state maint", "weight 7"])
def test_manual_changes_of_servers_do_not_survive_a_reload(proxy: Proxy, command: str) -> None:
    """A manual change of a server is not transferred with its state at a reload."""
    proxy.record("web1", 8001)
    proxy.run_pass()
    probe.change(proxy.settings, [f"set server nodes/web1 {command}"])
    assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
    running = probe.read_running(proxy.settings)
    assert [(seen.weight, seen.is_set_aside) for seen in running.servers.values()] == [(1, False)]
    assert proxy.run_pass(balance="leastconn").verdict is Verdict.UNCHANGED


@pytest.mark.parametrize("word", ["down", "stopping"])
@pytest.mark.parametrize("words", ["", " check inter 100ms"], ids=["unchecked", "checked"])
def test_a_manual_health_state_is_undone(proxy: Proxy, short_dir: Path, word: str, words: str) -> None:
    """A server set to down or stopping manually is raised by its next check, or by the next pass without checks."""
    template = short_dir / "own.j2"
    own = Path(rendering.BUILT_IN_TEMPLATE).read_text()
    template.write_text("".join(line for line in own.splitlines(True) if "default-server" not in line))
    template.write_text(template.read_text().replace("{{ server.endpoint }}", "{{ server.endpoint }}" + words))
    with applications(1) as ports:
        ((address, port),) = ports.items()
        proxy.record("web1", port, address)
        proxy.run_pass(template_path=str(template))
        up = "UP" if words else "no check"
        wait_for(lambda: probe.read_servers(proxy.settings)["web1"].status == up, "web1 is up")
        probe.change(proxy.settings, [f"set server nodes/web1 health {word}"])
        outcome = proxy.run_pass(template_path=str(template))
        assert outcome.verdict is (Verdict.UNCHANGED if words else Verdict.APPLIED)
        wait_for(lambda: probe.read_servers(proxy.settings)["web1"].status == up, "web1 is up again")


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ("no-check", Verdict.APPLIED),
        ("slowstart 5s", Verdict.APPLIED),
        ("weight 0", Verdict.APPLIED),
        ("agent-check agent-port 9", Verdict.RELOADED),
        ("disabled", Verdict.RELOADED),
    ],
)
def test_servers_with_other_keywords_reach_a_stable_state(
    proxy: Proxy, short_dir: Path, words: str, verdict: Verdict
) -> None:
    """With various server keywords, a pass after a reload or an addition finds nothing to do."""
    template = short_dir / "own.j2"
    own = Path(rendering.BUILT_IN_TEMPLATE).read_text()
    template.write_text(own.replace("{{ server.endpoint }}", "{{ server.endpoint }} " + words))
    for name, expected in (("web1", Verdict.RELOADED), ("web2", verdict)):
        proxy.record(name, 8001)
        assert proxy.run_pass(template_path=str(template), balance="leastconn").verdict is expected
        assert proxy.run_pass(template_path=str(template), balance="leastconn").verdict is Verdict.UNCHANGED
    if words == "no-check":
        assert {view.status for view in (probe.read_servers(proxy.settings) or {}).values()} == {"no check"}
    assert proxy.reload_count() == (1 if verdict is Verdict.APPLIED else 2)


def test_an_interrupted_start_of_a_server_is_repeated(proxy: Proxy) -> None:
    """A new server left in drain by an incomplete batch of commands is started again as down."""
    proxy.record("web1", 8001)
    add = "add server nodes/web1 127.0.0.1:8001 weight 1 check inter 1s fastinter 250ms downinter 50ms rise 1 fall 2"
    probe.change(proxy.settings, [add, "enable health nodes/web1", "set server nodes/web1 state drain"])
    assert proxy.run_pass().verdict is Verdict.APPLIED
    running = probe.read_running(proxy.settings)
    assert [(seen.operation, seen.is_set_aside) for seen in running.servers.values()] == [(DOWN, False)]


def test_differences_after_a_reload_are_corrected_and_reported(proxy: Proxy) -> None:
    """After a reload the servers are read back, and a change made during the reload is undone and reported."""
    proxy.record("web1", 8001)
    proxy.run_pass()

    def meddle(step: str) -> None:
        if step == "confirmed":
            probe.change(proxy.settings, ["set server nodes/web1 weight 7"])

    settings = proxy.settings.replace(balance="leastconn")
    outcome = reconcile.reconcile(settings, lambda: None, on_step=meddle)
    assert outcome.verdict is Verdict.RELOADED
    assert "1 commands corrected them" in outcome.reason
    assert outcome.again_s is not None
    assert [seen.weight for seen in probe.read_running(proxy.settings).servers.values()] == [1]
    assert proxy.run_pass(balance="leastconn").verdict is Verdict.UNCHANGED


def test_a_custom_template_needs_no_mark(proxy: Proxy, short_dir: Path) -> None:
    """A custom template with a description is published and confirmed like the built-in one."""
    template = short_dir / "own.j2"
    template.write_text(
        "global\n    description mine\n    stats socket {{ settings.runtime_socket }} mode 600 level admin\n"
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 5s\n    timeout server 5s\n"
        "listen all\n    bind {{ settings.frontend_bind }}\n"
        "{% for server in servers %}    server {{ server.name }} {{ server.endpoint }}\n{% endfor %}"
    )
    proxy.record("web1", 8001)
    assert proxy.run_pass(template_path=str(template)).verdict is Verdict.RELOADED
    assert proxy.servers() == {"web1"}
    assert proxy.run_pass(template_path=str(template)).verdict is Verdict.UNCHANGED


def roster(self_name: str, asked_ns: int, port: int = 8001, **members: str) -> Roster:
    """Return a roster of members given as name=status; those named w... have a port tag."""
    listed = {
        name: (status, make_member(name, "127.0.0.1", {"role": "web", "port": str(port)} if name[0] == "w" else {}))
        for name, status in members.items()
    }
    return Roster(asked_ns, self_name, listed)


LATER_NS = 2**62


@pytest.mark.parametrize(
    ("heard", "said", "servers", "verdict"),
    [
        ({"web1": "alive"}, {"web1": "alive", "web2": "alive"}, {"web1", "web2"}, Verdict.APPLIED),
        ({"web1": "alive", "web2": "alive"}, {"web1": "alive", "web2": "left"}, {"web1"}, Verdict.APPLIED),
        ({"web1": "alive", "web2": "alive"}, {"web1": "alive"}, {"web1"}, Verdict.APPLIED),
        ({"web1": "alive", "web2": "alive"}, {}, {"web1", "web2"}, "HELD"),
        ({"web1": "alive"}, {"web1": "left"}, set(), Verdict.UNCHANGED),
        ({"web1": "alive"}, {"web1": "failed"}, {"web1"}, "HELD"),
        ({"web1": "failed"}, {"web1": "alive"}, {"web1"}, Verdict.APPLIED),
    ],
)
def test_the_roster_corrects_missed_events(
    proxy: Proxy,
    heard: dict[str, str],
    said: dict[str, str],
    servers: set[str],
    verdict: str,
) -> None:
    """Node files and roster -> servers; members missing in the roster alone never empty the pool."""
    with answering() as web:
        for name, status in heard.items():
            proxy.record(name, web.port, status=status)
        if verdict == "HELD":  # only servers that have been up are held
            proxy.run_pass()
            proxy.wait_up(*heard)
        said_by_serf = roster("lb1", LATER_NS, web.port, lb1="alive", **said)
        outcome = reconcile.reconcile(proxy.settings, lambda: said_by_serf)
    assert probe.sum_up(outcome) == verdict
    assert proxy.servers() == servers


def test_ambiguous_tags_are_read_from_the_roster(proxy: Proxy) -> None:
    """A value with a comma that looks like a port tag is read from the roster, even between resyncs."""
    tags = {"role": "web", "v": "1,role=lb,port=22", "port": "8001"}
    path = Path(proxy.settings.nodes_dir, "web1")
    path.write_text("alive\tweb1\t127.0.0.1\tweb\tport=22,port=8001,role=lb,role=web,v=1\n")
    listed = {"web1": ("alive", make_member("web1", "127.0.0.1", tags))}
    reconcile.reconcile(proxy.settings, lambda: Roster(LATER_NS, "lb1", listed), is_resync=False)
    assert "server web1 127.0.0.1:8001" in read(proxy.settings.config_path)
    assert "v=1%2Crole=lb%2Cport=22" in path.read_text()


def _pass_cut_after(settings: object, step: str) -> None:
    def on_step(ended: str) -> None:
        if ended == step:
            os.kill(os.getpid(), signal.SIGKILL)

    reconcile.reconcile(settings, lambda: None, on_step=on_step)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "balance"),
    [
        *(
            (step, "roundrobin")
            for step in ("read", "rendered", "compared", "applied", "checked", "published", "recorded")
        ),
        *((step, "leastconn") for step in ("checked", "published", "reloaded", "confirmed", "recorded")),
    ],
)
def test_a_pass_killed_after_any_step_is_repaired_by_the_next(proxy: Proxy, step: str, balance: str) -> None:
    """After SIGKILL at any step, with or without a reload, the next pass makes HAProxy run the right configuration."""
    proxy.record("web1", 8001)
    proxy.run_pass()
    proxy.record("web2", 8002)
    cut_pass(proxy.settings.replace(balance=balance), step)
    check_repair(proxy, balance)


@pytest.mark.parametrize("step", ["reloaded", "restored", "recorded"])
def test_a_pass_killed_in_its_rollback_is_repaired_by_the_next(proxy: Proxy, step: str) -> None:
    """After SIGKILL of a pass whose reload failed because a port was in use, the next pass repairs everything."""
    proxy.record("web1", 8001)
    proxy.run_pass()
    proxy.record("web2", 8002)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cut_pass(proxy.settings.replace(frontend_bind=f"127.0.0.1:{taken.getsockname()[1]}"), step)
    check_repair(proxy, "roundrobin")


def cut_pass(settings: Settings, step: str) -> None:
    """Run a pass that is killed after a step."""
    cut = multiprocessing.get_context("spawn").Process(target=_pass_cut_after, args=(settings, step))
    cut.start()
    cut.join(30)
    assert cut.exitcode == -signal.SIGKILL


def check_repair(proxy: Proxy, balance: str) -> None:
    """Assert that the next pass repairs everything and the one after it finds nothing to do."""
    assert proxy.servers() in ({"web1"}, {"web1", "web2"})
    outcome = proxy.run_pass(balance=balance)
    assert outcome.verdict in (Verdict.RELOADED, Verdict.APPLIED, Verdict.UNCHANGED)
    assert proxy.servers() == {"web1", "web2"}
    assert probe.runs_published(proxy.settings)
    assert (
        probe.read_record(proxy.settings).digest
        == fingerprint.digest_of(read(proxy.settings.config_path))
        == outcome.digest
    )
    assert read_text(proxy.settings.server_state_path) in (None, "1\n")
    assert proxy.run_pass(balance=balance).verdict is Verdict.UNCHANGED


def test_a_pass_killed_during_a_reload_is_repaired(proxy: Proxy) -> None:
    """After a pass was killed right after it sent the reload, the next pass repairs everything."""
    proxy.run_pass()
    proxy.record("web1", 8001)
    proxy.environment["SERF_HAPROXY_BALANCE"] = "leastconn"
    script = (
        "import os, signal, sys\n"
        "from serf_haproxy.control import reconcile\n"
        "from serf_haproxy.haproxy.master import Master\n"
        "from serf_haproxy.haproxy.runtime import Runtime\n"
        "from serf_haproxy.settings import load_settings\n"
        "Master._poll_account = lambda *a, ask=Master._poll_account, n=[]: n.append(1) or ("
        "ask(*a) if len(n) < 2 else os.kill(os.getpid(), signal.SIGKILL))\n"
        "Runtime.confirm = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "reconcile.reconcile(load_settings(os.environ), lambda: None)\n"
    )
    cut = subprocess.run([sys.executable, "-c", script], env=os.environ | proxy.environment, timeout=30, check=False)
    assert cut.returncode == -signal.SIGKILL
    assert proxy.run_pass(balance="leastconn").verdict in (Verdict.RELOADED, Verdict.APPLIED, Verdict.UNCHANGED)
    assert proxy.servers() == {"web1"}


def test_two_passes_never_run_at_the_same_time(proxy: Proxy) -> None:
    """A pass waits for a running one, and then finds nothing to do."""
    lock = os.path.join(proxy.settings.state_dir, "pass.lock")
    command = [sys.executable, "-m", "serf_haproxy", "once"]
    second: list[subprocess.Popen[str]] = []

    def start_second(step: str) -> None:
        if step == "read":
            environ = os.environ | proxy.environment
            second.append(subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True))
            files = psutil.Process(second[0].pid).open_files
            wait_for(lambda: lock in [file.path for file in files()], "the second pass is at the lock")
            with pytest.raises(subprocess.TimeoutExpired):  # several times the duration of a pass
                second[0].wait(1)

    proxy.record("web1", 8001)
    outcome = reconcile.reconcile(proxy.settings, lambda: None, on_step=start_second)
    output, _ = second[0].communicate(timeout=60)
    assert outcome.verdict is Verdict.APPLIED
    assert output.startswith("UNCHANGED")


def test_a_missing_directory_is_an_error_that_names_it(proxy: Proxy, short_dir: Path) -> None:
    """A missing configuration directory ends the pass with an error that has the path, and changes nothing."""
    proxy.record("web1", 8001)
    with pytest.raises(SystemFault, match="missing/haproxy.cfg.candidate"):
        proxy.run_pass(config_path=str(short_dir / "missing" / "haproxy.cfg"))
    assert proxy.reload_count() == 0


def test_a_missing_haproxy_program_is_an_error_with_a_remedy(proxy: Proxy) -> None:
    """Without the HAProxy program, nothing is published and the error has the remedy."""
    proxy.record("web1", 8001)
    before = read(proxy.settings.config_path)
    with pytest.raises(SystemFault, match="cannot start /nowhere/haproxy: .*install it or set its path"):
        proxy.run_pass(haproxy_bin="/nowhere/haproxy")
    assert read(proxy.settings.config_path) == before


def test_after_many_quick_changes_the_last_configuration_runs(proxy: Proxy) -> None:
    """After a hundred quick changes among 1,000 nodes, HAProxy runs the last configuration."""
    for number in range(1000):
        proxy.record(f"web{number}", 1024 + number)
    environment = os.environ | proxy.environment
    daemon = subprocess.Popen([sys.executable, "-m", "serf_haproxy", "run"], env=environment)
    handler = Path(__file__).parents[2] / "handlers" / "member_event"
    try:
        wait_for(lambda: len(proxy.servers()) == 1000, "1,000 servers")
        for number in range(100):
            line = f"web{number}\t127.0.0.1\t\tport={20000 + number}\n".encode()
            subprocess.run([handler], input=line, env=environment | {"SERF_EVENT": "member-update"}, check=True)
            # The test needs pauses of 20 to 70 ms between the changes, including the handler's own time.
            wait_for_s = (number * 37 % 50) / 1000
            multiprocessing.Event().wait(wait_for_s)
        last = probe.render(
            proxy.settings,
            probe.decide(proxy.settings).servers,
        )
        wait_for(
            lambda: Path(proxy.settings.config_path).read_text() == last.text, "the last configuration is published"
        )
        wait_for(lambda: probe.runs_published(proxy.settings), "the last configuration runs")
        assert all(f"server web{number} 127.0.0.1:{20000 + number}" in last.text for number in range(100))
        assert json.loads(Path(proxy.settings.state_dir, "last_pass.json").read_text())["verdict"] in (
            "APPLIED",
            "UNCHANGED",
        )
    finally:
        daemon.terminate()
        assert daemon.wait(30) == 0

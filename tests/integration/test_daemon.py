"""The daemon as a process: wakes, signals, readiness, an unreachable Serf agent, and reloads through s6."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

import probe
from fakes.web import answering
from integration.agents import run_serf
from integration.proxy import Proxy, make_environment, running_proxy, wait_for
from serf_haproxy.control import rendering
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.serf.nodes import forget
from serf_haproxy.serf.wake import wake
from serf_haproxy.system.locks import locked

COMMAND = [sys.executable, "-m", "serf_haproxy"]


@contextlib.contextmanager
def running_daemon(
    proxy: Proxy, command: Sequence[str] = (*COMMAND, "run"), **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the daemon for a HAProxy for the duration of a block; its log is in the state directory."""
    with open(log_path(proxy), "wb") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | proxy.environment | environment,
            stderr=log,
        )
    try:
        wait_for(lambda: os.path.exists(os.path.join(proxy.settings.state_dir, "last_pass.json")), "the first pass")
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)


def log_path(proxy: Proxy) -> Path:
    return Path(proxy.settings.state_dir, "daemon.log")


def said(proxy: Proxy, text: str) -> bool:
    return text in log_path(proxy).read_text()


def test_a_wake_becomes_a_pass(proxy: Proxy) -> None:
    """A node file and a wake cause a pass; no Serf agent is needed."""
    with running_daemon(proxy):
        proxy.record("web1", 8001)
        assert wake(proxy.settings.wake_fifo)
        wait_for(lambda: proxy.servers() == {"web1"}, "web1 is served")
        forget(proxy.settings.nodes_dir, "web1")
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: proxy.servers() == set(), "web1 is removed")
        wait_for(lambda: said(proxy, "APPLIED servers changed: -web1"), "the change is logged")


def test_events_while_the_daemon_was_down_are_found_at_its_start(proxy: Proxy) -> None:
    """Node files written while no daemon ran are in HAProxy after the first pass."""
    proxy.record("web1", 8001)
    with running_daemon(proxy):
        wait_for(lambda: proxy.servers() == {"web1"}, "web1 is served")


def test_removed_directory_and_fifo_are_made_again(proxy: Proxy) -> None:
    """The next resync creates a removed node directory and FIFO, and events are handled again."""
    host, port = proxy.settings.rpc_addr
    # Serf does not know web1, which has failed therefore, and has its grace.
    environment = {"SERF_HAPROXY_RESYNC_INTERVAL_S": "0.5", "SERF_HAPROXY_FAILED_GRACE_S": "60"}
    with run_serf("lb1", host, port, "role=balancer"), running_daemon(proxy, **environment):
        shutil.rmtree(proxy.settings.nodes_dir)
        os.unlink(proxy.settings.wake_fifo)
        wait_for(lambda: os.path.exists(proxy.settings.wake_fifo), "the FIFO is back")
        wait_for(lambda: os.path.isdir(proxy.settings.nodes_dir), "the directory is back")
        proxy.record("web1", 8001)
        assert wake(proxy.settings.wake_fifo)
        wait_for(lambda: proxy.servers() == {"web1"}, "web1 is served")


def test_many_wakes_become_few_passes(proxy: Proxy) -> None:
    """Fifty events within the quiet time cause one pass, or two when the machine stalls for longer."""
    with running_daemon(proxy, SERF_HAPROXY_QUIET_S="1", SERF_HAPROXY_MAX_WAIT_S="60"):
        for number in range(50):
            proxy.record(f"web{number}", 8001 + number)
            wake(proxy.settings.wake_fifo)
            time.sleep(0.02)  # long enough for several passes
        wait_for(lambda: len(proxy.servers()) == 50, "50 servers")
        wait_for(lambda: said(proxy, "APPLIED"), "the change is logged")
        assert log_path(proxy).read_text().count("APPLIED") <= 2


def test_readiness_is_signalled_after_the_first_pass(proxy: Proxy) -> None:
    """The daemon writes a line feed to the notification fd when HAProxy runs the right configuration."""
    proxy.record("web1", 8001)
    readable, writable = os.pipe()
    command = [*COMMAND, "run", "--notify-fd", str(writable)]
    process = subprocess.Popen(command, env=os.environ | proxy.environment, pass_fds=[writable])
    os.close(writable)
    try:
        assert os.read(readable, 10) == b"\n"
        assert proxy.servers() == {"web1"}
    finally:
        os.close(readable)
        process.terminate()
        assert process.wait(30) == 0


def test_sigterm_ends_the_daemon_with_exit_code_0(proxy: Proxy) -> None:
    """After SIGTERM, the daemon finishes a running pass and then exits with 0."""
    with running_daemon(proxy) as process:
        proxy.record("web1", 8001)
        wake(proxy.settings.wake_fifo)
        time.sleep(0.25)  # about when the pass begins; the result must be the same before and after that
        process.terminate()
        assert process.wait(30) == 0
    assert proxy.run_pass().verdict in (Verdict.UNCHANGED, Verdict.RELOADED)


def test_sighup_reads_settings_and_template_again(proxy: Proxy, short_dir: Path) -> None:
    """SIGHUP loads a changed template; invalid settings are logged and ignored."""
    template, toml = short_dir / "own.j2", short_dir / "settings.toml"
    shutil.copy(rendering.BUILT_IN_TEMPLATE, template)
    toml.write_text(f"template_path = '{template}'\n")
    with running_daemon(proxy, SERF_HAPROXY_SETTINGS_FILE=str(toml)) as process:
        template.write_text(template.read_text().replace("balance {{ service.balance }}", "balance leastconn"))
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "balance leastconn" in Path(proxy.settings.config_path).read_text(), "the new template")
        toml.write_text("resync_interval_s = -1\n")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: said(proxy, "the settings stay as they were"), "the invalid setting is logged")
        assert process.poll() is None


def test_a_repaired_template_is_used_without_a_signal(proxy: Proxy, short_dir: Path) -> None:
    """The daemon tries a rejected template again by itself."""
    template = short_dir / "own.j2"
    template.write_text("{{ nope }}")
    with running_daemon(proxy, SERF_HAPROXY_TEMPLATE_PATH=str(template)):
        wait_for(lambda: said(proxy, "REJECTED"), "the rejection is logged")
        good = Path(rendering.BUILT_IN_TEMPLATE).read_text().replace("defaults\n", "defaults\n    # repaired\n")
        template.write_text(good)
        wait_for(lambda: "# repaired" in Path(proxy.settings.config_path).read_text(), "the repaired template")


def test_a_second_daemon_refuses_to_start(proxy: Proxy) -> None:
    """A second daemon for the same state directory ends with exit code 111 and the reason."""
    with running_daemon(proxy):
        environment = os.environ | proxy.environment
        second = subprocess.run([*COMMAND, "run"], env=environment, capture_output=True, text=True, check=False)
        assert second.returncode == 111
        assert "another daemon is running" in second.stderr


def test_an_unreachable_serf_agent_changes_nothing_and_is_asked_when_it_is_back(proxy: Proxy) -> None:
    """Servers stay while the Serf agent is down; when it is back, its roster corrects the node files at once."""
    host, port = proxy.settings.rpc_addr
    with answering() as web:
        # Serf does not know them: they have failed, and have their grace.
        grace = {"SERF_HAPROXY_FAILED_GRACE_S": "60"}
        with run_serf("lb1", host, port, "role=balancer"), running_daemon(proxy, **grace):
            proxy.record("web1", web.port)
            proxy.record("web2", web.port)
            wake(proxy.settings.wake_fifo)
            wait_for(lambda: proxy.servers() == {"web1", "web2"}, "two servers from events")
            proxy.wait_up("web1", "web2")
        # A new Serf agent and a new daemon find node files of members that the new cluster does not have.
        with run_serf("lb1", host, port, "role=balancer"), running_daemon(proxy):
            wait_for(lambda: said(proxy, "HELD"), "both are missing in the roster and held")
        assert proxy.servers() == {"web1", "web2"}


def test_a_hanging_serf_agent_delays_no_event(proxy: Proxy) -> None:
    """An RPC port that accepts and never answers costs only its time limit."""
    with socket.create_server(proxy.settings.rpc_addr), running_daemon(proxy, SERF_HAPROXY_RPC_TIMEOUT_S="0.3"):
        proxy.record("web1", 8001)
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: proxy.servers() == {"web1"}, "web1 is served")
        assert said(proxy, "gave no answer to handshake in 0.3 s")


@pytest.mark.parametrize("command", ["run", "once", "check", "render", "status"])
def test_invalid_settings_end_every_command(command: str) -> None:
    """Every command reports all invalid settings and ends with exit code 100."""
    wrong = {"SERF_HAPROXY_QUIET_S": "soon", "SERF_HAPROXY_DEFAULT_PORT": "70000"}
    ended = subprocess.run(
        [*COMMAND, command], env=os.environ | wrong, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 100
    assert "SERF_HAPROXY_QUIET_S='soon': must be 0 to 10 seconds" in ended.stderr
    assert "SERF_HAPROXY_DEFAULT_PORT='70000': must be a whole number, 1 to 65535" in ended.stderr


def test_s6_reloads_haproxy_when_no_master_socket_answers(short_dir: Path) -> None:
    """Without a master socket, s6 reloads HAProxy and the worker confirms the configuration."""
    environment = make_environment(short_dir) | {"SERF_HAPROXY_MASTER_SOCKET": str(short_dir / "none.sock")}
    proxy = Proxy(short_dir, **environment)
    service = Path(proxy.settings.service_dir)
    service.mkdir(parents=True)
    (service / "run").write_text(
        f"#!/bin/sh\nexec s6-notifyoncheck -w 50 -n 100 -c 'test -S {proxy.settings.runtime_socket}' "
        f"haproxy -W -db -f {proxy.settings.config_path} 2>/dev/null\n"
    )
    (service / "run").chmod(0o755)
    (service / "notification-fd").write_text("3\n")
    scan = subprocess.Popen(["s6-svscan", str(service.parent)], start_new_session=True)
    try:
        wait_for(
            lambda: subprocess.run(["s6-svwait", "-U", "-t", "1", str(service)], check=False).returncode == 0, "up"
        )
        proxy.record("web1", 8001)
        assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
        assert proxy.servers() == {"web1"}
    finally:
        scan.terminate()
        assert scan.wait(20) == 0


def test_check_warns_of_what_an_operator_hardly_wants(proxy: Proxy) -> None:
    """Measured weights with the fewest connections are valid, and `check` says what they do not do."""
    combination = {"SERF_HAPROXY_BALANCE": "leastconn", "SERF_HAPROXY_WEIGHTS": "measured"}
    for environment, warning in (({}, ""), (combination, "serf-haproxy: warning: service nodes: balance: leastconn")):
        environ = os.environ | proxy.environment | environment
        said = subprocess.run([*COMMAND, "check"], env=environ, capture_output=True, text=True, check=True)
        assert "are valid" in said.stdout
        assert bool(said.stderr) == bool(warning)
        assert said.stderr.startswith(warning)


def test_once_check_render_and_status_agree(proxy: Proxy) -> None:
    """`render` prints what `once` publishes, `check` accepts it, and `status` shows it with HAProxy's state."""
    import json

    def command(*words: str) -> str:
        return subprocess.run(
            [*COMMAND, *words],
            env=os.environ | proxy.environment,
            capture_output=True,
            text=True,
            check=words[0] != "status",  # neither Serf nor the daemon runs
        ).stdout

    proxy.record("web1", 8001)
    proxy.record("web2", 0)
    proxy.record("web3", 8003, status="left")
    rendered = command("render")
    assert "are valid" in command("check")
    assert command("once").startswith("APPLIED servers changed: +web1")
    assert Path(proxy.settings.config_path).read_text() == rendered
    report = json.loads(command("status", "--json"))
    assert (report["verdict"], report["reason"]) == ("APPLIED", "servers changed: +web1")
    by_name = {member["name"]: member for member in report["members"]}
    of_haproxy = dict.fromkeys(("health", "check", "trouble", "level"))
    assert by_name["web1"] | of_haproxy | {"since_s": 0} == {
        **of_haproxy,
        "name": "web1",
        "service": "nodes",
        "state": "serving",
        "cause": "alive",
        "reason": "it is alive in Serf",
        "weight": 1,
        "wanted_weight": 1,
        "session_count": 0,
        "since_s": 0,
        "left_s": None,
        "status": "alive",
        "address": "127.0.0.1",
        "port": 8001,
        "version": "",
        "is_backup": False,
        "role": "",
        "evidence": "event",
        "in_haproxy": True,
        "quarantined": None,
        "held_s": None,
        "damped_s": None,
        "measured": None,
    }
    assert by_name["web1"]["health"].startswith(("UP", "DOWN"))
    assert by_name["web2"]["quarantined"] == "tag port='0' is not a whole number from 1 to 65535"
    assert not by_name["web2"]["in_haproxy"]
    assert [by_name[name]["port"] for name in ("web2", "web3")] == [None, 8003]
    assert "web2" in command("status")


def test_check_prints_haproxys_error(short_dir: Path) -> None:
    """`check` prints HAProxy's error with its line, writes no file and ends with exit code 100."""
    template = short_dir / "own.j2"
    template.write_text("global\n    bogus keyword\n")
    environment = os.environ | make_environment(short_dir) | {"SERF_HAPROXY_TEMPLATE_PATH": str(template)}
    ended = subprocess.run([*COMMAND, "check"], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 100
    assert ":2] : unknown keyword 'bogus'" in ended.stderr
    assert os.listdir(short_dir) == ["own.j2"]


def test_a_running_reload_does_not_lose_the_next_one(proxy: Proxy) -> None:
    """After ten passes without a pause, HAProxy runs the last configuration."""
    for number in range(10):
        proxy.record("web1", 8001 + number)
        assert proxy.run_pass(balance=("leastconn", "roundrobin")[number % 2]).verdict is Verdict.RELOADED
    assert probe.read_account(proxy.settings).failed_count == 0
    assert probe.read_live(proxy.settings) == probe.render(proxy.settings, probe.decide(proxy.settings).servers).text


def test_the_first_start_needs_no_directories(short_dir: Path) -> None:
    """A pass creates the directories that it writes to."""
    environment = os.environ | make_environment(short_dir / "new")
    with running_proxy(short_dir / "new", **make_environment(short_dir / "new")) as proxy:
        shutil.rmtree(proxy.settings.nodes_dir)
        ended = subprocess.run([*COMMAND, "once"], env=environment | proxy.environment, check=False)
        assert ended.returncode == 0
        assert os.path.isdir(proxy.settings.nodes_dir)
    assert Verdict.UNCHANGED.exit_code == 0


def test_a_daemon_whose_passes_fail_does_not_spin(proxy: Proxy) -> None:
    """While every pass ends with an error and Serf answers, the daemon makes pauses; then it recovers."""
    state_dir = Path(proxy.settings.state_dir)
    environ = os.environ | proxy.environment | {"SERF_HAPROXY_PROOF_SECRET_FILE": str(state_dir / "missing")}
    with (
        run_serf("lb1", *proxy.settings.rpc_addr),
        open(state_dir / "daemon.log", "wb") as log,
        subprocess.Popen([*COMMAND, "run"], env=environ, stderr=log) as process,
    ):
        try:
            wait_for(
                lambda: b"there is no such file" in (state_dir / "daemon.log").read_bytes(),
                "the error is logged",
            )
            before_s = sum(psutil.Process(process.pid).cpu_times()[:2])
            time.sleep(3)
            assert sum(psutil.Process(process.pid).cpu_times()[:2]) - before_s < 1.0
            (state_dir / "missing").write_text("correct horse battery staple\n")
            wait_for((state_dir / "last_pass.json").exists, "a pass", 30)
        finally:
            process.terminate()


def test_a_daemon_of_the_previous_release_keeps_a_new_one_out(proxy: Proxy) -> None:
    """A running daemon of the previous release holds another lock: the new daemon does not start beside it."""
    with locked(os.path.join(proxy.settings.state_dir, "resident.lock"), 0, "the previous release"):
        second = subprocess.run(
            [*COMMAND, "run"], env=os.environ | proxy.environment, capture_output=True, text=True, check=False
        )
        assert second.returncode == 111
        assert "another daemon is running" in second.stderr
        shown = subprocess.run(
            [*COMMAND, "status", "--json"],
            env=os.environ | proxy.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert '"daemon_runs": true' in shown.stdout

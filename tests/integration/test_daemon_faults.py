"""Faults of each resource that the daemon needs, under load: it recovers by itself after each fault."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.serf_rpc import member, speak
from fakes.servers import Talk, be_silent, close_at_once, drip, pour, serving, serving_unix
from integration.disks import Disk, SlowDisk, private_mounts
from integration.faults import Bench, running_bench
from integration.proxy import running_proxy, wait_for
from integration.test_daemon import COMMAND
from integration.test_load import applications
from serf_haproxy.control import rendering
from serf_haproxy.errors import SystemFault
from serf_haproxy.serf.wake import wake
from serf_haproxy.settings import variable

USUAL = {
    "SERF_HAPROXY_DRAIN_TIMEOUT_S": "0",
    "SERF_HAPROXY_RPC_TIMEOUT_S": "0.3",
    "SERF_HAPROXY_RESYNC_INTERVAL_S": "0.5",
    "SERF_HAPROXY_HINTS": "off",  # the fake RPC serves one connection at a time
    "SERF_HAPROXY_RELOAD_INTERVAL_S": "0",
}
# All imports come before setuid: an ordinary user may not be able to read the packages. The process sets its own
# limit, because root cannot always set the limit of another user's process.
AS_USER = """
import encodings.idna, importlib, os, pkgutil, resource, signal, sys
import serf_haproxy.cli.main
for module in pkgutil.walk_packages(serf_haproxy.__path__, "serf_haproxy."):
    if not module.name.startswith("serf_haproxy.lab"):
        importlib.import_module(module.name)
user_id = int(sys.argv.pop(1))
os.setgroups([])
os.setgid(user_id)
os.setuid(user_id)
before = resource.getrlimit(resource.RLIMIT_NPROC)
few = 1, before[1]
signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_NPROC, few))
signal.signal(signal.SIGUSR2, lambda *_: resource.setrlimit(resource.RLIMIT_NPROC, before))
sys.exit(serf_haproxy.cli.main.main())
"""
USER_ID = 61234  # no other process has it: the limit counts all processes of a user


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """Run three web applications for all tests of this module."""
    with applications(3) as running:
        yield running


@contextlib.contextmanager
def running(
    directory: Path, ports: dict[str, int], name: str, user_id: int | None = None, **environment: str
) -> Iterator[tuple[Bench, "subprocess.Popen[bytes]"]]:
    """Run a HAProxy under load and a daemon for the duration of a block; assert that the daemon survives."""
    with (
        running_proxy(directory, **USUAL, **environment) as proxy,
        running_bench(proxy, ports, name) as bench,
        open(log_path(bench), "wb") as log,  # on a disk with free space
    ):
        argv = [*COMMAND, "run"]
        if user_id is not None:
            assert os.geteuid() == 0, "cannot start it as another user, which needs root (sudo make test)"
            argv = [sys.executable, "-c", AS_USER, str(user_id), "run"]
            for path in (directory, *directory.rglob("*")):
                os.chown(path, user_id, user_id)
        process = subprocess.Popen(argv, env=os.environ | proxy.environment, stderr=log)
        try:
            said = log_path(bench).read_text
            wait_for(lambda: os.path.exists(proxy.settings.wake_fifo) or process.poll() is not None, said)
            assert process.poll() is None, said()
            yield bench, process
            assert process.poll() is None, log_path(bench).read_text()
            assert "an internal error" not in log_path(bench).read_text(), log_path(bench).read_text()
        finally:
            process.terminate()
            process.wait(30)


def log_path(bench: Bench) -> Path:
    """Return the path of the daemon's log."""
    return Path(f"{bench.proxy.settings.wake_fifo}.log")


def turn(bench: Bench, name: str = "web3") -> None:
    """Let a member join or leave, and wake the daemon as the handler does."""
    bench.turn(name)
    wake(bench.proxy.settings.wake_fifo)


def expect_log(bench: Bench, text: str) -> Callable[[], None]:
    """Return a function that waits until the log contains a text once more than now."""
    before = log_path(bench).read_text().count(text)
    return lambda: wait_for(
        lambda: log_path(bench).read_text().count(text) > before,
        lambda: f"{text!r} in {log_path(bench).read_text()}",
    )


@pytest.mark.parametrize("place", ["state_dir", "config_path", "nodes_dir"])
def test_a_full_and_a_read_only_disk_are_logged_and_survived(
    short_dir: Path, ports: dict[str, int], place: str
) -> None:
    """While a directory cannot be written, requests succeed and the log names it; afterwards everything is written."""
    directory = short_dir / place
    path = str(directory / "haproxy.cfg") if place == "config_path" else str(directory)
    with private_mounts():
        disk = Disk(directory)
        try:
            with running(short_dir, ports, f"disk of {place}", **{variable(place): path}) as (bench, _):
                for begin, words, end in (
                    (disk.fill, "No space left on device", disk.clear),
                    (disk.lock, "Read-only file system", disk.unlock),
                ):
                    wait_logged = expect_log(bench, words)
                    begin()
                    if place == "nodes_dir":
                        with pytest.raises(SystemFault, match=f"{words}.*the next resync heals what was missed"):
                            turn(bench)
                        end()
                        turn(bench)  # Serf does not repeat an event: this is the next one
                        turn(bench)
                    else:
                        turn(bench)
                        wait_logged()
                        bench.wait_requests()
                        end()
                    bench.heal_alone()
        finally:
            disk.remove()


@pytest.mark.alone
def test_a_hanging_disk_is_logged_and_survived(short_dir: Path, ports: dict[str, int]) -> None:
    """While writes hang, servers change at run time, requests succeed and the log names the pass's last step."""
    limits = {"SERF_HAPROXY_CHECK_TIMEOUT_S": "1", "SERF_HAPROXY_RELOAD_TIMEOUT_S": "1"}
    limits |= {"SERF_HAPROXY_CONFIG_PATH": str(short_dir / "config" / "haproxy.cfg")}
    with private_mounts():
        disk = SlowDisk(short_dir / "config", short_dir / "disk.image")
        try:
            with running(short_dir, ports, "disk that hangs", **limits) as (bench, _):
                with disk.hanging():
                    wait_logged = expect_log(bench, "a pass exceeds its time limit, its last step was 'applied'")
                    turn(bench)
                    wait_logged()
                    assert bench.proxy.servers() == bench.wanted
                    bench.wait_requests()
                bench.heal_alone()
        finally:
            disk.remove()


def test_a_full_node_directory_is_filled_from_the_roster_later(short_dir: Path, ports: dict[str, int]) -> None:
    """When the disk has space again, missing node files are written from Serf's roster without another event."""
    directory = short_dir / "nodes"
    listed = [
        member(f"web{number}", socket.inet_aton(address), role="web", port=str(port))
        for number, (address, port) in enumerate(ports.items(), 1)
    ]
    with private_mounts():
        disk = Disk(directory)
        try:
            with running(short_dir, ports, "disk of nodes_dir, roster") as (bench, _):
                disk.fill()
                wait_logged = expect_log(bench, "No space left on device")
                with serving(socket.create_server(bench.proxy.settings.rpc_addr), speak({}, *listed)):
                    wait_logged()
                    disk.clear()
                    bench.wanted = {"web1", "web2", "web3"}
                    bench.heal_alone()
        finally:
            disk.remove()


def test_a_haproxy_program_that_is_missing_forbidden_or_hanging_is_waited_for(
    short_dir: Path, ports: dict[str, int]
) -> None:
    """While HAProxy's program cannot check files, servers change at run time; later the file is written."""
    binary = short_dir / "haproxy-of-this-test"
    real = shutil.which("haproxy") or "/usr/sbin/haproxy"
    options = {"SERF_HAPROXY_HAPROXY_BIN": str(binary), "SERF_HAPROXY_CHECK_TIMEOUT_S": "1"}

    def repair() -> None:
        binary.unlink(missing_ok=True)
        binary.symlink_to(real)

    def spoil(mode: int) -> None:
        repair()
        binary.unlink()
        binary.write_text("#!/bin/sh\nexec sleep 987\n")
        binary.chmod(mode)

    repair()
    with running(short_dir, ports, "haproxy program", **options) as (bench, _):
        for begin, words in (
            (binary.unlink, "No such file or directory; install it or set its path"),
            (lambda: spoil(0o644), "Permission denied; install it or set its path"),
            (lambda: spoil(0o755), "gave no result in 1 s and was killed"),
        ):
            wait_logged = expect_log(bench, words)
            begin()
            turn(bench)
            wait_logged()
            bench.wait_requests()
            repair()
            bench.heal_alone()


def test_a_template_that_is_missing_broken_or_hanging_is_waited_for(short_dir: Path, ports: dict[str, int]) -> None:
    """Meanwhile the last good template is used, also after SIGHUP; the repaired one is used automatically."""
    template = short_dir / "own.j2"
    good = "# mine\n" + Path(rendering.BUILT_IN_TEMPLATE).read_text()
    template.write_text(good)
    options = {"SERF_HAPROXY_TEMPLATE_PATH": str(template), "SERF_HAPROXY_TEMPLATE_TIMEOUT_S": "2"}
    endless = good.replace("{% for server", "{% for n in range(10**12) %}{% endfor %}{% for server")
    with running(short_dir, ports, "template", **options) as (bench, process):
        for begin, words in (
            (template.unlink, "there is no such template"),
            (lambda: template.write_text("{{ nope }}"), "'nope' is undefined"),
            (lambda: template.write_text(endless), "no result in 2 s"),
        ):
            wait_logged = expect_log(bench, words)
            begin()
            process.send_signal(signal.SIGHUP)
            turn(bench)
            wait_logged()
            names = bench.wanted
            wait_for(lambda names=names: bench.proxy.servers() == names, "servers change by the last good template")
            bench.wait_requests()
            template.write_text(good)
            bench.heal_alone()


SERF_FAULTS: dict[str, Talk] = {"hangs": be_silent, "closes": close_at_once, "pours": pour, "drips": drip}


def test_a_misbehaving_or_missing_serf_agent_delays_no_event(short_dir: Path, ports: dict[str, int]) -> None:
    """Events are handled while Serf's RPC hangs, closes, sends garbage or is down; later its roster is used again."""
    listed = [
        member(f"web{number}", socket.inet_aton(address), role="web", port=str(port))
        for number, (address, port) in enumerate(ports.items(), 1)
    ]
    with running(short_dir, ports, "Serf's RPC") as (bench, _):
        for talk in SERF_FAULTS.values():
            with serving(socket.create_server(bench.proxy.settings.rpc_addr), talk):
                turn(bench)
                bench.heal_alone()
            turn(bench)  # no RPC port is open
            bench.heal_alone()
            with serving(socket.create_server(bench.proxy.settings.rpc_addr), speak({}, *listed)):
                Path(bench.proxy.settings.nodes_dir, "web1").unlink()  # no event: only the roster has the node
                bench.wanted = {"web1", "web2", "web3"}
                bench.heal_alone()


@pytest.mark.parametrize("which", ["runtime_socket", "master_socket"])
def test_a_hanging_or_missing_socket_costs_no_request(short_dir: Path, ports: dict[str, int], which: str) -> None:
    """A silent socket in place of HAProxy's costs only time limits; a removed runtime socket is created again."""
    with running(short_dir, ports, f"{which.replace('_', ' ')}") as (bench, _):
        path = getattr(bench.proxy.settings, which)
        os.rename(path, f"{path}.hidden")
        with serving_unix(path, be_silent):
            turn(bench)
            bench.wait_requests()
            time.sleep(3)  # long enough for the pass to use it
        os.rename(f"{path}.hidden", path)
        bench.heal_alone(60)
        if which == "runtime_socket":
            os.unlink(path)
            turn(bench)
            bench.heal_alone(60)


def test_a_worker_that_is_stopped_for_a_whole_pass_continues_afterwards(short_dir: Path, ports: dict[str, int]) -> None:
    """While HAProxy's worker hangs for seconds, requests wait and none fails; then the change is made."""
    with running(short_dir, ports, "worker stopped, daemon") as (bench, _):
        pid = bench.worker_pid()
        os.kill(pid, signal.SIGSTOP)
        turn(bench)
        time.sleep(7)  # more than the time limit of one command, 5 s
        os.kill(pid, signal.SIGCONT)
        bench.heal_alone(60)


def test_without_file_descriptors_the_daemon_waits(short_dir: Path, ports: dict[str, int]) -> None:
    """A limit on open files stops passes but not the daemon; after the limit is lifted, it catches up."""
    with running(short_dir, ports, "out of descriptors") as (bench, process):
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        for count in (3, 8, 12):  # none at all, and too few for a whole pass
            wait_logged = expect_log(bench, "Too many open files")
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (count, before[1]))
            turn(bench)
            wait_logged()
            bench.wait_requests()
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
            bench.heal_alone()


def test_without_processes_the_daemon_waits(short_dir: Path, ports: dict[str, int]) -> None:
    """When the daemon's user can start no process, the daemon logs it; after the limit is lifted, it catches up."""
    template = short_dir / "own.j2"
    shutil.copy(rendering.BUILT_IN_TEMPLATE, template)
    options = {"SERF_HAPROXY_TEMPLATE_PATH": str(template)}
    with running(short_dir, ports, "out of processes", USER_ID, **options) as (bench, process):
        wait_logged = expect_log(bench, "Resource temporarily unavailable")
        process.send_signal(signal.SIGUSR1)
        turn(bench)
        wait_logged()
        bench.wait_requests()
        process.send_signal(signal.SIGUSR2)
        bench.heal_alone()

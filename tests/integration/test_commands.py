"""All commands, from one table: while HAProxy is frozen, and at Ctrl-C."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from integration.balancer import Balancer, list_haproxy, stopped
from integration.proxy import Proxy, free_port, wait_for
from integration.test_status import COMMAND, COMMAND_S
from serf_haproxy.cli.main import COMMANDS
from serf_haproxy.control.standby import wait_for_quiet

pytestmark = pytest.mark.usefixtures("time_limit")

FROZEN_S = COMMAND_S - 0.5  # the rest is for starting the program
IT_IS_THERE, ONCE = "HAProxy is there and does not answer", ", once .*HAProxy answers, which is frozen now"
# For each command line: what is printed while HAProxy is frozen, and the exit code; None where it goes on.
ABOUT_HAPROXY: dict[str, tuple[str, int | None]] = {
    "status": (r"\| HAProxy frozen \|", 2),
    "status -o wide": (r"\| HAProxy frozen \|", 2),
    "status --exit-code": (r"\| HAProxy frozen \|", 2),
    "status --watch 1": (r"\| HAProxy frozen \|", None),
    "watch --plain": (r"\| HAProxy frozen \|", None),
    "explain web1": (IT_IS_THERE, 0),
    "plan": (IT_IS_THERE, 1),
    "render": (IT_IS_THERE, 0),
    "check": (IT_IS_THERE, 0),
    "doctor": (IT_IS_THERE, 1),
    "ready --for traffic": ("HAProxy is frozen", 111),
    "ready haproxy": ("", 111),  # it never prints
    "maint set web1 --reason x": (ONCE, 0),
    "maint set web1 --reason x --wait": (ONCE, None),
    "maint unset web1": (ONCE, 0),
    "pause": ("no pass can change HAProxy anyway until HAProxy answers", 0),
    "resume": (ONCE, 0),
    "release": ("the order counts once .*HAProxy answers, which is frozen now", 0),
    "reload": (ONCE, 0),
}
# These say nothing of HAProxy, or start something that goes on, or are a pass, which is more patient than a person.
OTHERS = {"run", "autoscale", "once", "boot", "standby", "history", "proof", "settings", "schema", "completion"}
OTHERS |= {"companion", "web", "install", "lab"}
NEEDED_BEFORE = {"maint unset web1": "maint set web1 --reason x", "resume": "pause"}
GOES_ON = ["status --watch 1", "watch --plain", "history -f", "maint set web1 --reason x --wait", "standby on --wait"]
INTERRUPTED = (130, -signal.SIGINT)

# Interrupts itself when Python imports a module, or when the program ends.
INTERRUPTER = """
import atexit, os, signal, sys
moment = sys.argv.pop(1)
def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)
def hear(event, what):
    if event == "import" and what[0] == moment:
        interrupt()
from serf_haproxy.__main__ import main
sys.addaudithook(hear)
if moment == "end":
    atexit.register(interrupt)
sys.exit(main())
"""


def start(balancer: Balancer, words: str, *program: str) -> subprocess.Popen[str]:
    """Start a command as an operator does; its output is one stream."""
    argv, environ = [*(program or COMMAND), *words.split()], os.environ | balancer.environment
    return subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def look(balancer: Balancer, words: str) -> tuple[float, str, int]:
    """Return how long a command takes until it ends, or says a line if it goes on; what it says; its exit code."""
    began_s = time.monotonic()
    with start(balancer, words) as process:
        assert process.stdout
        said = process.stdout.readline() if words in GOES_ON else process.stdout.read()
        took_s = time.monotonic() - began_s
        if words in GOES_ON:
            process.send_signal(signal.SIGINT)
        said += process.stdout.read()
    return took_s, said, process.returncode


def test_every_command_is_in_one_of_the_tables() -> None:
    """A new command has to say what it does while HAProxy is frozen."""
    named = {words.split()[0] for words in ABOUT_HAPROXY} | OTHERS
    modules = {module.__name__.rpartition(".")[2] for module in COMMANDS}
    assert named == modules | {"resume"}


@pytest.mark.parametrize("words", ABOUT_HAPROXY)
def test_a_frozen_haproxy_is_told_and_costs_no_patience(balancer: Balancer, words: str) -> None:
    """Every command answers soon and says so.

    The time is compared with that of the same command just before: starting a program takes long on a busy machine.
    """
    wanted, code = ABOUT_HAPROXY[words]
    took_s: list[float] = []
    for _ in range(4):
        for before in filter(None, [NEEDED_BEFORE.get(words)]):
            look(balancer, before)
        usual_s, *_ = look(balancer, words)
        for before in filter(None, [NEEDED_BEFORE.get(words)]):
            look(balancer, before)
        with stopped(*list_haproxy(balancer)):
            found_s, said, found = look(balancer, words)
        assert re.search(wanted, said), said
        assert found in ((code,) if code is not None else INTERRUPTED)
        took_s.append(found_s - usual_s)
        if took_s[-1] < FROZEN_S:
            break
    assert min(took_s) < FROZEN_S


def test_a_pass_by_hand_says_that_haproxy_is_frozen(balancer: Balancer) -> None:
    """A pass is sure before it says so, which takes it longer."""
    balancer.record("web3", 9)
    with stopped(*list_haproxy(balancer)):
        _, said, code = look(balancer, "once")
    assert (code, "FROZEN HAProxy's worker does not answer" in said) == (111, True), said


def test_a_frozen_haproxy_is_not_taken_for_quiet(balancer: Balancer) -> None:
    """Whether clients still come is not known while it does not answer; without HAProxy none can come."""
    with stopped(*list_haproxy(balancer)):
        assert "HAProxy does not answer" in wait_for_quiet(balancer.settings, 0.1, 3.0)
    assert wait_for_quiet(balancer.settings, 0.1, 60.0) == ""
    balancer.stop(signal.SIGKILL)
    assert wait_for_quiet(balancer.settings, 0.1, 60.0) == ""


@pytest.mark.parametrize("words", GOES_ON)
def test_ctrl_c_is_quiet(balancer: Balancer, words: str) -> None:
    """A command that goes on ends at Ctrl-C without another word."""
    with start(balancer, words) as process:
        assert process.stdout
        process.stdout.read(1)  # it has begun
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert "Traceback" not in said
        assert "Interrupt" not in said
        assert process.wait(60) in INTERRUPTED


@pytest.mark.parametrize("words", ["status", "plan", "doctor"])
@pytest.mark.parametrize(
    "moment", ["serf_haproxy.cli.main", "serf_haproxy.settings", "serf_haproxy.control.edges", "end"]
)
def test_ctrl_c_is_quiet_at_every_moment(balancer: Balancer, moment: str, words: str) -> None:
    """While the program loads, works and ends, Ctrl-C ends it without a traceback."""
    with start(balancer, words, sys.executable, "-c", INTERRUPTER, moment) as process:
        assert process.stdout
        said = process.stdout.read()
    assert process.returncode in INTERRUPTED, said
    assert "Traceback" not in said
    assert moment == "end" or said == ""


@pytest.mark.parametrize("words", ["run", "web"])
def test_ctrl_c_in_a_terminal_ends_a_process_and_its_children(proxy: Proxy, words: str) -> None:
    """A terminal sends the signal to the daemon and its web process at once: both end, without a word of the other."""
    port = free_port()
    environ = os.environ | proxy.environment | {"SERF_HAPROXY_WEB_BIND": f"127.0.0.1:{port}"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*COMMAND, words], env=environ, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as process:
        wait_for(lambda: is_open(port), "the page is served")
        wait_for(
            lambda: words == "web" or Path(proxy.settings.state_dir, "last_pass.json").exists(), "a pass has ended"
        )
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout
        said = process.stdout.read()  # the children have closed it, too
    assert process.returncode == (0 if words == "run" else 130), said
    assert "Traceback" not in said
    assert "web process ended" not in said
    assert not is_open(port)


def is_open(port: int) -> bool:
    """Return whether a port of loopback takes connections."""
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


def test_a_background_job_of_a_shell_stays_deaf_to_ctrl_c(balancer: Balancer) -> None:
    """A program that was started with the signal ignored goes on."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with start(balancer, "watch --plain --interval 0.2") as process:
            assert process.stdout
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            balancer.record("web3", 0)
            wait_for(lambda: "web3" in (process.stdout.readline() if process.stdout else ""), "it goes on")
            process.kill()
            process.stdout.read()
    finally:
        signal.signal(signal.SIGINT, before)

"""`watch` follows a balancer: live in a terminal, as lines elsewhere."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from integration.balancer import Balancer
from integration.test_status import COMMAND
from serf_haproxy.show.live import make_view
from serf_haproxy.show.table import Choice

pytestmark = pytest.mark.usefixtures("time_limit")

WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from serf_haproxy.cli.main import main; sys.exit(main())"


def test_without_a_terminal_each_event_is_a_line(balancer: Balancer) -> None:
    """A join, a leave and HAProxy's word are lines with the time, and how the balancer is follows them."""
    argv = [*COMMAND, "watch", "--interval", "0.1"]
    environ = os.environ | balancer.environment
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr

        def wait_for_line(pattern: str) -> None:
            assert process.stdout
            assert any(re.search(pattern, line) for line in iter(process.stdout.readline, "")), pattern

        wait_for_line(r"^\d\d:\d\d:\d\d OK: 2/2 servers up")
        balancer.record("web3", 0)
        wait_for_line(r"^\d\d:\d\d:\d\d OK -> WARNING$")
        wait_for_line(r"web3: unknown -> quarantined; tag port='0'")
        balancer.record("web1", balancer.ports["web1"], drain="true")
        wait_for_line(r"web1: serving \S+ -> draining \S+ weight 0; its tag drain is true")
        Path(balancer.settings.nodes_dir, "web3").unlink()
        wait_for_line(r"web3: quarantined -> forgotten; Serf has no such node")
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == ""
    assert process.returncode == 130


def test_only_chosen_nodes_are_told(balancer: Balancer) -> None:
    """A name or a service chooses whose events are told; how the whole balancer is, is told all the same."""
    argv, environ = [*COMMAND, "watch", "--interval", "0.1", "--plain", "web4*"], os.environ | balancer.environment
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = [process.stdout.readline()]
        balancer.record("web3", 0)
        while "OK -> WARNING" not in said[-1]:
            said.append(process.stdout.readline())
        balancer.record("web4", 0)
        while "web4: unknown -> quarantined" not in said[-1]:
            said.append(process.stdout.readline())
        process.kill()
        process.stdout.read()
    assert "web3: " not in "".join(said)


def watch_terminal(balancer: Balancer, argv: list[str], is_enough: Callable[[str], bool]) -> str:
    """Run a command in a terminal until its output is enough, end it with Ctrl-C, and return the output."""
    controller, terminal = pty.openpty()
    environ = os.environ | balancer.environment | {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
    process = subprocess.Popen(argv, env=environ, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    text, deadline = "", time.monotonic() + 40
    try:
        while not is_enough(text) and time.monotonic() < deadline:
            if select.select([controller], [], [], 0.5)[0]:
                text += os.read(controller, 65536).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        while select.select([controller], [], [], 5)[0]:
            text += os.read(controller, 65536).decode(errors="replace")
    except OSError:  # the command has closed the terminal
        pass
    finally:
        process.kill()
        process.wait(20)
        os.close(controller)
    return text


def test_a_terminal_shows_servers_live(balancer: Balancer) -> None:
    """The first line, the servers with their rates, and a clean end: the screen is given back."""
    text = watch_terminal(balancer, [*COMMAND, "watch", "--interval", "0.2"], lambda said: "web2" in said)
    assert "\x1b[?1049h" in text
    assert "OK: 2/2 servers up" in text
    assert re.search(r"per s", text)
    assert "Traceback" not in text
    assert text.rindex("\x1b[?1049l") > text.rindex("web2")


def test_a_terminal_without_rich_gets_lines(balancer: Balancer) -> None:
    """Without the extra the command says how to install it, and goes on with lines."""
    argv = [sys.executable, "-c", WITHOUT_RICH, "watch", "--interval", "0.2"]
    text = watch_terminal(balancer, argv, lambda said: "servers up" in said)
    assert "pip install 'serf-haproxy[watch]'" in text
    assert "OK: 2/2 servers up" in text
    assert "\x1b[?1049h" not in text


def test_long_names_leave_room_for_what_matters(balancer: Balancer) -> None:
    """At 80 columns the end of a name, the state, the check and the begin of the reason are there."""
    name = f"{'a-rack-in-the-north-' * 4}"[:60] + "-007"
    balancer.record(name, 0)
    view = make_view(balancer.read(), {}, [], Choice(), 24)
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(view)
    lines = console.export_text().splitlines()
    assert any(re.match(r"a-rack\S+-007 +quarantined +- +- +0 +- +- +tag", line) for line in lines), lines
    assert any(re.match(r"web1 +serving +UP +1 +0 +0\.0 ", line) for line in lines), lines

"""Whether traffic should come to a balancer, with a real HAProxy and Serf: `ready --for traffic` and `standby`."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import requests

from integration.balancer import Balancer, list_haproxy, stopped
from integration.proxy import Proxy
from integration.test_daemon import COMMAND

CHECK = Path(__file__).parents[2] / "handlers" / "ready_for_traffic"


def run(proxy: Proxy, *words: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it prints."""
    environ = os.environ | proxy.environment
    done = subprocess.run([*COMMAND, *words], env=environ, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def ready(proxy: Proxy, *words: str) -> tuple[int, str]:
    """Return what the command says; the cheap program has to agree."""
    told = run(proxy, "ready", "--for", "traffic", *words)
    # It finds the sockets by what the daemon has written.
    environ = {"SERF_HAPROXY_WAKE_FIFO": proxy.settings.wake_fifo}
    done = subprocess.run([CHECK, *words], env=environ, capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == told
    return told


def test_a_balancer_that_serves_is_ready(balancer: Balancer) -> None:
    """It is ready with all services that it has, and not with another one."""
    assert ready(balancer) == (0, "ready\n")
    assert ready(balancer, "--service", "nodes") == (0, "ready\n")
    assert ready(balancer, "--service", "shop") == (111, "not ready: no server is up: shop\n")
    assert run(balancer, "ready", "haproxy", "configuration", "--for", "traffic") == (0, "ready\n")
    code, said = run(balancer, "ready")
    assert (code, "--for traffic" in said) == (100, True)


def test_a_reload_leaves_it_ready(balancer: Balancer) -> None:
    """While HAProxy is reloaded again and again every answer is the same."""
    for number in range(5):
        balancer.run_pass(maxconn=900 + number, reload_interval_s=0.0)
        environ = {"SERF_HAPROXY_WAKE_FIFO": balancer.settings.wake_fifo}
        answers = {subprocess.run([CHECK, "--allow-stale"], env=environ, check=False).returncode for _ in range(5)}
        assert answers == {0}
    assert balancer.reload_count() >= 5


def test_standby_sets_it_aside_while_it_serves(balancer: Balancer) -> None:
    """On standby it is not ready, `status` warns of it, and requests are still answered; `off` ends it."""
    assert run(balancer, "standby", "off") == (0, "it was not on standby\n")
    code, said = run(balancer, "standby", "on", "--reason", "a new\nkernel")
    assert (code, "'serf-haproxy standby off' ends it" in said) == (0, True)
    code, said = ready(balancer, "--allow-stale")
    assert (code, said[:32]) == (111, "not ready: it is on standby: a n")
    code, said = run(balancer, "status")
    assert (code, "it is on standby: a new" in said) == (1, True)
    assert requests.get(f"http://{balancer.settings.frontend_bind}/", timeout=5).ok
    assert run(balancer, "standby", "off") == (0, "traffic may come again\n")
    assert ready(balancer) == (0, "ready\n")


def test_standby_waits_until_no_connection_comes(balancer: Balancer) -> None:
    """With `--wait` it goes on three seconds after the last connection."""
    environ = os.environ | balancer.environment
    argv = [*COMMAND, "standby", "on", "--wait"]
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True) as waiting:
        end_s = time.monotonic() + 2
        while time.monotonic() < end_s:
            assert requests.get(f"http://{balancer.settings.frontend_bind}/", timeout=5).ok
            time.sleep(0.1)
        last_s = time.monotonic()
        told, _ = waiting.communicate(timeout=30)
    assert (waiting.returncode, "no connection has come for 3 s" in told) == (0, True)
    assert time.monotonic() - last_s > 2


def test_a_frozen_haproxy_is_not_ready(balancer: Balancer) -> None:
    """The answer comes within a second of the program's own start."""
    with stopped(*list_haproxy(balancer)):
        began_s = time.monotonic()
        environ = {"SERF_HAPROXY_WAKE_FIFO": balancer.settings.wake_fifo}
        done = subprocess.run([CHECK], env=environ, capture_output=True, text=True, timeout=10, check=False)
        assert (done.returncode, done.stdout[:28]) == (111, "not ready: HAProxy is frozen")
        assert time.monotonic() - began_s < 1.5


@pytest.mark.parametrize("is_paused", [True, False])
def test_a_balancer_that_does_not_follow_is_stale(balancer: Balancer, is_paused: bool) -> None:
    """A pause, and a configuration that HAProxy refuses, make it stale: it serves on."""
    if is_paused:
        run(balancer, "pause", "--reason", "an incident")
        balancer.run_pass()
    else:
        template = Path(balancer.settings.state_dir) / "template"
        template.write_text("{{ broken")
        balancer.run_pass(template_path=str(template))
    code, said = ready(balancer)
    assert (code, said[:7]) == (1, "stale: ")
    assert ("incident" if is_paused else "template") in said
    assert ready(balancer, "--allow-stale")[0] == 0


def test_without_haproxy_it_is_not_ready(balancer: Balancer) -> None:
    """A HAProxy that has ended is told from one that is frozen."""
    balancer.stop(signal.SIGKILL)
    code, said = ready(balancer)
    assert (code, said[:32]) == (111, "not ready: HAProxy does not answ")

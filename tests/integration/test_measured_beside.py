"""Measured weights beside all else that decides about servers: slow start, backups, agents, hands, and a freeze."""

import contextlib
import csv
import io
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.measured import Stage, running_stage
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_daemon import log_path, running_daemon
from integration.test_frozen import find_worker, frozen
from integration.test_measured import MEASURED, NAMES, RATE, SERVICE_S, balancing, port_of, weights
from integration.test_services import offer
from integration.test_trust import own_template
from serf_haproxy.autoscale.gauge import ask_for, read_gauges
from serf_haproxy.haproxy.sections import QUESTION, read_numbers
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.serf.wake import wake


def rows(proxy: Proxy, section: str = "nodes") -> dict[str, dict[str, str]]:
    """Return the rows of `show stat` by server."""
    # Asked by its name, HAProxy may answer for the frontend of the same name.
    answer = ask(proxy.settings.runtime_socket, "show stat -1 4 -1", 5)
    found = csv.DictReader(io.StringIO(answer.removeprefix("# ")))
    return {row["svname"]: row for row in found if row.get("svname") and row["pxname"] == section}


def count(proxy: Proxy, section: str) -> str:
    """Return in a line what HAProxy counts of each server."""
    columns = ("status", "uweight", "stot", "econ", "eresp", "wretr", "wredis")
    return str({name: [row[column] for column in columns] for name, row in rows(proxy, section).items()})


def add_words(directory: Path, name: str, words: str) -> str:
    """Write a template that gives one server more words; return its path."""
    line = " id {{ server.id }}"
    end = "{% endif %}\n\n"  # Jinja2 takes the first line end after a tag
    return own_template(directory, (f"{line}\n", f"{line}{{% if server.name == '{name}' %}} {words}{end}"))


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Yield five applications."""
    with running_stage(NAMES, SERVICE_S) as stage:
        yield stage


def test_slow_start_goes_on_while_a_weight_is_measured(short_dir: Path, stage: Stage) -> None:
    """A change of its weight does not end a server's slow start: HAProxy multiplies both."""
    (short_dir / "services.toml").write_text("[nodes]\nslowstart_s = 600\n")
    with balancing(short_dir, stage, **MEASURED) as proxy:
        stage["web1"].times = 10
        stage.load(port_of(proxy), RATE)
        assert rows(proxy)["web1"]["throttle"] not in ("", "100%")
        wait_for(lambda: weights(proxy)["web1"] <= 30, lambda: str(weights(proxy)))
        row = rows(proxy)["web1"]
        assert int(row["throttle"].rstrip("%")) < 100
        assert int(row["weight"]) <= int(row["uweight"])
        stage["web1"].times = 1
        wait_for(lambda: weights(proxy)["web1"] == 100, lambda: str(weights(proxy)))
        assert int(rows(proxy)["web1"]["throttle"].rstrip("%")) < 100


def test_backups_are_compared_with_backups(short_dir: Path, stage: Stage) -> None:
    """A slow backup loses nothing while it gets no request; once backups serve, it gets less than the other one."""
    (short_dir / "services.toml").write_text('[nodes]\nbackups = "all"\n')

    def announce(options: str) -> None:
        for name in NAMES:
            rest = ":backup" if name in ("web4", "web5") else options
            offer(proxy, name, nodes=f"{stage[name].port}{rest}")

    with running_proxy(short_dir, **MEASURED) as proxy:
        announce("")
        with running_daemon(proxy):
            proxy.wait_up(*NAMES)
            stage["web1"].times = stage["web4"].times = 10
            stage.load(port_of(proxy), RATE)
            wait_for(lambda: weights(proxy)["web1"] <= 10, lambda: str(weights(proxy)))
            assert weights(proxy)["web4"] == weights(proxy)["web5"] == 100
            announce(":drain")
            wake(proxy.settings.wake_fifo)
            wait_for(lambda: weights(proxy).get("web4", 100) <= 10, lambda: str(weights(proxy)))
            assert weights(proxy)["web5"] == 100


def test_the_weight_of_an_agent_is_left_alone(short_dir: Path, stage: Stage) -> None:
    """A server whose agent says its weight keeps that, while another one is measured."""

    class Agent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"25%\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Agent) as agent, contextlib.ExitStack() as stack:
        threading.Thread(target=agent.serve_forever, daemon=True).start()
        stack.callback(agent.shutdown)
        words = f"agent-check agent-addr 127.0.0.1 agent-port {agent.server_address[1]} agent-inter 100ms"
        environment = MEASURED | {"SERF_HAPROXY_TEMPLATE_PATH": add_words(short_dir, "web2", words)}
        proxy = stack.enter_context(balancing(short_dir, stage, **environment))
        wait_for(lambda: weights(proxy)["web2"] == 25, lambda: str(weights(proxy)))
        stage["web1"].times = 10
        stage.load(port_of(proxy), RATE)
        wait_for(lambda: weights(proxy)["web1"] <= 10, lambda: str(weights(proxy)))
        assert weights(proxy)["web2"] == 25
        before = log_path(proxy).read_text().count("DRIFT")
        wake(proxy.settings.wake_fifo)
        count = len(stage.answers)
        wait_for(lambda: len(stage.answers) > count + 2 * RATE, "requests are answered")
        assert weights(proxy)["web2"] == 25
        assert log_path(proxy).read_text().count("DRIFT") == before


def test_a_frozen_haproxy_stops_the_loop_for_a_while(short_dir: Path, stage: Stage) -> None:
    """While HAProxy is silent weights stay, which is logged once; afterwards the loop goes on."""
    with balancing(short_dir, stage, **MEASURED) as proxy:
        stage.load(port_of(proxy), RATE)
        wait_for(lambda: len(stage.answers) > RATE, "requests are answered")
        stage.load(port_of(proxy), 0)
        with frozen(find_worker(proxy)):
            wait_for(lambda: "weights stay as they are" in log_path(proxy).read_text(), "the loop waits")
        stage["web1"].times = 10
        stage.load(port_of(proxy), RATE)
        wait_for(lambda: weights(proxy)["web1"] <= 10, lambda: str(weights(proxy)))
        assert log_path(proxy).read_text().count("weights stay as they are") == 1


@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_a_server_that_refuses_connections_gets_less(short_dir: Path, mode: str) -> None:
    """A server that refuses connections while its check is good gets less, though no client sees it, and comes back."""
    bind, refused = free_port(), free_port()
    with running_stage(NAMES, 0.01) as stage:
        template = add_words(short_dir, "web1", f"port {stage['web2'].port}")
        section = "pg" if mode == "tcp" else "nodes"
        text = f'[{section}]\nbalance = "random"\nweights = "measured"\n'
        text += f'mode = "tcp"\nbind = "127.0.0.1:{bind}"\n' if mode == "tcp" else ""
        (short_dir / "services.toml").write_text(text)
        with running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=template) as proxy:
            for name in NAMES:
                offer(proxy, name, **{section: str(refused if name == "web1" else stage[name].port)})
            with running_daemon(proxy):
                wait_for(
                    lambda: all(rows(proxy, section).get(name, {}).get("status") == "UP" for name in NAMES),
                    lambda: count(proxy, section),
                )
                path = proxy.settings.runtime_socket
                number = read_numbers(ask(path, QUESTION, 5))[section]
                assert read_gauges(ask(path, ask_for([number]), 5))[section].servers.keys() == set(NAMES)
                port = bind if mode == "tcp" else port_of(proxy)
                stage.load(port, RATE)
                wait_for(lambda: weights(proxy)["web1"] <= 10, lambda: count(proxy, section))
                assert {one.status for one in list(stage.answers)} == {200}
                stage.listen("web1", refused)
                wait_for(lambda: weights(proxy)["web1"] == 100, lambda: count(proxy, section))
                wait_for(lambda: any(one.node == "web1" for one in list(stage.answers)), "web1 answers")

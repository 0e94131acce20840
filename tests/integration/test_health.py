"""Health checks as settings, and what is said of a server that has never come up, with the real HAProxy."""

import socket
from collections.abc import Callable

import pytest

import probe
from fakes.servers import at_once, serving_tcp
from integration.proxy import Proxy, free_port, wait_for
from integration.test_daemon import log_path, running_daemon
from serf_haproxy.control import health
from serf_haproxy.control.reconcile import Reconciler
from serf_haproxy.control.report import format_table, read_report
from serf_haproxy.serf.wake import wake


def answering(head: Callable[[str], str]) -> Callable[[socket.socket], None]:
    """Return a web server that answers each request by its method and headers."""

    def talk(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (more := connection.recv(65536)):
                return
            request += more
        connection.sendall(f"HTTP/1.1 {head(request.decode())}\r\nConnection: close\r\n\r\n".encode())
        connection.close()

    return talk


def refuse_head(request: str) -> str:
    """Answer like a framework that knows only GET."""
    return "405 Method \x1b[31mNot\u202e Allowed" if request.startswith("HEAD") else "200 OK"


def want_host(request: str) -> str:
    """Answer like a server with a virtual host."""
    return "200 OK" if "host: shop.example\r\n" in request.lower() else "421 Misdirected Request"


def fall_silent(proxy: Proxy, found: str) -> str:
    """Return what passes say of the only server once it counts as silent and its health check has found this."""
    made: list[Reconciler] = []

    def is_told() -> bool:
        made.append(Reconciler(proxy.settings))  # on a busy machine an earlier check may have timed out
        return any(found in problem for problem in made[-1].reconcile(lambda: None).problems)

    wait_for(is_told, "it is told")
    (problem,) = made[-1].reconcile(lambda: None).problems
    for _ in range(3):
        assert made[-1].reconcile(lambda: None).problems == (problem,), "its words stay the same: they are logged once"
    return problem


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for an application to start."""
    monkeypatch.setattr(health, "_PATIENCE_S", 1)


def test_a_server_that_answers_head_with_405_is_explained(proxy: Proxy) -> None:
    """The status and the log show the check's code and text and the setting that helps; with it the server is up."""
    with serving_tcp(at_once(answering(refuse_head))) as (host, port):
        proxy.record("web1", port, host)
        proxy.run_pass()
        problem = fall_silent(proxy, "L7STS 405")
        assert "node web1 has not come up: its health check, HEAD /, found L7STS 405 Method" in problem
        assert "set SERF_HAPROXY_HEALTH_METHOD to a method that it knows, such as GET" in problem
        wait_for(lambda: "DOWN (L7STS 405 Method" in format_table(read_report(proxy.settings)), "the status shows it")
        table = format_table(read_report(proxy.settings))
        for text in (problem, table.replace("\n", "")):
            assert text.isascii()
            assert text.isprintable()
        proxy.run_pass(health_method="GET")
        wait_for(
            lambda: {row.status for row in (probe.read_servers(proxy.settings) or {}).values()} == {"UP"}, "it is up"
        )


def test_the_host_of_the_check_is_a_setting(proxy: Proxy) -> None:
    """A server that serves only one host is up when the check asks for that host."""
    with serving_tcp(at_once(answering(want_host))) as (host, port):
        proxy.record("web1", port, host)
        proxy.run_pass()
        problem = fall_silent(proxy, "L7STS 421")
        assert "SERF_HAPROXY_HEALTH_HOST" in problem
        proxy.run_pass(health_host="shop.example")
        wait_for(
            lambda: {row.status for row in (probe.read_servers(proxy.settings) or {}).values()} == {"UP"}, "it is up"
        )


def test_a_server_that_was_up_is_not_told(proxy: Proxy) -> None:
    """A server that was up and goes down is HAProxy's news, and one that comes up is forgotten."""
    with serving_tcp(at_once(answering(lambda _: "200 OK"))) as (host, port):
        proxy.record("web1", port, host)
        proxy.run_pass()
        wait_for(
            lambda: {row.status for row in (probe.read_servers(proxy.settings) or {}).values()} == {"UP"}, "it is up"
        )
    passes = Reconciler(proxy.settings)
    wait_for(lambda: probe.read_servers(proxy.settings)["web1"].status == "DOWN", "it is down")  # type: ignore[index]
    seen = probe.read_running
    wait_for(
        lambda: all(each.unchanged_s > 1 for each in seen(proxy.settings).servers.values()),  # type: ignore[union-attr]
        "it has been down for a while",
    )
    assert passes.reconcile(lambda: None).problems == ()


def test_the_daemon_logs_a_silent_server_once(proxy: Proxy) -> None:
    """Without any event the daemon says that a server has never come up, once, and where it looked."""
    port = free_port()
    proxy.record("web1", port)
    with running_daemon(proxy, SERF_HAPROXY_RESYNC_INTERVAL_S="1"):
        wait_for(lambda: "web1 has not come up" in log_path(proxy).read_text(), "it is logged", 40)
        for _ in range(3):
            wake(proxy.settings.wake_fifo)
        proxy.record("web2", free_port())
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: "web2" in proxy.servers(), "another pass")
        text = log_path(proxy).read_text()
        assert text.count("web1 has not come up") == 1
        assert f"found L4CON Connection refused; is its application running at 127.0.0.1:{port}?" in text

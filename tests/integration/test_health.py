"""Health checks as settings, and what is said of a server that has never come up, with the real HAProxy."""

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import probe
from fakes.servers import at_once, serving_tcp
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_daemon import log_path, running_daemon
from integration.test_trust import own_template
from serf_haproxy.control import health
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.observe import Given, observe, read_nodes
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.reconcile import Reconciler
from serf_haproxy.control.record import Record
from serf_haproxy.control.report import read_report
from serf_haproxy.serf.wake import wake
from serf_haproxy.show.document import to_json
from serf_haproxy.show.table import format_table


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
        said = "its health check found L7STS 405 Method"
        wait_for(lambda: said in format_table(read_report(proxy.settings), width=0), "the status shows it")
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


def test_a_check_under_way_hides_no_words(proxy: Proxy) -> None:
    """HAProxy forgets the last check's text as the next one begins; its description of the code stays."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        proxy.record("web1", listener.getsockname()[1])
        proxy.run_pass()

        def explain() -> str:
            return (probe.read_servers(proxy.settings) or {})["web1"].explain_check()

        wait_for(lambda: explain() == "L4CON Connection refused", explain)
        listener.listen()  # the next check connects, and gets no answer
        seen: set[str] = set()

        def has_timed_out() -> bool:
            seen.add(explain())
            return "L7TOUT Layer7 timeout" in seen

        wait_for(has_timed_out, explain)
    assert seen - {"L4CON Connection refused"} == {"L4CON Layer4 connection problem", "L7TOUT Layer7 timeout"}


ADMIN = """backend {0}
    default-server check inter 100ms
    server web1 127.0.0.2:{1}
    server web2 127.0.0.2:{1}

frontend stats"""


@pytest.mark.parametrize("section", ["admin", "zoo"])  # one comes before the service's own section, one after it
def test_a_server_of_the_administrator_says_nothing_of_a_node(short_dir: Path, section: str) -> None:
    """What is told and shown is the health of the node's server, not of one with its name in another section."""
    template = own_template(short_dir, ("frontend stats", ADMIN.format(section, free_port("127.0.0.2"))))
    with (
        running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=template) as proxy,
        serving_tcp(at_once(answering(lambda _: "200 OK"))) as (host, port),
    ):
        proxy.record("web1", port, host)
        proxy.run_pass()

        def read_states() -> dict[tuple[str, str], str]:
            return {key: row.status for key, row in probe.read_status(proxy.settings).items()}

        right = {("nodes", "web1"): "UP", (section, "web1"): "DOWN", (section, "web2"): "DOWN"}
        wait_for(lambda: read_states() == right, lambda: str(read_states()))
        # The new worker has never seen the administrator's servers up.
        assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
        wait_for(lambda: read_states() == right, lambda: str(read_states()))
        passes = Reconciler(proxy.settings.replace(balance="leastconn"))
        running = probe.read_running
        wait_for(
            lambda: running(proxy.settings).servers[section, "web1"].unchanged_s > 1,  # type: ignore[union-attr,index]
            "the other has been down for a while",
        )
        assert passes.reconcile(lambda: None).problems == ()
        status = to_json(read_report(proxy.settings))
        assert [member["health"] for member in status["members"]] == ["UP"]
        assert status["services"]["nodes"]["up_count"] == 1

        edges = make_edges(proxy.settings)
        Path(proxy.settings.state_dir, "known.json").unlink()
        known = observe(Given(proxy.settings, edges, Record(), read_nodes(proxy.settings.nodes_dir))).known
        assert {key: (one.server.endpoint, one.was_up) for key, one in known.items()} == {
            ("nodes", "web1"): (f"{host}:{port}", True)
        }, "it is known again"


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
        words = "(Connection refused|Layer4 connection problem)"  # the second while the next check is under way
        assert re.search(rf"found L4CON {words}; is its application running at 127\.0\.0\.1:{port}\?", text)

"""Changes at run time: shares of added servers, cookies, inherited defaults, and what an administrator has set."""

import collections
import contextlib
import http.client
import math
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import probe
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.recorder import Recorder
from serf_haproxy.config.ids import assign_ids
from serf_haproxy.control import reconcile, rendering
from serf_haproxy.control.outcome import DIFFERS, Verdict
from serf_haproxy.control.report import read_report
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.show.document import to_json

NAMES = ("web1", "web2", "web3", "web4")
REQUESTS = 400
RANDOM = {"SERF_HAPROXY_BALANCE": "random"}
OWN = """\
global
    stats socket {{ settings.runtime_socket }} mode 600 level admin
    server-state-file {{ settings.server_state_path }}
    max-spread-checks 10ms
defaults
    mode http
    load-server-state-from-file global
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    timeout check 5s
    retries 0
"""
NODES = """\
frontend web
    bind {{ settings.frontend_bind }}
    default_backend nodes
backend nodes
{% for server in servers %}
    server {{ server.name }} {{ server.endpoint }} id {{ server.id }} check inter 50ms rise 1
{% endfor %}
"""


@contextlib.contextmanager
def recorders(*addresses: str) -> Iterator[dict[str, Recorder]]:
    """Run a web application at each address, all at one port."""
    port = free_port(addresses[0])
    with contextlib.ExitStack() as stack:
        made = {address: stack.enter_context(Recorder((address, port))) for address in addresses}
        for recorder in made.values():
            stack.callback(recorder.shutdown)
        yield made


def place(number: int) -> str:
    return f"127.0.1.{number + 1}"


def count(proxy: Proxy, requests_count: int = REQUESTS, **kinds: str) -> collections.Counter[str]:
    """Make requests with new connections; return how many each server answered, and the failures by status."""
    counts: collections.Counter[str] = collections.Counter()
    for number in range(requests_count):
        path = kinds.get("path", "/x").format(number)
        with contextlib.closing(http.client.HTTPConnection(proxy.settings.frontend_bind, timeout=5)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            counts[answer.read().decode() if answer.status == 200 else str(answer.status)] += 1
    return counts


def wait_until_up(proxy: Proxy, names: set[str]) -> None:
    def up() -> bool:
        return {name for name, row in (probe.read_servers(proxy.settings) or {}).items() if row.status == "UP"} >= names

    wait_for(up, lambda: str(probe.read_servers(proxy.settings)), 20)


@pytest.mark.parametrize("balance", ["roundrobin", "leastconn", "first", "random", "static-rr", "source", "uri"])
def test_added_servers_have_the_shares_of_loaded_ones(short_dir: Path, balance: str) -> None:
    """For every algorithm of the settings, four servers have the same shares after they were added and after a start.

    An algorithm that takes no servers at run time takes reloads.
    """
    with recorders(*map(place, range(4))) as made, running_proxy(short_dir, SERF_HAPROXY_BALANCE=balance) as proxy:
        port = made[place(0)].server_address[1]
        verdicts = []
        for number in (2, 0, 3, 1):
            proxy.record(NAMES[number], port, place(number))
            verdicts.append(proxy.run_pass().verdict)
        assert set(verdicts) == {Verdict.RELOADED if balance == "static-rr" else Verdict.APPLIED}
        shares = []
        for _ in range(2):
            wait_until_up(proxy, set(NAMES))
            shares.append(count(proxy, path="/{}"))
            proxy.stop()
            proxy.start()
    added, loaded = shares
    assert added.keys() == loaded.keys() <= set(map(place, range(4)))
    for address, number in loaded.items():
        deviation = math.sqrt(2 * number * (1 - number / REQUESTS))  # of a difference of two counts
        assert abs(added[address] - number) <= 3 * deviation, shares
    if balance in ("roundrobin", "random", "static-rr", "uri", "leastconn"):
        assert len(added) == 4
        assert min(added.values()) >= REQUESTS / 8, added


CONSISTENT = OWN + NODES.replace("backend nodes\n", "backend nodes\n    balance uri\n    hash-type consistent\n")


def test_a_consistent_hash_keeps_clients_through_reloads_and_between_balancers(short_dir: Path) -> None:
    """Balancers that saw the joins in different orders choose the same server for each URI, also after a restart."""
    template = short_dir / "own.j2"
    template.write_text(CONSISTENT)
    environment = {"SERF_HAPROXY_TEMPLATE_PATH": str(template)}
    with recorders(*map(place, range(4))) as made, contextlib.ExitStack() as stack:
        port = made[place(0)].server_address[1]
        maps = []
        for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
            directory = short_dir / f"b{order[0]}"
            directory.mkdir()
            proxy = stack.enter_context(running_proxy(directory, **environment))
            for number in order:
                proxy.record(NAMES[number], port, place(number))
                assert proxy.run_pass().verdict is Verdict.APPLIED
            for _ in range(2):
                wait_until_up(proxy, set(NAMES))
                url = f"http://{proxy.settings.frontend_bind}"
                maps.append([requests.get(f"{url}/{number}", timeout=5).text for number in range(60)])
                proxy.stop()
                proxy.start()
    assert len(set(maps[0])) == 4
    assert [place_ for place_ in maps if place_ != maps[0]] == []


def test_an_added_server_has_the_checks_of_inherited_defaults(short_dir: Path) -> None:
    """With `defaults web from base`, a server that is added at run time gets the health check of `base`."""
    template = short_dir / "own.j2"
    named = OWN.replace("defaults\n", "defaults base\n    option httpchk\n    default-server check inter 50ms rise 1\n")
    template.write_text(named + "defaults web from base\n" + NODES.replace(" check inter 50ms rise 1", ""))
    with (
        recorders(place(0), place(1)) as made,
        running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=str(template)) as proxy,
    ):
        port = made[place(0)].server_address[1]
        made[place(1)].statuses[""] = 500
        for number in (0, 1):
            proxy.record(NAMES[number], port, place(number))
            assert proxy.run_pass().verdict is Verdict.APPLIED
        wait_until_up(proxy, {"web1"})
        wait_for(lambda: (probe.read_servers(proxy.settings) or {})["web2"].check == "L7STS", "web2 is checked")
        assert count(proxy, 20) == {place(0): 20}


@pytest.mark.parametrize("words", ["cookie SRV insert dynamic", "cookie SRV insert indirect nocache"])
def test_a_cookie_is_the_same(short_dir: Path, words: str) -> None:
    """A client sticks to an added server, and its cookie is good after a restart."""
    template = short_dir / "own.j2"
    is_dynamic = "dynamic" in words
    lines = f"backend nodes\n    {words}\n" + ("    dynamic-cookie-key secret\n" if is_dynamic else "")
    own = OWN + NODES.replace("backend nodes\n", lines)
    template.write_text(own if is_dynamic else own.replace("id {{", "cookie {{ server.name }} id {{"))
    with (
        recorders(place(0), place(1)) as made,
        running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=str(template)) as proxy,
    ):
        for number in (0, 1):
            proxy.record(NAMES[number], made[place(0)].server_address[1], place(number))
            verdict = proxy.run_pass().verdict
            # HAProxy before 3.0 refuses a server with a cookie of its own at run time.
            assert verdict is Verdict.APPLIED if is_dynamic else verdict in (Verdict.APPLIED, Verdict.RELOADED)
        cookies: dict[str, str] = {}
        for _ in range(2):
            wait_until_up(proxy, {"web1", "web2"})
            url = f"http://{proxy.settings.frontend_bind}/x"
            for _ in range(8):
                answer = requests.get(url, headers={"Connection": "close"}, timeout=5)
                assert answer.cookies["SRV"] == cookies.setdefault(answer.text, answer.cookies["SRV"])
                again = [requests.get(url, cookies=answer.cookies, timeout=5).text for _ in range(3)]
                assert again == [answer.text] * 3
            assert cookies.keys() == {place(0), place(1)}
            assert all(cookies.values())
            proxy.stop()
            proxy.start()


ROUTED = NODES.replace("    default_backend", "    use_backend old if { path_beg /old }\n    default_backend")
STATIC = """\
backend old
    server old {endpoint} {words}
    server web9 127.0.9.9:{port} check inter 50ms
"""


@pytest.mark.parametrize("endpoint", ["localhost:{}", "ipv4@127.0.0.1:{}", "127.1:{}", "127.0.0.1:{}", "unix@{}"])
def test_servers_of_the_administrator_are_left_alone(short_dir: Path, endpoint: str) -> None:
    """A server of another section is neither moved nor removed, however it is written, and causes no reload."""
    template = short_dir / "own.j2"
    with recorders("127.0.0.1", place(0), place(1)) as made:
        port = made[place(0)].server_address[1]
        where = endpoint.format(short_dir / "app" if endpoint.startswith("unix") else port)
        template.write_text(OWN + ROUTED + STATIC.format(endpoint=where, words="check inter 50ms", port=port))
        with running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=str(template)) as proxy:
            proxy.record("web1", port, place(0))
            proxy.record("web2", port, place(1))  # it stands when web1 leaves
            proxy.record("web9", port, place(8))  # named like a server of the administrator, at another address
            assert proxy.run_pass().verdict is Verdict.RELOADED or proxy.reload_count() == 0
            wait_until_up(proxy, {"web1", "web2"})
            before = proxy.reload_count()
            change = "set server old/old weight 7; set server old/web9 state maint"
            probe.change(proxy.settings, [change])
            for _ in range(3):
                assert proxy.run_pass().verdict is Verdict.UNCHANGED
            assert proxy.reload_count() == before
            running = probe.read_running(proxy.settings)
            assert running.servers["old", "old"].weight == 7
            assert running.servers["old", "web9"].is_maintained
            if not endpoint.startswith("unix"):
                assert count(proxy, 10, path="/old/x") == {"127.0.0.1": 10}
            proxy.record("web1", port, place(0), status="left")
            assert proxy.run_pass().verdict is Verdict.APPLIED
            assert ("old", "old") in probe.read_running(proxy.settings).servers


@pytest.mark.parametrize("words", ["disabled", "enabled", "agent-check agent-port {} agent-inter 50ms"])
def test_what_an_administrator_has_set_is_no_drift(short_dir: Path, words: str) -> None:
    """Passes change neither a disabled server nor the weight that an agent sets, and no server is lost."""
    template = short_dir / "own.j2"
    with recorders(place(0), place(1), place(2)) as made, agent(b"25%\n") as agent_port:
        port = made[place(0)].server_address[1]
        template.write_text(OWN + NODES.replace("rise 1", f"rise 1 agent-addr 127.0.0.1 {words.format(agent_port)}"))
        with running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=str(template)) as proxy:
            for number in range(3):
                proxy.record(NAMES[number], port, place(number))
                assert proxy.run_pass().verdict is Verdict.RELOADED
            if words == "disabled":
                assert {row.status for row in probe.read_servers(proxy.settings).values()} <= {"MAINT", "OPEN"}
            else:
                wait_until_up(proxy, set(NAMES[:3]))
            if words.startswith("agent"):
                assert "agent-check" in template.read_text()
                wait_for(lambda: "1" not in weights(proxy), lambda: str(weights(proxy)))
            before = proxy.reload_count()
            for _ in range(3):
                assert proxy.run_pass().verdict is Verdict.UNCHANGED
            proxy.record(NAMES[0], port, place(0), status="left")
            assert proxy.run_pass().verdict is Verdict.RELOADED
            assert proxy.reload_count() == before + 1
            if words == "enabled":
                assert count(proxy, 20) == {place(1): 10, place(2): 10}


@contextlib.contextmanager
def agent(answer: bytes) -> Iterator[int]:
    """Run an agent of HAProxy's agent-check that always gives one answer."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def weights(proxy: Proxy) -> list[str]:
    """Return the weights in use in section nodes, in per cent of the configured ones."""
    lines = [ask(proxy.settings.runtime_socket, f"get weight nodes/{name}", 5).strip() for name in NAMES[:3]]
    return [line.split(" ")[0] for line in lines]


def test_a_difference_that_survives_a_reload_is_left_alone(short_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once and shown as a condition, and causes no further reload until HAProxy reports something else."""
    template, admin = short_dir / "own.j2", short_dir / "other.sock"
    # The daemon's socket may read but not change, so that a difference lasts; an administrator's socket makes it.
    own = OWN.replace("level admin", f"level operator\n    stats socket {admin} mode 600 level admin") + NODES
    template.write_text(own.replace("backend nodes\n", "backend nodes\n    balance {{ settings.balance }}\n"))
    with running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=str(template)) as proxy:
        proxy.record("web1", 8001, place(0))
        assert proxy.run_pass().verdict is Verdict.RELOADED

        def meddle(step: str) -> None:
            if step == "confirmed":
                ask(str(admin), "set server nodes/web1 weight 7", 5)

        settings = proxy.settings.replace(balance="leastconn")
        for verdict in (Verdict.RELOADED, Verdict.UNCHANGED, Verdict.UNCHANGED):
            outcome = reconcile.reconcile(settings, lambda: None, on_step=meddle)
            assert (outcome.verdict, [one.name for one in outcome.conditions]) == (verdict, [DIFFERS])
            assert "nodes/web1" in outcome.conditions[0].reason
        assert proxy.reload_count() == 2
        told = [record.message for record in caplog.records if "left alone" in record.message]
        assert len(told) == 1
        assert "weight 7" in told[0]
        assert [one["name"] for one in to_json(read_report(settings))["conditions"]] == [DIFFERS]
        # Another server may still change; here that takes a reload, which is tried for web1 too.
        proxy.record("web2", 8001, place(1))
        assert reconcile.reconcile(settings, lambda: None, on_step=meddle).verdict is Verdict.RELOADED
        assert reconcile.reconcile(settings, lambda: None, on_step=meddle).verdict is Verdict.UNCHANGED
        assert proxy.reload_count() == 3
        ask(str(admin), "set server nodes/web1 weight 1", 5)
        outcome = reconcile.reconcile(settings, lambda: None)
        assert (outcome.verdict, outcome.conditions) == (Verdict.UNCHANGED, ())
        ask(str(admin), "set server nodes/web1 weight 9", 5)
        assert reconcile.reconcile(settings, lambda: None).verdict is Verdict.RELOADED
        assert probe.read_running(settings).servers["nodes", "web1"].weight == 1


def test_servers_that_are_not_named_like_their_nodes_follow_by_reloads(short_dir: Path) -> None:
    """Such servers work, and a pass says what they lack and how to name them."""
    template = short_dir / "own.j2"
    template.write_text(OWN + NODES.replace("server {{ server.name }} ", "server app-{{ server.name }} "))
    with running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=str(template)) as proxy:
        proxy.record("web1", 8001, place(0))
        outcome = proxy.run_pass()
        assert outcome.verdict is Verdict.RELOADED
        assert proxy.servers() >= {"app-web1"}
        (problem,) = outcome.problems
        assert "nodes/app-web1 for node web1" in problem
        assert "{{ server.name }}" in problem
        again = proxy.run_pass()
        assert (again.verdict, again.problems) == (Verdict.UNCHANGED, (problem,))


def test_a_template_with_a_byte_order_mark_is_refused_with_a_remedy(short_dir: Path) -> None:
    """The pass names the file, the line and what to do, and HAProxy keeps what it has."""
    template = short_dir / "own.j2"
    template.write_text("\ufeff" + OWN + NODES)
    with running_proxy(short_dir) as proxy:
        proxy.record("web1", 8001, place(0))
        outcome = proxy.run_pass(template_path=str(template))
        assert outcome.verdict is Verdict.REJECTED
        assert f"{template}:1: the template begins with a byte-order mark (U+FEFF); save it as UTF-8" in outcome.reason


def test_servers_without_ids_get_them_by_one_reload(short_dir: Path) -> None:
    """Where the algorithm chooses by ids, those without get them by one reload, which keeps the servers."""
    template = short_dir / "own.j2"
    built_in = Path(rendering.BUILT_IN_TEMPLATE).read_text()
    template.write_text(built_in.replace("{% endif %} id {{ server.id }}", "{% endif +%}"))
    with recorders(place(0), place(1)) as made, running_proxy(short_dir, **RANDOM) as proxy:
        for number in (0, 1):
            proxy.record(NAMES[number], made[place(0)].server_address[1], place(number))
        proxy.run_pass(template_path=str(template))
        proxy.stop()
        proxy.start()
        wait_until_up(proxy, {"web1", "web2"})
        before = probe.read_running(proxy.settings).servers
        assert proxy.run_pass().verdict is Verdict.RELOADED
        after = probe.read_running(proxy.settings).servers
        assert all(after[key].operation == seen.operation for key, seen in before.items())
        ids = {key: seen.id for key, seen in after.items() if key[0] == "nodes"}
        assert ids == assign_ids(ids)
        assert proxy.run_pass().verdict is Verdict.UNCHANGED
        log = Path(proxy.settings.state_dir, "haproxy.log").read_text()
        assert "mismatch" not in log


def test_a_server_of_the_administrator_is_not_taken_over_by_a_node_of_its_name(short_dir: Path) -> None:
    """A node with the name and the address of an administrator's server, at another port, leaves that server alone."""
    template = short_dir / "own.j2"
    with recorders(place(0), place(1)) as made:
        port = made[place(0)].server_address[1]
        old = f"backend old\n    server web1 {place(0)}:{port} weight 7 check inter 50ms\n"
        template.write_text(OWN + ROUTED + old)
        with running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=str(template)) as proxy:
            proxy.record("web2", port, place(1))
            assert proxy.run_pass().verdict in (Verdict.APPLIED, Verdict.RELOADED)
            wait_until_up(proxy, {"web2"})
            before = proxy.reload_count()
            probe.change(proxy.settings, ["set server old/web1 state maint", "set server old/web1 weight 3"])
            for status in ("alive", "left", "alive"):
                proxy.record("web1", 9, place(0), status)
                assert proxy.run_pass().verdict is Verdict.APPLIED
                server = probe.read_running(proxy.settings).servers["old", "web1"]
                assert (server.is_maintained, server.weight, server.endpoint) == (True, 3, f"{place(0)}:{port}")
            assert proxy.reload_count() == before


def test_a_member_whose_id_is_taken_causes_no_reload(proxy: Proxy) -> None:
    """Where the algorithm does not choose by ids, one who takes the id of another server's name changes nothing."""
    rival = "a1023555"
    assert assign_ids([("nodes", rival), ("nodes", "web1")]) != {
        ("nodes", name): assign_ids([("nodes", name)])["nodes", name] for name in (rival, "web1")
    }
    for number, name in enumerate(NAMES):
        proxy.record(name, 8001 + number, place(number))
    assert proxy.run_pass().verdict is Verdict.APPLIED
    for status in ("alive", "left", "alive", "left"):
        proxy.record(rival, 9, place(8), status)
        assert proxy.run_pass().verdict is Verdict.APPLIED
        assert proxy.run_pass().verdict is Verdict.UNCHANGED
    assert proxy.reload_count() == 0

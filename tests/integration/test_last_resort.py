"""Requests are answered while any server is up, whatever gossip, tags, settings and forged members say."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import probe
from fakes.web import Web, answering
from integration.load import Load, run_load
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_daemon import running_daemon
from integration.test_trust import own_template, state_of
from serf_haproxy.control import reconcile
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.control.view import read_view
from serf_haproxy.policy.proof import make_proof, read_secrets
from serf_haproxy.policy.snapshot import DOWN
from serf_haproxy.serf import nodes
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.roster import Roster
from serf_haproxy.serf.wake import wake
from serf_haproxy.services.file import Services
from serf_haproxy.settings import load_settings, variable
from serf_haproxy.system.network import read_networks, read_ports

Webs = dict[str, Web]


@contextlib.contextmanager
def serving(proxy: Proxy, count: int, **tags: str) -> Iterator[Webs]:
    """Let nodes with an application each serve for the length of the block."""
    with contextlib.ExitStack() as stack:
        webs = {f"web{number}": stack.enter_context(answering()) for number in range(1, count + 1)}
        for name, web in webs.items():
            say(proxy, name, web, **tags)
        proxy.run_pass()
        proxy.wait_up(*webs)
        proxy.run_pass()
        yield webs


def say(proxy: Proxy, name: str, web: Web, status: str = "alive", **tags: str) -> None:
    """Write a node file."""
    member = make_member(name, "127.0.0.1", {"role": "web", "port": str(web.port)} | tags)
    nodes.record(proxy.settings.nodes_dir, status, member)


def ask(proxy: Proxy, count: int = 10) -> set[int]:
    """Return the status codes of some requests."""
    url = f"http://{proxy.settings.frontend_bind}/"
    return {requests.get(url, timeout=10, headers={"Connection": "close"}).status_code for _ in range(count)}


def names(outcome: Outcome) -> list[str]:
    """Return the names of an outcome's conditions."""
    return [condition.name for condition in outcome.conditions]


def test_drained_servers_do_not_replace_those_that_gossip_loses(proxy: Proxy) -> None:
    """With half of the servers drained, the others go on when the gossip loses them."""
    with serving(proxy, 4) as webs:
        for name in ("web1", "web2"):
            say(proxy, name, webs[name], drain="true")
        proxy.run_pass()
        for name in ("web3", "web4"):
            say(proxy, name, webs[name], "failed")
        assert names(proxy.run_pass()) == ["held"]
        assert ask(proxy) == {200}
        assert (webs["web1"].count, webs["web2"].count) == (0, 0)
        webs["web3"].status = webs["web4"].status = 503
        wait_for(lambda: state_of(proxy, "web3") == state_of(proxy, "web4") == "DOWN", "both are down")
        assert names(proxy.run_pass()) == ["held", "last"]
        assert ask(proxy) == {200}
        assert min(webs["web1"].count, webs["web2"].count) > 0
        webs["web3"].status = 200
        proxy.wait_up("web3")
        proxy.run_pass()
        before = webs["web1"].count + webs["web2"].count
        assert ask(proxy) == {200}
        assert webs["web1"].count + webs["web2"].count == before
    assert proxy.reload_count() == 0


@pytest.mark.parametrize("status", ["left", "reaped"])
def test_all_are_replaced_at_once(proxy: Proxy, status: str) -> None:
    """Servers that leave together serve until those that come are up, and give way at once; no request fails."""
    host, _, port = proxy.settings.frontend_bind.rpartition(":")
    with serving(proxy, 3) as webs, running_daemon(proxy), run_load(Load(host, int(port), think_s=0.005), 4) as load:
        wait_for(lambda: load.ok_count > 50, "requests")
        with contextlib.ExitStack() as stack:
            later = {f"new{number}": free_port() for number in range(3)}
            for name, web in webs.items():
                if status == "left":
                    say(proxy, name, web, "left")
                else:
                    nodes.forget(proxy.settings.nodes_dir, name)
            for name, new_port in later.items():
                proxy.record(name, new_port)
            wake(proxy.settings.wake_fifo)
            wait_for(lambda: proxy.servers() >= later.keys(), "the new ones are known")
            since = load.ok_count
            wait_for(lambda: load.ok_count > since + 100, "the old ones serve")
            for new_port in later.values():
                stack.enter_context(answering(new_port))
            wait_for(lambda: proxy.servers() == later.keys(), "the old ones are gone")
            since = load.ok_count
            wait_for(lambda: load.ok_count > since + 100, "the new ones serve")
            load.stopping.set()  # before the applications end
            time.sleep(0.2)
    assert load.failures == []
    assert proxy.reload_count() == 0


def test_one_is_drained_and_the_other_stopped(proxy: Proxy) -> None:
    """The drained one serves while no other does."""
    with serving(proxy, 2) as webs:
        say(proxy, "web1", webs["web1"], drain="true")
        proxy.run_pass()
        say(proxy, "web2", webs["web2"], "left")
        outcome = proxy.run_pass()
        assert names(outcome) == ["last"]
        assert outcome.again_s is not None
        assert ask(proxy) == {200}
        assert webs["web2"].count == 0


def test_invented_members_defeat_no_guard(proxy: Proxy) -> None:
    """Six members that were never up do not stand for three real ones that the gossip loses."""
    with serving(proxy, 3) as webs:
        for number in range(6):
            proxy.record(f"x{number}", free_port())
        proxy.run_pass()
        for name, web in webs.items():
            say(proxy, name, web, "failed")
        assert names(proxy.run_pass()) == ["held"]
        assert ask(proxy) == {200}


def test_damping_leaves_a_server_that_can_serve(proxy: Proxy) -> None:
    """A flapping node is not kept out while the only other one has weight 0."""
    options = {"flap_cutoff": 3.0, "flap_half_life_s": 600.0}
    with serving(proxy, 2) as webs:
        say(proxy, "web2", webs["web2"], weight="0")
        for status in ("failed", "alive") * 2:
            say(proxy, "web1", webs["web1"], status)
            proxy.run_pass(**options)
        proxy.wait_up("web1")
        assert proxy.run_pass(**options).problems == ()
        assert ask(proxy) == {200}


MISTAKES = {
    "balancer_roles": "lb,web",
    "roles": "webb",
    "networks": "10.0.0.0/8,127.0.0.2",
    "ports": "1",
    "guard": "",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_mistake_in_the_settings_empties_the_pool(proxy: Proxy, mistake: str) -> None:
    """Whatever a setting says, servers that are up go on, the condition says so, and its correction ends it."""
    environ = {variable(mistake): MISTAKES[mistake]} if MISTAKES[mistake] else {variable("roles"): "webb"}
    settings = load_settings(environ)
    wrong = {name: getattr(settings, name) for name in ("balancer_roles", "roles", "networks", "ports")}
    wrong |= {} if MISTAKES[mistake] else {"guard_hold_s": 0.0}
    with serving(proxy, 3) as webs:
        for _ in range(2):
            assert names(proxy.run_pass(**wrong)) in (["held"], ["last"])
            assert ask(proxy) == {200}
        assert min(web.count for web in webs.values()) > 0
        outcome = proxy.run_pass()
        assert (outcome.conditions, outcome.problems) == ((), ())
    assert proxy.reload_count() == 0


@pytest.mark.parametrize("mistake", [{"roles": ("webb",)}, {"roles": ("webb",), "guard_hold_s": 0.0}])
def test_two_names_of_one_place_do_not_take_it_from_each_other(proxy: Proxy, mistake: dict[str, object]) -> None:
    """With a mistake in the settings, servers that share address and port go on too: each was a server there."""
    with serving(proxy, 1) as webs:
        say(proxy, "web2", webs["web1"])
        proxy.run_pass()
        proxy.wait_up("web1", "web2")
        proxy.run_pass()
        for _ in range(3):
            assert names(proxy.run_pass(**mistake)) in (["held"], ["last"])
            assert ask(proxy) == {200}


def test_a_wrong_port_for_all_leaves_one_where_it_is(proxy: Proxy) -> None:
    """When all nodes announce a port at which nothing answers, one stays where it was."""
    with serving(proxy, 3):
        for number in (1, 2, 3):
            proxy.record(f"web{number}", free_port())
        for _ in range(3):
            assert names(proxy.run_pass()) == ["last"]
            assert ask(proxy) == {200}


def test_a_forged_balancer_takes_no_server_out(short_dir: Path) -> None:
    """With proofs, networks and ports set, members without a proof that say they are balancers change nothing."""
    secret = short_dir / "secret"
    secret.write_text("correct horse battery staple\n")
    (key,) = read_secrets(secret.read_text())
    with answering() as web, running_proxy(short_dir, SERF_HAPROXY_FRONTEND_BIND=f"127.0.0.9:{web.port}") as proxy:
        tags = {"role": "web", "port": str(web.port)}
        tags["proof"] = make_proof(key, "web1", "127.0.0.1", tags)
        listed = {
            "lb1": ("alive", make_member("lb1", "127.0.0.9", {"role": "lb"})),
            "web1": ("alive", make_member("web1", "127.0.0.1", tags)),
        }
        settings = proxy.settings.replace(
            proof_secret_file=str(secret), networks=read_networks("127.0.0.0/8"), ports=read_ports(str(web.port))
        )
        reconcile.reconcile(settings, lambda: Roster(time.time_ns(), "lb1", listed))
        proxy.wait_up("web1")
        listed["x1"] = ("alive", make_member("x1", "127.0.0.1", {"role": "lb"}))
        for _ in range(2):
            assert reconcile.reconcile(settings, lambda: Roster(time.time_ns(), "lb1", listed)).problems == ()
            assert ask(proxy) == {200}
        proof = make_proof(key, "x1", "127.0.0.1", {"role": "lb"})
        listed["x1"] = ("alive", make_member("x1", "127.0.0.1", {"role": "lb", "proof": proof}))
        time.sleep(0.01)  # file times have a resolution of 4 ms
        (problem,) = reconcile.reconcile(settings, lambda: Roster(time.time_ns(), "lb1", listed)).problems
        assert "requests would go in a circle" in problem


QUOTED = (
    ("server {{ server.name }} {{ server.endpoint }}", "server {{ server.name }} {{ server.endpoint }} sni str('x') "),
)


def test_a_quoted_word_switches_no_guard_off(proxy: Proxy, short_dir: Path) -> None:
    """With `sni str('x')` on each server line, wrong tags on all nodes remove no server."""
    path = own_template(short_dir, *QUOTED)
    with serving(proxy, 2) as webs:
        assert proxy.run_pass(template_path=path).verdict is Verdict.RELOADED
        for name in webs:
            proxy.record(name, 0)
        assert names(proxy.run_pass(template_path=path)) == ["held"]
        assert proxy.servers() == webs.keys()
        assert ask(proxy) == {200}


def test_a_quoted_word_lets_no_new_server_start_as_up(proxy: Proxy, short_dir: Path) -> None:
    """With `sni str('x')` on each server line, a new server gets no request before its first good check."""
    path = own_template(short_dir, *QUOTED)
    with serving(proxy, 1), socket.create_server(("127.0.0.1", 0)) as hanging:
        proxy.run_pass(template_path=path)
        proxy.record("late", hanging.getsockname()[1])
        assert proxy.run_pass(template_path=path).verdict is Verdict.RELOADED
        assert state_of(proxy, "late") == "DOWN"
        assert ask(proxy) == {200}


def test_a_new_server_without_health_checks_is_used(proxy: Proxy, short_dir: Path) -> None:
    """A server that no health check would ever raise is up after the reload that adds it."""
    path = own_template(short_dir, *QUOTED, ("default-server check inter", "default-server inter"))
    with answering() as web:
        proxy.record("web1", web.port)
        assert proxy.run_pass(template_path=path).verdict is Verdict.RELOADED
        assert ask(proxy) == {200}


ADMIN = """\
backend admin
    default-server check inter 1s
{% for server in servers %}
    server {{ server.name }} {{ server.address }}:9 id {{ server.id }}
{% endfor %}

frontend stats"""


def test_a_dead_copy_in_another_section_takes_no_server_out(short_dir: Path) -> None:
    """What counts of a node is the server at the place that was decided, not one in a second section that is down."""
    template = own_template(short_dir, ("frontend stats", ADMIN))
    with running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=template) as proxy, contextlib.ExitStack() as stack:
        webs = {name: stack.enter_context(answering()) for name in ("web1", "web2")}
        for name, web in webs.items():
            say(proxy, name, web)
        proxy.run_pass()
        wait_for(lambda: ask(proxy, 2) == {200}, "they serve")
        # All that pace does with servers that are down takes longer than a test may: what it sees is enough.
        known = make_edges(proxy.settings).state.read_known()
        assert read_view(probe.read_running(proxy.settings), known, Services()).down == frozenset()
        for name, web in webs.items():
            say(proxy, name, web, "left")
        outcome = proxy.run_pass()
        assert names(outcome) == ["last"]
        assert ask(proxy) == {200}


def test_a_server_of_the_administrator_with_the_name_of_a_node_hides_no_server(short_dir: Path) -> None:
    """The last servers that are up stay, though another section has one of the same name elsewhere."""
    with answering() as static:
        legacy = f"backend legacy\n    server web1 127.0.0.2:{static.port} check\n\nfrontend stats"
        template = own_template(short_dir, ("frontend stats", legacy))
        with (
            running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=template) as proxy,
            answering() as web1,
            answering() as web2,
        ):
            say(proxy, "web1", web1)
            say(proxy, "web2", web2)
            proxy.run_pass()
            wait_for(lambda: ask(proxy, 4) == {200} and web1.count and web2.count, "both serve")
            proxy.run_pass()
            say(proxy, "web1", web1, "left")
            say(proxy, "web2", web2, "left")
            assert names(proxy.run_pass()) == ["last"]
            web2.status = 503
            wait_for(
                lambda: probe.read_running(proxy.settings).servers["nodes", "web2"].operation == DOWN, "it is down"
            )
            assert names(proxy.run_pass()) == ["last"]
            assert ask(proxy) == {200}


@pytest.mark.parametrize("how", ["agent: drain", "agent: 0%", "disable-on-404"])
def test_a_server_that_gets_no_new_request_does_not_stand(short_dir: Path, how: str) -> None:
    """What HAProxy drains, by the word of an agent or of a health check, does not stand for one that leaves."""
    word = b"up ready 100%\n"

    class Agent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(word)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Agent) as agent, contextlib.ExitStack() as stack:
        threading.Thread(target=agent.serve_forever, daemon=True).start()
        stack.callback(agent.shutdown)
        words = f" agent-check agent-port {agent.server_address[1]} agent-inter 100ms"
        change = ("    option httpchk\n", "    option httpchk\n    http-check disable-on-404\n")
        if how.startswith("agent"):
            own = "id {{ server.id }}{% if server.name == 'web2' %}" + words + "{% endif %}\n\n"
            change = ("id {{ server.id }}\n", own)
        template = own_template(short_dir, change)
        proxy = stack.enter_context(running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=template))
        webs = stack.enter_context(serving(proxy, 2))
        word = f"{how.rpartition(' ')[2]}\n".encode()
        if not how.startswith("agent"):
            webs["web2"].status = 404
        before = webs["web2"].count

        def is_idle() -> bool:
            since = webs["web2"].count
            return ask(proxy, 6) == {200} and webs["web2"].count == since

        wait_for(is_idle, f"web2 gets no request any more; it had {before}", 20)
        say(proxy, "web1", webs["web1"], "left")
        assert "last" in names(proxy.run_pass())
        assert ask(proxy) == {200}


def test_many_names_of_one_program_defeat_no_guard(short_dir: Path) -> None:
    """Six members at one address and port stand for one server: five that the gossip loses are held."""
    with running_proxy(short_dir) as proxy, serving(proxy, 5) as webs, answering() as evil:
        for number in range(6):
            say(proxy, f"x{number}", evil)
        proxy.run_pass()
        proxy.wait_up("x5")
        proxy.run_pass()
        for name, web in webs.items():
            say(proxy, name, web, "failed")
        assert "held" in names(proxy.run_pass())
        assert proxy.servers() >= webs.keys()

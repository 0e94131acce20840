"""Orders on one balancer, with a real HAProxy and the daemon: what they do, and that they last."""

import json
import os
import signal
import subprocess
from pathlib import Path

import requests

import probe
from fakes.web import answering
from integration.balancer import list_haproxy, stopped
from integration.proxy import Proxy, wait_for
from integration.test_daemon import COMMAND, running_daemon, said
from integration.test_live import frontend, seen, slow_request
from integration.test_load import applications
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import record
from serf_haproxy.serf.wake import wake


def run(proxy: Proxy, *words: str, code: int = 0) -> str:
    """Run a command; return what it prints, on standard error if it fails. The code of `status` is its judgement."""
    environ = os.environ | proxy.environment
    done = subprocess.run([*COMMAND, *words], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == code or words[0] == "status", done.stdout + done.stderr
    return done.stderr if code else done.stdout


def history(proxy: Proxy, *words: str) -> list[dict[str, object]]:
    """Return the lines of the history."""
    return [json.loads(line) for line in run(proxy, "history", "-o", "json", *words).splitlines()]


def find(proxy: Proxy, node: str) -> dict[str, object]:
    """Return what `status` shows of a node."""
    members = json.loads(run(proxy, "status", "--json"))["members"]
    return next(member for member in members if member["name"] == node)


def weights(proxy: Proxy) -> dict[str, int]:
    """Return the weight of every server that is not in maintenance."""
    return {name: weight for name, (_, weight) in seen(proxy).items()}


def test_a_drained_node_keeps_its_requests_and_gets_no_others(proxy: Proxy) -> None:
    """`maint set` drains a node without a reload, `--wait` ends with its last request, and `unset` brings it back."""
    with applications(2) as ports, running_daemon(proxy):
        (first, first_port), (second, second_port) = ports.items()
        proxy.record("web1", first_port, first)
        wake(proxy.settings.wake_fifo)
        proxy_up(proxy, "web1")
        with slow_request(proxy, first, first_port, 1500) as answers:
            proxy.record("web2", second_port, second)
            wake(proxy.settings.wake_fifo)
            proxy_up(proxy, "web2")
            words = ("maint", "set", "web1", "--reason", "disk swap", "--by", "alice", "--wait")
            told = run(proxy, *words)
            assert "web1: an order drains it: disk swap (alice at " in told
            assert "web1: HAProxy has no connection to it" in told
            assert weights(proxy) == {"web1": 0, "web2": 1}
        assert answers == [200]
        found = find(proxy, "web1")
        assert (found["state"], "disk swap" in str(found["reason"])) == ("draining", True)
        run(proxy, "maint", "unset", "web1")
        wait_for(lambda: weights(proxy) == {"web1": 1, "web2": 1}, "web1 serves again")
    assert proxy.reload_count() == 0
    what = [(line["kind"], line["what"], line["by"]) for line in history(proxy, "web1")]
    assert ("order", "maint drain", "alice") in what
    assert [kind for kind, _, by in what if by == "alice"] == ["order", "node"]


def proxy_up(proxy: Proxy, *names: str) -> None:
    """Wait until HAProxy has these servers, and sees them up."""
    wait_for(lambda: set(names) <= proxy.servers(), f"{names} are there")
    proxy.wait_up(*names)


def test_a_stopped_node_is_out_even_if_it_is_the_last(proxy: Proxy) -> None:
    """A drain leaves the last server serving, a stop takes it out: an operator has said so."""
    with answering() as web, running_daemon(proxy):
        proxy.record("web1", web.port)
        wake(proxy.settings.wake_fifo)
        proxy_up(proxy, "web1")
        told = run(proxy, "maint", "set", "web1", "--reason", "try")
        assert told.endswith("; it goes on meanwhile, since no other server is up\n")
        wait_for(lambda: find(proxy, "web1")["state"] == "last", "the last resort keeps web1")
        assert requests.get(frontend(proxy), timeout=5).ok
        assert "meanwhile" not in run(proxy, "maint", "set", "web1", "--stop", "--reason", "broken")
        wait_for(lambda: not weights(proxy), "web1 is out")
        assert requests.get(frontend(proxy), timeout=5).status_code == 503
        assert find(proxy, "web1")["state"] == "stopped"
        assert "HELD" not in (Path(proxy.settings.state_dir) / "daemon.log").read_text()
        run(proxy, "maint", "unset", "web1")
        proxy_up(proxy, "web1")
    assert proxy.reload_count() == 0


def test_an_order_ends_at_its_time(proxy: Proxy) -> None:
    """With --until a node is back in service by itself, without news and without a restart."""
    with answering() as web, running_daemon(proxy):
        for name in ("web1", "web2"):
            proxy.record(name, web.port)
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: weights(proxy) == {"web1": 1, "web2": 1}, "both serve")
        run(proxy, "maint", "set", "web1", "--stop", "--reason", "reboot", "--until", "10s")
        wait_for(lambda: weights(proxy) == {"web2": 1}, "web1 is out")
        wait_for(lambda: weights(proxy) == {"web1": 1, "web2": 1}, "web1 is back")
        assert run(proxy, "maint", "list") == ""
        (until_ms,) = {order["until_ms"] for order in read_orders(proxy)}
        back = next(line for line in history(proxy, "web1") if str(line["what"]).startswith("stopped -> serving"))
        assert float(str(back["at_s"])) >= until_ms / 1e3


def read_orders(proxy: Proxy) -> list[dict[str, int]]:
    """Return the orders about nodes in the state directory, by what their fields mean."""
    told = json.loads((Path(proxy.settings.state_dir) / "orders.json").read_text())
    return [{"at_ms": row[0][4], "until_ms": row[0][6]} for row in told["orders"]]


def test_an_order_survives_restarts_of_daemon_and_haproxy_and_an_empty_run(proxy: Proxy) -> None:
    """A stopped node stays out when the daemon is killed, HAProxy starts anew, and /run has been emptied."""
    with answering() as web:
        with running_daemon(proxy) as daemon:
            for name in ("web1", "web2"):
                proxy.record(name, web.port)
            wake(proxy.settings.wake_fifo)
            wait_for(lambda: weights(proxy) == {"web1": 1, "web2": 1}, "both serve")
            run(proxy, "maint", "set", "web1", "--stop", "--reason", "reboot")
            wait_for(lambda: "server web1 " not in Path(proxy.settings.config_path).read_text(), "web1 is out")
            daemon.send_signal(signal.SIGKILL)
            daemon.wait(30)
        proxy.stop(signal.SIGKILL)
        for path in ("nodes", "inbox", "answers"):
            subprocess.run(["rm", "-r", str(Path(proxy.settings.state_dir).parent / path)], check=True)
        os.unlink(proxy.settings.wake_fifo)
        proxy.start()
        assert weights(proxy) == {"web2": 1}
        with running_daemon(proxy):
            wait_for(lambda: os.path.isdir(proxy.settings.nodes_dir), "the node directory is back")
            proxy.record("web1", web.port, status="failed")
            wake(proxy.settings.wake_fifo)
            proxy.record("web1", web.port)
            wake(proxy.settings.wake_fifo)
            wait_for(lambda: find(proxy, "web1")["state"] == "stopped", "web1 has returned")
            assert weights(proxy) == {"web2": 1}
            run(proxy, "maint", "unset", "web1")
            wait_for(lambda: weights(proxy) == {"web1": 1, "web2": 1}, "web1 is back")


def test_an_order_without_the_daemon_waits_for_it(proxy: Proxy) -> None:
    """What is ordered while no daemon runs is obeyed by the next pass, of the daemon or of `once`."""
    proxy.record("web1", 8001)
    assert "once the daemon runs" in run(proxy, "maint", "set", "web1", "--stop", "--reason", "x")
    assert proxy.run_pass().verdict is Verdict.UNCHANGED
    assert proxy.servers() == set()
    run(proxy, "maint", "unset", "web1")
    assert run(proxy, "maint", "list") == ""
    run(proxy, "once")
    assert proxy.servers() == {"web1"}


def test_an_order_about_nothing_that_is_known_says_so(proxy: Proxy) -> None:
    """A misspelt node or service is told, although the order counts when it comes; nothing claims it is drained."""
    proxy.record("web1", 8001)
    proxy.run_pass()

    def order(*words: str) -> tuple[str, str]:
        argv = [*COMMAND, "maint", "set", *words, "--reason", "x"]
        environ = os.environ | proxy.environment
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1], done.stderr

    assert order("web1")[1] == order("web1", "--service", "nodes")[1] == ""
    shown, doubt = order("wbe1", "--wait")
    assert doubt == "serf-haproxy: no node wbe1 is known, and the order counts when it comes; did you mean web1\n"
    assert shown == "wbe1: HAProxy has no server of it"
    assert "web1 does not offer shop, and the order counts when it does" in order("web1", "--service", "shop")[1]
    record(proxy.settings.nodes_dir, "alive", Member("lb2", "127.0.0.7", "balancer", ()))
    assert "lb2 is ignored: it is a balancer; the order counts when it serves" in order("lb2")[1]


def test_who_waits_for_a_drain_is_told_what_keeps_it(proxy: Proxy) -> None:
    """Without a daemon, or with a HAProxy that does not answer, `--wait` says what it waits for."""
    proxy.record("web1", 8001)
    proxy.run_pass()
    argv = [*COMMAND, "maint", "set", "web1", "--reason", "x", "--wait"]
    environ = os.environ | proxy.environment
    with subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert "waiting for web1: HAProxy still gives it clients" in process.stderr.readline()
        with stopped(*list_haproxy(proxy)):
            assert "waiting for web1: HAProxy does not answer" in process.stderr.readline()
        process.kill()


def test_a_pause_changes_nothing_until_it_is_resumed(proxy: Proxy) -> None:
    """While there is a pause, joins and orders are seen and reported, and HAProxy and its file stay as they are."""
    with running_daemon(proxy):
        proxy.record("web1", 8001)
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: said(proxy, "APPLIED servers changed: +web1"), "web1 is served")
        config = Path(proxy.settings.config_path).read_bytes()
        assert run(proxy, "resume") == "there is no pause\n"
        assert run(proxy, "resume", "--local") == "there is no pause of this balancer alone\n"
        run(proxy, "pause", "--reason", "upgrade", "--by", "bob")
        wait_for(lambda: said(proxy, "PAUSED an order to pause: upgrade (bob at "), "the pause is logged")
        proxy.record("web2", 8002)
        wake(proxy.settings.wake_fifo)
        told = run(proxy, "maint", "set", "web1", "--stop", "--reason", "x")
        assert told.endswith("), once the pause ends (`serf-haproxy resume`)\n")
        wait_for(
            lambda: {line["node"] for line in history(proxy) if line["kind"] == "node"} == {"web1", "web2"}, "seen"
        )
        assert json.loads(run(proxy, "status", "--json"))["verdict"] == "PAUSED"
        assert "paused: an order to pause: upgrade" in run(proxy, "status")
        assert proxy.servers() == {"web1"}
        assert Path(proxy.settings.config_path).read_bytes() == config
        proxy.stop(signal.SIGKILL)
        proxy.start()
        assert proxy.servers() == {"web1"}
        run(proxy, "pause", "--local")
        told = run(proxy, "resume", "--local")
        assert told.startswith("the pause of this balancer alone has ended; the pause of all balancers goes on;")
        assert "there is no pause of this balancer alone; the pause of all" in run(proxy, "resume", "--local")
        assert proxy.servers() == {"web1"}
        assert run(proxy, "resume") == "passes change HAProxy again\n"
        wait_for(lambda: proxy.servers() == {"web2"}, "what was put off is done")
        assert proxy.run_pass().verdict is Verdict.UNCHANGED
    verdicts = [line["what"] for line in history(proxy) if line["kind"] == "pass"]
    assert verdicts.count("PAUSED") >= 1
    ended = [line["why"] for line in history(proxy) if line["what"] == "resume"]
    assert set(ended) == {"passes may change HAProxy again"}


def test_a_reload_is_made_once(proxy: Proxy) -> None:
    """`reload` makes one reload although nothing needs it, and no further one after a restart of the daemon."""
    with running_daemon(proxy):
        proxy.record("web1", 8001)
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: proxy.servers() == {"web1"}, "web1 is served")
        assert proxy.reload_count() == 0
        run(proxy, "reload", "--reason", "new library")
        wait_for(lambda: said(proxy, "RELOADED an order to reload: new library"), "the reload is logged")
        assert proxy.reload_count() == 1
        assert proxy.servers() == {"web1"}
    assert proxy.run_pass().verdict is Verdict.UNCHANGED
    late = "HAProxy is reloaded by the next pass, once the daemon runs, if that is within 5 minutes\n"
    assert run(proxy, "reload", "--reason", "another library") == late
    assert proxy.run_pass().verdict is Verdict.RELOADED
    with running_daemon(proxy):
        proxy.record("web2", 8002)
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: proxy.servers() == {"web1", "web2"}, "web2 is served")
    assert proxy.reload_count() == 2


def test_a_release_of_one_node_leaves_the_others_held(proxy: Proxy) -> None:
    """`release NODE` ends the hold of that node alone."""
    with answering() as web:
        for status in ("alive", "failed"):
            for number in range(1, 4):
                proxy.record(f"web{number}", web.port, status=status)
            outcome = proxy.run_pass()
            proxy.wait_up("web1", "web2", "web3")
        assert outcome.has_condition("held")
        assert "1 server is released: web2, once the daemon runs" in run(proxy, "release", "web2")
        assert proxy.run_pass().has_condition("held")
        assert set(weights(proxy)) == {"web1", "web3"}
        assert run(proxy, "release", "web2").startswith("nothing to release: no server of web2 is held here, or kept")
        assert "release: no node 'wbe1' is known; did you mean web1" in run(proxy, "release", "wbe1", code=100)


def test_what_is_set_by_hand_at_the_socket_is_told_and_undone(proxy: Proxy) -> None:
    """A drift is put right, and log and history name the server and what was undone."""
    with answering() as web, running_daemon(proxy):
        for name in ("web1", "web2"):
            proxy.record(name, web.port)
        wake(proxy.settings.wake_fifo)
        proxy_up(proxy, "web1", "web2")
        runtime = Runtime(proxy.settings.runtime_socket, proxy.settings.master_socket)
        assert runtime.change(["set server nodes/web1 state maint", "set server nodes/web2 weight 7"]) == []
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: said(proxy, "DRIFT server nodes/web1 was in maintenance; it is put right"), "web1 is told")
        wait_for(lambda: said(proxy, "DRIFT server nodes/web2 was of weight 7 instead of 1"), "web2 is told")
        assert weights(proxy) == {"web1": 1, "web2": 1}
        drifts = {(line["node"], line["what"]) for line in history(proxy) if line["kind"] == "drift"}
        assert drifts == {("web1", "it was in maintenance"), ("web2", "it was of weight 7 instead of 1")}


def test_the_history_is_followed(proxy: Proxy) -> None:
    """`history -f` shows what comes, also after the file has become the older one; Ctrl-C ends it quietly."""
    state_dir = Path(proxy.settings.state_dir)
    proxy.record("web1", 8001)
    proxy.run_pass()
    environ, argv = os.environ | proxy.environment, [*COMMAND, "history", "-f"]
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        try:
            assert "node web1: unknown -> serving" in process.stdout.readline()
            assert "pass: APPLIED; servers changed: +web1" in process.stdout.readline()
            os.replace(state_dir / "history.jsonl", state_dir / "history.jsonl.1")
            proxy.record("web2", 8002)
            proxy.run_pass()
            assert "node web2: unknown -> serving" in process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == ""


def test_times_and_wrong_words_are_refused(proxy: Proxy) -> None:
    """What cannot be an order is refused with its remedy, before anything is written."""
    wrong = [
        (("maint", "set", "web1"), "--reason"),
        (("maint", "set", "web1", "--reason", " "), "--reason is empty; say why"),
        (("maint", "set", "web1", "--reason", "x", "--until", "99999d"), "this is after 2099-12-31T23:59:59Z"),
        (("maint", "set", "we b", "--reason", "x"), "is no name of a node"),
        (("maint", "set", "web1", "--reason", "x", "--until", "tomorrow"), "is no time: write a span such as"),
        (("maint", "set", "web1", "--reason", "x", "--until", "2001-01-01T00:00Z"), "has passed"),
        (("maint", "set", "web1", "--reason", "x" * 300), "the reason is too long: it has 300 characters, 200 are"),
        (("maint", "set", "web1", "--reason", "a\x1b[31m"), "the reason has a character that cannot be printed"),
        (("maint", "unset", "web1"), "there is no order about web1"),
        (("history", "--since", "x"), "--since: 'x' is no time"),
    ]
    for words, text in wrong:
        assert text in run(proxy, *words, code=100)
    assert not (Path(proxy.settings.state_dir) / "given").exists()


def test_a_pass_goes_on_when_the_history_cannot_be_written(proxy: Proxy) -> None:
    """A link to nowhere in the place of the history is a problem of the pass, and nothing more."""
    (Path(proxy.settings.state_dir) / "history.jsonl").symlink_to("/nowhere/history")
    proxy.record("web1", 8001)
    outcome = proxy.run_pass()
    assert outcome.verdict is Verdict.APPLIED
    assert any("history.jsonl: " in problem for problem in outcome.problems)
    assert probe.read_record(proxy.settings).verdict == "APPLIED"

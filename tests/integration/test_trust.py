"""Protection against wrong input: mass loss, flapping, invalid tags and settings, damaged files, broken templates."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

import probe
import serf_haproxy
from fakes.web import answering
from integration.load import Load, run_load
from integration.proxy import Proxy, free_port, wait_for
from integration.test_daemon import COMMAND, running_daemon, said
from integration.test_load import applications
from serf_haproxy.config.ids import choose_id
from serf_haproxy.control import reconcile, rendering
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.fallback import sift
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.reconcile import Reconciler
from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.server import Server
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.nodes import record
from serf_haproxy.serf.roster import Roster
from serf_haproxy.serf.wake import wake
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.settings import load_settings, variable
from serf_haproxy.system.locks import is_locked, locked
from serf_haproxy.system.network import read_networks, read_ports


def command(proxy: Proxy, *words: str, **environment: str) -> str:
    """Run a serf-haproxy command; return its output."""
    environ = os.environ | proxy.environment | environment
    is_checked = words[0] != "status"  # its exit code says how bad it is
    return subprocess.run([*COMMAND, *words], env=environ, capture_output=True, text=True, check=is_checked).stdout


def test_servers_that_only_gossip_has_lost_keep_serving(proxy: Proxy) -> None:
    """When two of three fail only in Serf, no request fails and they are held until `release`."""
    with applications(3) as ports, running_daemon(proxy):
        for number, (address, port) in enumerate(ports.items(), 1):
            proxy.record(f"web{number}", port, address)
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: requests.get(f"http://{proxy.settings.frontend_bind}/", timeout=5).ok, "the servers answer")
        host, _, frontend_port = proxy.settings.frontend_bind.rpartition(":")
        with run_load(Load(host, int(frontend_port), think_s=0.01), 4) as seen:
            for number, (address, port) in enumerate(list(ports.items())[:2], 1):
                proxy.record(f"web{number}", port, address, status="failed")
                wake(proxy.settings.wake_fifo)
            wait_for(lambda: said(proxy, "HELD too many servers were lost at once"), "they are held")
            since = seen.ok_count
            wait_for(lambda: seen.ok_count > since + 200, "requests while they are held")
            assert proxy.servers() == {"web1", "web2", "web3"}
            by_name = {member["name"]: member for member in json.loads(command(proxy, "status", "--json"))["members"]}
            assert by_name["web1"]["held_s"] > 86000
            assert by_name["web3"]["held_s"] is None
            assert re.search(r" held .*, for 86\d{3} s more$", command(proxy, "status", "-o", "wide"), re.MULTILINE)
            assert "2 servers are released: web1 web2" in command(proxy, "release")
            wait_for(lambda: proxy.servers() == {"web3"}, "they are let go")
        assert seen.failures == []
    assert proxy.reload_count() == 0


def test_servers_that_leave_one_by_one_are_never_held(proxy: Proxy) -> None:
    """All servers can leave one after another without being held."""
    names = [f"web{number}" for number in range(1, 5)]
    for number, name in enumerate(names):
        proxy.record(name, 8001 + number)
    assert proxy.run_pass().verdict is Verdict.APPLIED
    for number, name in enumerate(names):
        proxy.record(name, 8001 + number, status="left")
        assert proxy.run_pass().verdict is Verdict.APPLIED
        assert proxy.servers() == set(names[number + 1 :])


def test_wrong_tags_on_every_node_remove_no_server(proxy: Proxy) -> None:
    """When every node gets an invalid port tag, the servers stay unchanged and the pass reports it."""
    with answering() as web:
        for name in ("web1", "web2"):
            proxy.record(name, web.port, weight=7)
        proxy.run_pass()
        proxy.wait_up("web1", "web2")
        for name in ("web1", "web2"):
            proxy.record(name, 0, weight=7)
        outcome = proxy.run_pass()
    assert probe.sum_up(outcome) == "HELD"
    assert len(outcome.problems) == 2
    assert proxy.servers() == {"web1", "web2"}
    line = f"server web1 127.0.0.1:{web.port} weight 7 id {choose_id((DEFAULT_SERVICE, 'web1'))}\n"
    assert line in Path(proxy.settings.config_path).read_text()


@pytest.mark.parametrize("mistake", ["roles", "proof_secret_file"])
def test_a_mistake_in_the_settings_removes_no_server(proxy: Proxy, short_dir: Path, mistake: str) -> None:
    """A wrong role or secret in the settings holds the old servers, and reports each, until `release`.

    They are held though they are down by now. With all of them down, `release` lets them go.
    """
    (short_dir / "secret").write_text("correct horse battery staple\n")
    value = {"roles": "webb", "proof_secret_file": str(short_dir / "secret")}[mistake]
    environ = {variable(mistake): value}
    wrong = {mistake: getattr(load_settings(environ), mistake)}
    with contextlib.ExitStack() as webs:
        for number, age_s in enumerate((3 * 86400, 86400, 3600), 1):
            proxy.record(f"web{number}", webs.enter_context(answering()).port)
            at_s = time.time() - age_s
            os.utime(Path(proxy.settings.nodes_dir, f"web{number}"), (at_s, at_s))
        assert proxy.run_pass().verdict is Verdict.APPLIED
        proxy.wait_up("web1", "web2", "web3")
        assert proxy.run_pass().verdict is Verdict.UNCHANGED
    for _ in range(2):
        outcome = proxy.run_pass(**wrong)
        assert probe.sum_up(outcome) == "HELD"
        assert len(outcome.problems) == 3
    assert proxy.servers() == {"web1", "web2", "web3"}
    assert (
        len(
            re.findall(
                r" held .*, for 86\d{3} s more$", command(proxy, "status", "-o", "wide", **environ), re.MULTILINE
            )
        )
        == 3
    )
    assert proxy.run_pass().verdict is Verdict.UNCHANGED
    proxy.run_pass(**wrong)
    wait_for(lambda: all(state_of(proxy, f"web{number}") == "DOWN" for number in (1, 2, 3)), "all are down")
    assert "web1 web2 web3" in command(proxy, "release", **environ)
    proxy.run_pass(**wrong)
    assert proxy.servers() == set()
    assert proxy.run_pass().problems == ()
    assert proxy.servers() == {"web1", "web2", "web3"}


def test_one_node_with_another_role_is_removed_at_once(proxy: Proxy) -> None:
    """A node whose role changed is removed; when most roles have changed, all servers are back and held."""
    names = [f"web{number}" for number in range(1, 5)]
    with contextlib.ExitStack() as webs:
        ports = {name: str(webs.enter_context(answering()).port) for name in names}
        for name, port in ports.items():
            tags = {"role": "web", "port": port}
            record(proxy.settings.nodes_dir, "alive", make_member(name, "127.0.0.1", tags))
        proxy.run_pass(roles=("web",))
        proxy.wait_up(*names)
        expected = [({"web2", "web3", "web4"}, Verdict.APPLIED), ({"web3", "web4"}, Verdict.APPLIED)]
        for name, (servers, verdict) in zip(names, [*expected, (set(names), "HELD")], strict=False):
            tags = {"role": "webb", "port": ports[name]}
            record(proxy.settings.nodes_dir, "alive", make_member(name, "127.0.0.1", tags))
            assert probe.sum_up(proxy.run_pass(roles=("web",))) == verdict
            assert proxy.servers() == servers


def test_a_flapping_node_is_damped_and_serves_again_later(proxy: Proxy) -> None:
    """At the cutoff a node is damped, also after a restart; `status` shows for how long; then it serves again."""
    options = {"flap_cutoff": 3.0, "flap_half_life_s": 3.0}
    with applications(3) as ports:
        for number, (address, port) in enumerate(ports.items(), 1):
            proxy.record(f"web{number}", port, address)
        proxy.run_pass(**options)
        address, port = next(iter(ports.items()))
        for number in range(1, 6):
            for status in ("failed", "alive"):
                proxy.record("web1", port, address, status=status)
                outcome = proxy.run_pass(**options)
            if number > 1 and proxy.servers() == {"web2", "web3"}:
                break  # where passes take seconds, part of the first penalty is over after the second failure
        assert proxy.servers() == {"web2", "web3"}
        assert outcome.problems == ("node web1 is damped: it failed and came back too often",)
        assert 1 < outcome.again_s < 5
        environ = {"SERF_HAPROXY_FLAP_CUTOFF": "3", "SERF_HAPROXY_FLAP_HALF_LIFE_S": "3"}
        by_name = {
            member["name"]: member for member in json.loads(command(proxy, "status", "--json", **environ))["members"]
        }
        assert 0 < by_name["web1"]["damped_s"] < 5
        with running_daemon(proxy, **environ):
            assert proxy.servers() == {"web2", "web3"}
            wait_for(lambda: proxy.servers() == {"web1", "web2", "web3"}, "web1 serves again", 10)


def test_a_flapping_node_serves_while_no_other_server_is_up(proxy: Proxy) -> None:
    """A node is damped while another server is up, and serves when that server goes down."""
    options = {"flap_cutoff": 3.0, "flap_half_life_s": 600.0}
    with answering() as first, answering() as second:
        proxy.record("web2", second.port)
        proxy.record("web3", free_port())
        proxy.run_pass(**options)
        wait_for(lambda: state_of(proxy, "web2") == "UP" and state_of(proxy, "web3") == "DOWN", "both are checked")
        for status in ("alive", "failed") * 2:
            proxy.record("web1", first.port, status=status)
            proxy.run_pass(**options)
        proxy.record("web1", first.port)
        assert proxy.run_pass(**options).problems == ("node web1 is damped: it failed and came back too often",)
        assert proxy.servers() == {"web2", "web3"}
        second.status = 503
        wait_for(lambda: state_of(proxy, "web2") == "DOWN", "web2 is down")
        assert proxy.run_pass(**options).problems == ()
        assert proxy.servers() == {"web1", "web2", "web3"}


def state_of(proxy: Proxy, name: str) -> str:
    """Return HAProxy's state of a server, without its count of checks."""
    return (probe.read_servers(proxy.settings) or {})[name].status.split()[0]


HUGE = "1" + "0" * 400
DEEP = "[" * 900 + "]" * 900
DAMAGES = {
    "empty": "",
    "half": "{",
    "another type": "[]",
    "a part of another type": '{"web1": 5, "faults": 5, "unfit": [5], "refused": {"a": []}}',
    "too few parts": '{"web1": [1, 2], "faults": [1, 2], "unfit": [[[]]]}',
    "no text": "\0\0",
    "invalid numbers": '{"web1": [NaN, 1e400, true, true], "at_s": 1e400, "faults": ["x", NaN, {}]}',
    "huge numbers": f'{{"web1": [{HUGE}, {HUGE}, true, true], "at_s": {HUGE}, "faults": ["x", {HUGE}, {{}}],'
    f'"unfit": [[["web2", "127.0.0.1", 8001, null], {HUGE}]]}}',
    "deep": "[" * 100_000,
    "deep inside": f'{{"refused": {{"web1": {DEEP}}}, "faults": ["x", 1, {{"web1": [{DEEP}, ""]}}],'
    f'"unfit": [[{DEEP}, 1]]}}',
    "an invalid server": '{"unfit": [[["web2", "127.0.0.1 weight 1", 8001, null], 1]]}',
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_state_files_are_ignored(proxy: Proxy, damage: str) -> None:
    """A damaged state file loses its content, but passes, `status` and `render` work."""
    for name in ("flaps.json", "known.json", "last_pass.json"):
        Path(proxy.settings.state_dir, name).write_text(damage)
    proxy.record("web1", 8001)
    proxy.record("web2", 0)
    assert json.loads(command(proxy, "status", "--json"))["verdict"] == ""
    assert "server web1" in command(proxy, "render")
    assert proxy.run_pass().verdict is Verdict.APPLIED
    assert proxy.servers() == {"web1"}
    json.loads(command(proxy, "status", "--json"), parse_constant=pytest.fail)


def put_folder(path: Path) -> None:
    """Make a directory with a file."""
    path.mkdir()
    (path / "kept").write_text("x")


def link_in_a_circle(path: Path) -> None:
    """Make a link that leads to itself."""
    path.symlink_to(path)


@pytest.mark.parametrize("put", [put_folder, os.mkfifo, link_in_a_circle])
def test_what_is_no_file_is_set_aside(
    proxy: Proxy, put: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A directory, a FIFO or a link in a circle in the place of a state file ends no passes, and is told once.

    What a daemon has in memory, above all the operators' orders, is written again.
    """
    state = Path(proxy.settings.state_dir)
    template = state / "own.j2"
    template.write_text((Path(serf_haproxy.__file__).parent / "config/templates/haproxy.cfg.j2").read_text())
    settings = proxy.settings.replace(template_path=str(template))
    Path(settings.services_file).write_text('[shop]\nroutes = ["shop.test"]\n')
    reconciler = Reconciler(settings)
    with answering() as web:
        for name in ("web1", "web2"):
            proxy.record(name, web.port, **{"svc.shop": web.port})
        command(proxy, "maint", "set", "web2", "--stop", "--reason", "x")
        for _ in range(2):
            reconciler.reconcile(lambda: None)
        names = {"last_pass.json", "known.json", "flaps.json", "served", "services.json", "template.good"}
        names |= {"orders.json", "history.jsonl", "history.jsonl.1"}
        contents = {name: (state / name).read_text() for name in sorted(names) if (state / name).exists()}
        assert names - contents.keys() == {"flaps.json", "history.jsonl.1"}
        for name in sorted(names):
            (state / name).unlink(missing_ok=True)
            put(state / name)
        (state / "given").rename(state / "gone")
        (state / "given").write_text("")
        caplog.clear()
        assert reconciler.reconcile(lambda: None).problems == ()
        for name in sorted(names | {"given"}):
            kind = "directory" if name == "given" else "file"
            assert f"{state / name} was no {kind}: that is {state / name}.aside-1 now" in caplog.text
            assert os.path.lexists(state / f"{name}.aside-1")
        assert all((state / f"{name}.aside-1/kept").exists() for name in names) or put is not put_folder
        for name in ("known.json", "services.json", "orders.json", "served"):
            assert (state / name).read_text() == contents[name], name
        assert "web2" not in proxy.servers()
        caplog.clear()
        assert Reconciler(settings).reconcile(lambda: None).verdict is Verdict.UNCHANGED
        assert "aside" not in caplog.text
        command(proxy, "maint", "unset", "web2")
        assert reconciler.reconcile(lambda: None).verdict is not Verdict.UNCHANGED


@pytest.mark.parametrize("put", [put_folder, os.mkfifo])
def test_what_is_no_file_beside_the_configuration_is_set_aside(proxy: Proxy, put: Callable[[Path], None]) -> None:
    """A directory or a FIFO in the place of a file beside haproxy.cfg ends no passes, and a reload never reads it."""
    proxy.record("web1", 8001)
    assert proxy.run_pass().is_in_force
    for name in ("good", "candidate", "rejected", "before", "state"):
        path = Path(f"{proxy.settings.config_path}.{name}")
        path.unlink(missing_ok=True)
        put(path)
    assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
    assert Path(f"{proxy.settings.config_path}.good").is_file()
    assert len(list(Path(proxy.settings.config_path).parent.glob("haproxy.cfg.*.aside-1"))) == 5


@pytest.mark.parametrize("put", [put_folder, Path.touch, link_in_a_circle, lambda path: path.symlink_to("/nowhere")])
def test_what_is_no_fifo_is_set_aside(proxy: Proxy, put: Callable[[Path], None]) -> None:
    """Another thing in the place of the wake FIFO ends no passes of a running daemon, and handlers wake it again."""
    fifo = Path(proxy.settings.wake_fifo)
    with running_daemon(proxy) as daemon:
        proxy.run_pass()  # the first pass of the daemon has ended
        fifo.unlink()
        put(fifo)
        proxy.record("web1", 8001)
        Path(proxy.settings.services_file).write_text('[shop]\nroutes = ["shop.test"]\n')  # causes a pass
        wait_for(fifo.is_fifo, "the FIFO is there again", 20)
        wait_for(lambda: "web1" in proxy.servers(), "the pass has been made", 20)
        proxy.record("web2", 8002)
        wake(str(fifo))
        wait_for(lambda: "web2" in proxy.servers(), "the daemon is woken", 20)
        assert daemon.poll() is None
    assert os.path.lexists(f"{fifo}.aside-1")


@pytest.mark.parametrize("name", ["pass.lock", "daemon.lock"])
def test_a_directory_in_the_place_of_a_lock_is_set_aside(proxy: Proxy, name: str) -> None:
    """It gets another name, and the lock is held."""
    path = Path(proxy.settings.state_dir, name)
    path.unlink(missing_ok=True)
    put_folder(path)
    with locked(str(path), 0, "another"):
        assert Path(f"{path}.aside-1/kept").exists()
        assert is_locked(str(path))


@pytest.mark.parametrize("put", [put_folder, os.mkfifo])
def test_haproxy_starts_whatever_is_in_the_place_of_state_files(proxy: Proxy, put: Callable[[Path], None]) -> None:
    """After a reboot, `boot` publishes a configuration also where a state file is a directory or a FIFO."""
    shutil.rmtree(proxy.settings.nodes_dir)
    for name in ("served", "known.json", "orders.json"):
        put(Path(proxy.settings.state_dir, name))
    command(proxy, "boot")
    assert Path(proxy.settings.state_dir, "served.aside-1").exists()


def test_a_release_dated_in_the_future_is_ignored(proxy: Proxy) -> None:
    """A `release` dated in the future, because the clock was set back, does not disable the guard."""
    path = Path(proxy.settings.state_dir, "orders.json")
    with answering() as web:
        for status in ("alive", "failed"):
            for number in range(1, 4):
                proxy.record(f"web{number}", web.port, status=status)
            outcome = proxy.run_pass()
            proxy.wait_up("web1", "web2", "web3")
            command(proxy, "release")
            make_edges(proxy.settings).orders.take_given()
            ahead = json.loads(path.read_text())
            for fields, taken_ms, _ in ahead["orders"]:
                fields[4] = taken_ms + 3_600_000
            ahead["orders"] = [[fields, fields[4], is_sent] for fields, _, is_sent in ahead["orders"]]
            path.write_text(json.dumps(ahead))
    assert probe.sum_up(outcome) == "HELD"
    assert proxy.servers() == {"web1", "web2", "web3"}


LOOP = "{% for server in service.servers %}"  # in the built-in template


def own_template(directory: Path, *replacements: tuple[str, str]) -> str:
    """Write the built-in template with some text replaced; return its path."""
    text = Path(rendering.BUILT_IN_TEMPLATE).read_text()
    for before, after in replacements:
        assert before in text
        text = text.replace(before, after)
    path = directory / "own.j2"
    path.write_text(text)
    return str(path)


REFUSES_BAD = (
    "server {{ server.name }} {{ server.endpoint }}",
    "server {{ server.name }} {{ server.endpoint }}{{ ' bogus' if 'bad' in server.name }}",
)


def test_servers_that_haproxy_refuses_are_quarantined_alone(proxy: Proxy, short_dir: Path) -> None:
    """Servers that HAProxy refuses are left out, each reported with HAProxy's error."""
    path = own_template(short_dir, REFUSES_BAD)
    good = [f"web{number}" for number in range(40)]
    for name in (*good, "bad1", "web9bad"):
        proxy.record(name, 8001)
    outcome = proxy.run_pass(template_path=path)
    assert outcome.verdict is Verdict.APPLIED
    assert proxy.servers() == set(good)
    assert [problem.split(":")[0] for problem in outcome.problems] == [
        "node bad1 is quarantined",
        "node web9bad is quarantined",
    ]
    assert "unknown keyword 'bogus'" in outcome.problems[0]
    proxy.record("web40", 8001)
    steps: list[str] = []
    again = reconcile.reconcile(proxy.settings.replace(template_path=path), lambda: None, on_step=steps.append)
    assert (again.verdict, again.problems) == (Verdict.APPLIED, outcome.problems)
    assert steps.count("checked") == 1  # servers known to be refused are not searched again
    assert proxy.servers() == {*good, "web40"}
    proxy.record("bad1", 8001, status="left")
    proxy.record("web9bad", 8001, status="left")
    assert proxy.run_pass(template_path=path).problems == ()


@pytest.mark.parametrize(
    ("replacement", "reason"),
    [
        ((LOOP, LOOP + "{{ nothing }}"), "'nothing' is undefined"),
        ((LOOP, "{% for server in service. %}"), "own.j2:"),
        (("balance {{ service.balance }}", "balance bogus"), "HAProxy refuses"),
        (("{{ server.endpoint }}", "{{ server.endpoint }} bogus"), "HAProxy refuses"),
        (
            (LOOP, "{% for n in range(10**12) %}{% endfor %}" + LOOP),
            "no result in 3 s",
        ),
        ((LOOP, "{{ 'x' * 10**9 }}" + LOOP), "more than 64 MiB"),
        ((LOOP, "{{ '#' * 17_000_000 }}\n" + LOOP), "longer than 16 MiB"),
    ],
    ids=["undefined", "syntax", "refused", "every server refused", "endless", "eats memory", "too long"],
)
def test_servers_change_while_the_template_is_broken(
    proxy: Proxy, short_dir: Path, replacement: tuple[str, str], reason: str
) -> None:
    """While the template is broken, servers change by the last good one and REJECTED reports the error."""
    memory_mib = 64 if "64 MiB" in reason else 256
    settings = {"template_memory_mib": memory_mib, "template_timeout_s": 3.0 if "10**12" in replacement[1] else 20.0}
    path = own_template(short_dir, ("retries {{ defaults.retries }}", "retries 2"))
    proxy.record("web1", 8001)
    assert proxy.run_pass(template_path=path, **settings).verdict is Verdict.RELOADED
    own_template(short_dir, ("retries {{ defaults.retries }}", "retries 2"), replacement)
    for number in range(2, 5):
        proxy.record(f"web{number}", 8001)
    outcome = proxy.run_pass(template_path=path, **settings)
    assert outcome.verdict is Verdict.REJECTED
    assert reason in outcome.reason
    assert "follow the last good template: APPLIED" in outcome.reason
    assert proxy.servers() == {"web1", "web2", "web3", "web4"}
    own_template(short_dir, ("retries {{ defaults.retries }}", "retries 1"))
    assert proxy.run_pass(template_path=path, **settings).verdict is Verdict.RELOADED


def test_without_a_good_template_the_built_in_one_is_used(proxy: Proxy, short_dir: Path) -> None:
    """When the first template is broken and HAProxy runs the built-in one, servers change by the built-in one."""
    path = own_template(short_dir, ("balance {{ service.balance }}", "balance bogus"))
    proxy.record("web1", 8001)
    outcome = proxy.run_pass(template_path=path)
    assert outcome.verdict is Verdict.REJECTED
    assert "meanwhile servers follow the built-in template: APPLIED servers changed: +web1" in outcome.reason
    assert proxy.servers() == {"web1"}


def test_a_broken_first_template_changes_nothing(proxy: Proxy, short_dir: Path) -> None:
    """When the first template is broken and HAProxy runs another configuration, nothing changes."""
    assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
    path = own_template(short_dir, ("balance {{ service.balance }}", "balance bogus"))
    before = Path(proxy.settings.config_path).read_text()
    proxy.record("web1", 8001)
    assert proxy.run_pass(template_path=path).verdict is Verdict.REJECTED
    assert Path(proxy.settings.config_path).read_text() == before


@given(st.sets(st.integers(0, 99), max_size=99), st.sets(st.integers(0, 99), max_size=4))
def test_sift_separates_accepted_from_refused_servers(numbers: set[int], bad: set[int]) -> None:
    """`sift` returns exactly the refused servers and exactly the accepted ones."""
    servers = tuple(Server(f"web{number:02}", "127.0.0.1", 1 + number, None) for number in sorted(numbers))
    found = sift(servers, lambda some: not any(server.port - 1 in bad for server in some))
    assert found == (
        tuple(server for server in servers if server.port - 1 not in bad),
        tuple(server for server in servers if server.port - 1 in bad),
    )


def test_sift_gives_up() -> None:
    """`sift` returns None when no server is accepted or too many are refused: the template is wrong."""
    servers = tuple(Server(f"web{number:02}", "127.0.0.1", 1 + number, None) for number in range(99))
    assert sift(servers, lambda _: False) is None
    assert sift(servers, lambda some: not some) is None


def test_only_nodes_with_a_valid_proof_are_served(proxy: Proxy, short_dir: Path) -> None:
    """With a secret, a node is served only with the tag that `proof` prints for its name, address, port and role."""
    secret = short_dir / "secret"
    secret.write_text("correct horse battery staple\n")
    environ = {"SERF_HAPROXY_PROOF_SECRET_FILE": str(secret)}
    where = ("--address", "127.0.0.1", "--tag", "port=8001")
    tag = command(proxy, "proof", "--name", "web1", *where, **environ).strip()
    key, _, value = tag.partition("=")
    proxy.record("web1", 8001, **{key: value})
    proxy.record("web2", 8001, **{key: value})
    proxy.record("web3", 8001)
    proxy.record("web4", 8002, **{key: value})
    outcome = proxy.run_pass(proof_secret_file=str(secret))
    assert proxy.servers() == {"web1"}
    assert [problem.split(": ")[0] for problem in outcome.problems] == [
        f"node web{number} is quarantined" for number in (2, 3, 4)
    ]
    secret.unlink()
    with pytest.raises(SystemFault, match="SERF_HAPROXY_PROOF_SECRET_FILE"):
        proxy.run_pass(proof_secret_file=str(secret))
    assert proxy.servers() == {"web1"}


def test_servers_are_limited_to_allowed_networks_and_ports(proxy: Proxy) -> None:
    """Nodes outside the allowed networks and ports are quarantined, with a reason that names the setting."""
    proxy.record("web1", 8001, "127.0.1.1")
    proxy.record("web2", 8001, "127.0.2.1")
    proxy.record("web3", 22, "127.0.1.3")
    proxy.record("web4", 8002, "127.0.1.4")
    outcome = proxy.run_pass(networks=read_networks("127.0.1.0/24"), ports=read_ports("8000-8999"))
    assert proxy.servers() == {"web1", "web4"}
    assert [words in problem for words, problem in zip(("NETWORKS", "PORTS"), outcome.problems, strict=True)] == [
        True
    ] * 2


@pytest.mark.parametrize("bind", ["frontend_bind", "stats_bind"])
def test_the_balancer_is_never_its_own_server(proxy: Proxy, bind: str) -> None:
    """A member whose endpoint is the balancer's frontend or stats page is quarantined."""
    host, _, port = getattr(proxy.settings, bind).rpartition(":")
    proxy.record("web1", 8001)
    proxy.record("circle", int(port), host)
    outcome = proxy.run_pass()
    assert proxy.servers() == {"web1"}
    assert "node circle is quarantined: a balancer listens at address 127.0.0.1 port" in outcome.problems[0]
    assert "requests would go in a circle" in outcome.problems[0]


def test_a_member_on_loopback_serves_while_the_balancer_is_on_loopback(proxy: Proxy) -> None:
    """When Serf reports another address of the balancer, a member on loopback is quarantined."""
    listed = {name: ("alive", make_member(name, "127.0.0.1", {"port": "8001"})) for name in ("web1", "lb1")}
    proxy.record("web1", 8001)
    proxy.run_pass()
    reconcile.reconcile(proxy.settings, lambda: Roster(time.time_ns(), "lb1", listed))
    assert proxy.servers() == {"web1"}
    listed["lb1"] = ("alive", make_member("lb1", "10.1.0.1", {}))
    listed["web2"] = ("alive", make_member("web2", "10.1.0.2", {}))
    time.sleep(0.01)  # file times have a resolution of 4 ms
    outcome = reconcile.reconcile(proxy.settings, lambda: Roster(time.time_ns(), "lb1", listed))
    assert outcome.problems == (
        "node web1 is quarantined: address 127.0.0.1 is on the balancer's own machine; "
        "SERF_HAPROXY_NETWORKS can allow it",
    )
    assert proxy.servers() == {"web2"}

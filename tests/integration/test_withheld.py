"""Tables of the services file that HAProxy cannot run, with a real HAProxy: they stop no other service."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_daemon import running_daemon, said
from integration.test_services import list_servers, offer
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.outcome import Outcome, Pause, Verdict
from serf_haproxy.control.preview import preview, preview_vetted
from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.control.rendering import BUILT_IN_TEMPLATE
from serf_haproxy.control.report import read_report
from serf_haproxy.show.document import to_json

pytestmark = pytest.mark.usefixtures("time_limit")

API = '[api]\nroutes = ["/api"]\n'
SHOP = '[shop]\nroutes = ["/shop"]\n'
FRESH = '[fresh]\nroutes = ["/fresh"]\n'
UNACCEPTABLE = 'health_path = "/unacceptable"\n'

# A HAProxy that refuses one more value: it stands for any that our reader lets through.
CHECKER = """\
#!/bin/sh
echo >> "$0.count"
for file; do :; done
line=$(grep -n /unacceptable "$file" | head -n 1 | cut -d : -f 1)
[ -z "$line" ] && exec haproxy "$@"
echo "[NOTICE]   ($$) : haproxy version is 2.6.12" >&2
echo "[ALERT]    ($$) : config : parsing [$file:$line] : 'http-check send' : invalid path." >&2
exit 1
"""


@pytest.fixture
def proxy(short_dir: Path) -> Iterator[Proxy]:
    """Yield a real HAProxy whose check refuses the path `/unacceptable`."""
    checker = short_dir / "checker"
    checker.write_text(CHECKER)
    checker.chmod(0o755)
    (short_dir / "services.toml").write_text(API + SHOP)
    with running_proxy(short_dir, SERF_HAPROXY_HAPROXY_BIN=str(checker)) as running:
        offer(running, "node1", api=9001, shop=9002)
        running.run_pass()
        yield running


def count_checks(proxy: Proxy) -> int:
    """Return how often HAProxy was asked to check a configuration."""
    return len(Path(f"{proxy.settings.haproxy_bin}.count").read_text())


def list_faults(proxy: Proxy, outcome: Outcome) -> list[str]:
    """Return the lines about the services file, which the log and the status both have."""
    faults = to_json(read_report(proxy.settings))["service_faults"]
    assert isinstance(faults, list)
    assert set(faults) <= set(outcome.problems)
    return [fault.removeprefix(f"{proxy.settings.services_file}: ") for fault in faults]


def has_service(proxy: Proxy, name: str) -> bool:
    """Return whether the published configuration has a service."""
    return f"backend {name}\n" in Path(proxy.settings.config_path).read_text()


REFUSED = "HAProxy refuses it: 'http-check send' : invalid path."


def test_a_value_that_haproxy_refuses_stops_one_service(proxy: Proxy, short_dir: Path) -> None:
    """A changed table that HAProxy refuses stays as it was, a new one is left out; the rest and joins go on."""
    assert list_servers(proxy) == {("api", "node1"), ("shop", "node1")}
    odd = '[odd]\nroutes = ["/odd"]\n'
    (short_dir / "services.toml").write_text(API + UNACCEPTABLE + SHOP + FRESH + odd + UNACCEPTABLE)
    outcome = proxy.run_pass()
    assert outcome.verdict is Verdict.RELOADED, outcome
    assert list_faults(proxy, outcome) == [
        f"[api] {REFUSED}; it goes on as it was before",
        f"[odd] {REFUSED}; it is left out",
    ]
    assert (has_service(proxy, "fresh"), has_service(proxy, "odd")) == (True, False)
    offer(proxy, "node2", shop=9003, api=9004, fresh=9005)
    before = count_checks(proxy)
    outcome = proxy.run_pass()
    assert outcome.verdict is Verdict.APPLIED, outcome
    assert count_checks(proxy) == before + 1, "what is refused is not searched for in each pass"
    assert {("shop", "node2"), ("api", "node2"), ("fresh", "node2"), ("api", "node1")} <= list_servers(proxy)
    assert len(list_faults(proxy, outcome)) == 2
    (short_dir / "services.toml").write_text(API.replace('"/api"', '"/rest"') + SHOP + FRESH)
    outcome = proxy.run_pass()
    assert (outcome.verdict, list_faults(proxy, outcome)) == (Verdict.RELOADED, [])
    assert "/rest" in Path(proxy.settings.config_path).read_text()


def test_a_refused_table_is_tried_again(proxy: Proxy, short_dir: Path) -> None:
    """It counts when HAProxy accepts it after all, as another version may."""
    (short_dir / "services.toml").write_text(API + SHOP + FRESH + UNACCEPTABLE)
    outcome = proxy.run_pass()
    assert outcome.again_s is not None
    assert outcome.again_s <= proxy.settings.retry_max_s
    Path(proxy.settings.haproxy_bin).write_text('#!/bin/sh\nexec haproxy "$@"\n')
    assert len(list_faults(proxy, proxy.run_pass())) == 1, "it is still remembered"
    outcome = proxy.run_pass(retry_max_s=1.0)
    assert (outcome.verdict, list_faults(proxy, outcome)) == (Verdict.RELOADED, [])
    assert has_service(proxy, "fresh")


def test_check_and_boot_name_a_refused_table(proxy: Proxy, short_dir: Path) -> None:
    """`serf-haproxy check` names file and table instead of a temporary file, and `boot` leaves the table out."""
    (short_dir / "services.toml").write_text(API + SHOP + FRESH + UNACCEPTABLE)
    environment = os.environ | proxy.environment

    def run(command: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "serf_haproxy", command]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)

    done = run("check")
    assert done.returncode == 100
    line = f"{proxy.settings.services_file}: [fresh] {REFUSED}; it is left out"
    assert done.stderr.splitlines() == [f"serf-haproxy: {line}"]
    for name in (proxy.settings.config_path, f"{proxy.settings.config_path}.good"):
        Path(name).unlink(missing_ok=True)
    done = run("boot")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("HAProxy starts with one made with the present template\n")
    assert has_service(proxy, "shop")
    assert not has_service(proxy, "fresh")


def test_a_table_that_a_template_cannot_render_stops_one_service(proxy: Proxy, short_dir: Path) -> None:
    """A template of the operator's own may fail with a value that it does not expect."""
    template = short_dir / "own.j2"
    failing = '{% for service in services if service.health_path == "/odd" %}{{ service.colour.name }}{% endfor %}'
    template.write_text(Path(BUILT_IN_TEMPLATE).read_text() + failing)
    assert proxy.run_pass(template_path=str(template)).is_in_force
    (short_dir / "services.toml").write_text(API + 'health_path = "/odd"\n' + SHOP + FRESH)
    outcome = proxy.run_pass(template_path=str(template))
    assert outcome.verdict is Verdict.RELOADED, outcome
    (fault,) = outcome.problems
    assert fault.startswith(f"{proxy.settings.services_file}: [api] the template cannot be rendered with it: ")
    assert str(template) in fault
    assert has_service(proxy, "fresh")


def test_what_waits_for_a_reload_is_not_good_yet(proxy: Proxy, short_dir: Path) -> None:
    """Neither a table nor a template counts as one that was in force before HAProxy has loaded it."""
    template = short_dir / "own.j2"
    template.write_text(Path(BUILT_IN_TEMPLATE).read_text())
    settings = proxy.settings.replace(template_path=str(template))
    assert reconcile(settings, lambda: None).is_in_force
    state = make_edges(settings).state
    tables, good = state.read_services(), state.read_good_template()
    (short_dir / "services.toml").write_text(API + SHOP + FRESH)
    template.write_text(f"{good}\nnonsense\n")
    outcome = reconcile(settings, lambda: None, pause=Pause(time.monotonic() + 10.0))
    assert "without a reload, which follows" in outcome.reason
    assert (state.read_services(), state.read_good_template()) == (tables, good)


def test_a_wrong_server_is_not_laid_on_its_table(proxy: Proxy, short_dir: Path) -> None:
    """A member whose server HAProxy refuses cannot keep a new service away."""
    checker = Path(proxy.settings.haproxy_bin)
    checker.write_text(CHECKER.replace("/unacceptable", "'server wrong '"))
    (short_dir / "services.toml").write_text(API + SHOP + FRESH)
    offer(proxy, "right", fresh=9001)
    offer(proxy, "wrong", fresh=9001)
    outcome = proxy.run_pass()
    assert outcome.verdict is Verdict.RELOADED, outcome
    assert [problem for problem in outcome.problems if "fresh/wrong is quarantined: HAProxy refuses" in problem]
    assert list_faults(proxy, outcome) == []
    assert ("fresh", "right") in list_servers(proxy)


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    """Take a port, as another program would."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield


def test_a_listener_that_cannot_be_stops_one_service(proxy: Proxy, short_dir: Path) -> None:
    """A service whose address is not of this machine, or taken, is left out; others and reloads go on."""
    port, reload_count = free_port(), proxy.reload_count()
    bad = '[bad]\nmode = "tcp"\nbind = "192.0.2.1:7777"\n'
    taken = f'[taken]\nmode = "tcp"\nbind = "127.0.0.1:{port}"\n'
    again = "(tried again with pauses that grow); it is left out"
    with listening(port):
        (short_dir / "services.toml").write_text(API + SHOP + bad + taken + FRESH)
        outcome = proxy.run_pass()
        assert outcome.verdict is Verdict.RELOADED, outcome
        assert list_faults(proxy, outcome) == [
            f"[bad] bind = 192.0.2.1:7777: HAProxy cannot listen there: Cannot assign requested address {again}",
            f"[taken] bind = 127.0.0.1:{port}: HAProxy cannot listen there: Address already in use {again}",
        ]
        assert has_service(proxy, "fresh")
        assert proxy.reload_count() == reload_count + 1
        assert outcome.again_s is not None
        assert 1 <= outcome.again_s <= 2
        assert proxy.run_pass().verdict is Verdict.UNCHANGED
        assert len(list_faults(proxy, proxy.run_pass(retry_max_s=0.001))) == 2, "tried again"
    outcome = proxy.run_pass(retry_max_s=0.001)
    assert outcome.verdict is Verdict.RELOADED, outcome
    assert [fault.split()[0] for fault in list_faults(proxy, outcome)] == ["[bad]"]
    outcome = proxy.run_pass(retry_max_s=0.001)
    assert outcome.verdict is Verdict.UNCHANGED, "HAProxy itself listens there now"
    assert has_service(proxy, "taken")
    assert proxy.reload_count() == reload_count + 2


def test_the_daemon_tries_a_listener_again(proxy: Proxy, short_dir: Path) -> None:
    """The service comes by itself when the other program has gone, without news from Serf or a changed file."""
    port = free_port()
    with running_daemon(proxy):
        with listening(port):
            (short_dir / "services.toml").write_text(f'{API}{SHOP}[taken]\nmode = "tcp"\nbind = "127.0.0.1:{port}"\n')
            wait_for(lambda: said(proxy, "[taken] bind = "), "the fault is logged", 20)
            assert not has_service(proxy, "taken")
        wait_for(lambda: has_service(proxy, "taken"), "the service comes", 30)
    assert not said(proxy, "UNCONFIRMED")


@pytest.mark.parametrize(
    ("live", "is_tried"),
    [
        ("    bind 127.0.0.1:{port}", False),
        ("    bind 10.0.0.1:80,:{port} v4v6", False),
        ("    bind ipv4@*:{first}-{port} ssl", False),
        ("    peer node1 127.0.0.1:{port}", False),
        ("    server node1 127.0.0.1:{port}", True),
        ("    bind 10.0.0.1:{port}", True),
        ("    bind unix@/run/{port}", True),
    ],
)
def test_own_listeners_are_not_in_the_way(short_dir: Path, live: str, is_tried: bool) -> None:
    """A port that HAProxy itself has is no other program's, in whatever words its configuration has it."""
    proxy, port = Proxy(short_dir), free_port()
    (short_dir / "services.toml").write_text(f'[taken]\nmode = "tcp"\nbind = "127.0.0.1:{port}"\n')
    Path(proxy.settings.config_path).write_text(live.format(port=port, first=port - 1) + "\n")
    with listening(port):
        found = preview_vetted(proxy.settings, preview(proxy.settings), is_listening_tried=True)
    assert bool(found.snapshot.services.faults) == is_tried


def test_a_changed_listener_that_is_taken_stays_where_it_was(proxy: Proxy, short_dir: Path) -> None:
    """A service goes on at its listener while its new one is taken; a listener that changes its service is no fault."""
    first, second = free_port(), free_port()
    tcp = 'mode = "tcp"\nbind = "127.0.0.1:{}"\n'
    (short_dir / "services.toml").write_text(f"[a]\n{tcp.format(first)}")
    assert proxy.run_pass().verdict is Verdict.RELOADED
    with listening(second):
        (short_dir / "services.toml").write_text(f"[a]\n{tcp.format(second)}")
        outcome = proxy.run_pass()
        assert list_faults(proxy, outcome)[0].endswith("; it goes on as it was before")
        socket.create_connection(("127.0.0.1", first), 5).close()
    (short_dir / "services.toml").write_text(f"[b]\n{tcp.format(first)}")
    outcome = proxy.run_pass()
    assert (outcome.verdict, list_faults(proxy, outcome)) == (Verdict.RELOADED, [])

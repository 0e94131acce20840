"""A server that is added at run time behaves as one that is loaded from the file: word by word, algorithm by algorithm.

HAProxy has loaded `web1` of every section from the file when it started. `web2` is added at run time, by the same
template.
"""

import contextlib
import csv
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

import probe
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.recorder import CERTIFICATE, Recorder
from serf_haproxy.config import keywords
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.haproxy.socket import ask

HEAD = """\
global
    log stdout format raw daemon
    stats socket {{ settings.runtime_socket }} mode 600 level admin
    server-state-file {{ settings.server_state_path }}
    max-spread-checks 10ms
    ssl-server-verify none
defaults
    mode http
    load-server-state-from-file global
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout queue 5s
    retries 0
frontend web
    bind {{ settings.frontend_bind }}
    use_backend %[path,field(2,/)]
"""
SECTION = """\
backend {name}
    balance {balance}
    http-reuse always
    option httpchk
    http-check send meth HEAD uri /{name}/check ver HTTP/1.1 hdr Host localhost
{{% for server in servers %}}
    server {{{{ server.name }}}} {endpoint} id {{{{ server.id }}}} {words}
{{% endfor %}}
"""
OTHER_CERTIFICATE = CERTIFICATE.with_name("other.pem")
QUICK = "check inter 100ms rise 1 fall 1"
# Section, words, and the port: "http", "tls", "closed", or "h2", where a server speaks HTTP/2.
CASES = {
    "check": ("check", "http"),
    "inter": ("check inter 100ms", "http"),
    "fastinter": ("check inter 400ms downinter 400ms fastinter 50ms rise 1 fall 1000", "http"),
    "downinter": ("check inter 400ms downinter 50ms rise 1 fall 1", "http"),
    "rise": ("check inter 100ms rise 3", "http"),
    "fall": ("check inter 100ms rise 1 fall 7", "http"),
    "port": (f"{QUICK} port @http", "closed"),
    "addr": (f"{QUICK} addr 127.0.1.9 port @http", "closed"),
    "maxconn": (f"{QUICK} maxconn 1", "http"),
    "maxqueue": (f"{QUICK} maxconn 1 maxqueue 3", "http"),
    "backup": (f"{QUICK} backup", "http"),
    "slowstart": (f"{QUICK} slowstart 20s", "http"),
    "observe": ("check inter 60s downinter 50ms fastinter 50ms rise 2 observe layer7 on-error mark-down", "http"),
    "error-limit": (
        "check inter 60s downinter 50ms fastinter 50ms rise 2 observe layer7 error-limit 3 on-error mark-down",
        "http",
    ),
    "on-marked-down": (f"{QUICK} on-marked-down shutdown-sessions", "http"),
    "send-proxy": (f"{QUICK} send-proxy", "http"),
    "send-proxy-v2": (f"{QUICK} send-proxy-v2", "http"),
    "check-send-proxy": (f"{QUICK} check-send-proxy", "http"),
    "ssl": (f"{QUICK} ssl verify none", "tls"),
    "check-ssl": (f"{QUICK} check-ssl verify none port @tls", "http"),
    "check-sni": (f"{QUICK} ssl verify none check-sni checked.example", "tls"),
    "alpn": (f"{QUICK} ssl verify none alpn http/1.1", "tls"),
    "check-alpn": (f"{QUICK} ssl verify none check-alpn http/1.1", "tls"),
    "sni": (f"{QUICK} ssl verify none sni str(asked.example) check-sni asked.example", "tls"),
    "ca-file": (f"{QUICK} ssl verify required ca-file {CERTIFICATE}", "tls"),
    "other-ca": (f"{QUICK} ssl verify required ca-file {OTHER_CERTIFICATE}", "tls"),
    "named": (f"{QUICK} ssl verify required ca-file {CERTIFICATE} verifyhost localhost", "tls"),
    "verifyhost": (f"{QUICK} ssl verify required ca-file {CERTIFICATE} verifyhost other.example", "tls"),
    "proto": ("proto h2", "http"),
    "check-proto": ("check inter 100ms check-proto h2", "http"),
    "pool-max-conn": (f"{QUICK} pool-max-conn 7", "http"),
    "pool-purge-delay": (f"{QUICK} pool-purge-delay 3s", "http"),
}
SHOWN_BY_CASE = {"on-error": "observe", "verify": "ssl"}  # words that have no section of their own
SHOWN_BY_TEST = {"cookie": "test_a_cookie_is_the_same"}
COLUMNS = ("weight", "act", "bck", "qlimit", "slim", "check_code", "check_rise", "check_fall", "mode", "check_desc")


class Pair(NamedTuple):
    """The two servers: `web1` from the file, `web2` added at run time.

    Attributes:
        proxy: HAProxy.
        recorders: What answers for each, by name and port.
    """

    proxy: Proxy
    recorders: dict[tuple[str, str], Recorder]

    def rows(self, section: str) -> dict[str, dict[str, str]]:
        """Return both rows of `show stat`."""
        answer = ask(self.proxy.settings.runtime_socket, f"show stat {section} 4 -1", 5)
        rows = csv.DictReader(io.StringIO(answer.removeprefix("# ")))
        return {row["svname"]: row for row in rows if row.get("svname")}

    def limits(self, section: str) -> dict[str, list[str]]:
        """Return the rows of `show servers conn`: purge delay and limit of idle connections."""
        lines = ask(self.proxy.settings.runtime_socket, f"show servers conn {section}", 5).splitlines()
        columns = lines[0].removeprefix("# ").split()
        rows = [line.split() for line in lines[1:] if line]
        chosen = [columns.index("purge_delay"), columns.index("idle_lim") if "idle_lim" in columns else 4]
        return {row[0].partition("/")[2]: [row[index] for index in chosen] for row in rows}

    def visits(self, name: str, path: str) -> list[tuple[int, object, bool]]:
        """Return how a server was reached for a path."""
        return [
            visit[1:4]
            for (server, _), recorder in self.recorders.items()
            for visit in list(recorder.visits)
            if server == name and visit.path == path
        ]

    def ask(self, section: str, path: str = "x") -> requests.Response:
        """Make a request to a section."""
        url = f"http://{self.proxy.settings.frontend_bind}/{section}/{path}"
        return requests.get(url, headers={"Connection": "close"}, timeout=25)

    def wait_until_up(self, section: str) -> None:
        """Wait until both servers are up."""
        wait_for(lambda: {row["status"] for row in self.rows(section).values()} <= {"UP", "no check"}, section, 20)


def write_template(path: Path, ports: dict[str, int]) -> None:
    """Write a template with a section for each case."""
    text = HEAD
    for number, authority in enumerate((CERTIFICATE, OTHER_CERTIFICATE)):  # added servers get files that are loaded
        text += f"backend authority{number}\n    default-server ssl verify required ca-file {authority}\n"
    for name, (words, port) in CASES.items():
        for known, number in ports.items():
            words = words.replace(f"@{known}", str(number))  # noqa: PLW2901
        endpoint = f"{{{{ server.address }}}}:{ports[port]}"
        text += SECTION.format(name=name, balance="roundrobin", endpoint=endpoint, words=words)
    path.write_text(text)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Run HAProxy with web1 from the file and web2 added at run time, in a section for each case."""
    directory = tmp_path_factory.mktemp("e")
    ports = {name: free_port("127.0.1.1") for name in ("http", "tls", "closed")}
    places = {"web1": "127.0.1.1", "web2": "127.0.1.2", "checks": "127.0.1.9"}
    template = directory / "own.j2"
    write_template(template, ports)
    with contextlib.ExitStack() as stack:
        recorders = {
            (name, kind): stack.enter_context(Recorder((address, ports[kind]), kind == "tls"))
            for name, address in places.items()
            for kind in ("http", "tls")
        }
        for recorder in recorders.values():
            stack.callback(recorder.shutdown)
        proxy = stack.enter_context(running_proxy(directory, SERF_HAPROXY_TEMPLATE_PATH=str(template)))
        for name in ("web1", "web2"):
            proxy.record(name, ports["http"], places[name])
            assert proxy.run_pass().verdict is Verdict.APPLIED
            assert proxy.run_pass().verdict is Verdict.UNCHANGED
            if name == "web1":
                proxy.stop()
                for recorder in recorders.values():
                    recorder.visits.clear()
                proxy.start()
        assert proxy.reload_count() == 0
        yield Pair(proxy, recorders)


def test_every_word_of_the_list_has_a_case() -> None:
    """No word is on the list without a case that shows it."""
    shown = {word for words, _ in CASES.values() for word in words.split()} & set(CASES)
    assert shown | SHOWN_BY_CASE.keys() | SHOWN_BY_TEST.keys() == keywords.WORDS


@pytest.mark.parametrize("section", CASES)
def test_haproxy_reports_the_same_of_both(pair: Pair, section: str) -> None:
    """Limits, health checks and their results are those of a server from the file."""

    def reported() -> list[tuple[str, ...]]:
        return [tuple(row[column] for column in COLUMNS) for row in pair.rows(section).values()]

    assert pair.rows(section).keys() == {"web1", "web2"}
    wait_for(lambda: len(set(reported())) == 1, lambda: f"{section}: {reported()}", 20)
    settled = [row["status"].split(" ")[0] for row in pair.rows(section).values()]
    wait_for(lambda: len({row["status"].split(" ")[0] for row in pair.rows(section).values()}) == 1, str(settled), 20)
    assert len({tuple(row) for row in pair.limits(section).values()}) == 1


@pytest.mark.parametrize("section", ["inter", "fastinter", "downinter", "rise", "port", "check-ssl"])
def test_both_are_checked_equally_often(pair: Pair, section: str) -> None:
    """The intervals of health checks are those of the line, and go to its port."""
    path = f"/{section}/check"
    if section in ("downinter", "fastinter"):
        pair.wait_until_up(section)
        for recorder in pair.recorders.values():
            recorder.statuses[f"/{section}"] = 500
        wait_for(lambda: all(row["check_code"] == "500" for row in pair.rows(section).values()), "bad checks", 10)
    before = [len(pair.visits(name, path)) for name in ("web1", "web2")]

    def count() -> list[int]:
        return [len(pair.visits(name, path)) - start for name, start in zip(("web1", "web2"), before, strict=True)]

    wait_for(lambda: min(count()) >= 8, lambda: f"eight checks of each: {count()}", 40)
    counts = count()
    assert max(counts) <= 4 * min(counts), counts  # with the default interval of 2 s one would have ten times as many


@pytest.mark.parametrize(
    "section",
    [
        *("send-proxy", "send-proxy-v2", "check-send-proxy", "ssl", "check-ssl", "check-sni", "alpn", "check-alpn"),
        *("sni", "ca-file", "named"),
    ],
)
def test_both_are_reached_in_the_same_way(pair: Pair, section: str) -> None:
    """Requests and health checks arrive with the same PROXY line, TLS name and protocol."""
    pair.wait_until_up(section)

    def are_reached() -> bool:
        pair.ask(section)
        paths = f"/{section}/x", f"/{section}/check"
        return all(pair.visits(name, path) for name in ("web1", "web2") for path in paths)

    wait_for(are_reached, "requests and health checks at both", 20)
    ways = [[set(pair.visits(name, f"/{section}/{path}")) for path in ("x", "check")] for name in ("web1", "web2")]
    assert ways[0] == ways[1]
    expected = {
        "send-proxy": "1",
        "send-proxy-v2": "2",
        "check-send-proxy": "1",
        "check-sni": "checked.example",
        "alpn": "http/1.1",
        "check-alpn": "http/1.1",
        "sni": "asked.example",
    }
    assert expected.get(section, "") in str(ways[0])


@pytest.mark.parametrize("section", ["proto", "check-proto"])
def test_both_are_reached_by_the_protocol_of_the_line(pair: Pair, section: str) -> None:
    """Requests or health checks begin with the preface of HTTP/2."""

    def prefaces(name: str) -> int:
        return sum(visit.is_h2 for visit in list(pair.recorders[name, "http"].visits))

    before = prefaces("web1"), prefaces("web2")
    for _ in range(4 if section == "proto" else 0):
        pair.ask(section)
    wait_for(lambda: prefaces("web1") > before[0] and prefaces("web2") > before[1], "HTTP/2 at both", 20)


def test_both_ramp_up_slowly(pair: Pair) -> None:
    """With slowstart the share of a server grows after it has come up."""
    wait_for(lambda: all(row["status"] == "UP" for row in pair.rows("slowstart").values()), "both are up", 20)
    throttles = {name: row["throttle"].rstrip("%") for name, row in pair.rows("slowstart").items()}
    if not {"", "100"}.isdisjoint(throttles.values()):  # a ramp ended before this test began
        for name in throttles:
            probe.change(
                pair.proxy.settings,
                [f"set server slowstart/{name} health down", f"set server slowstart/{name} health up"],
            )
        throttles = {name: row["throttle"].rstrip("%") for name, row in pair.rows("slowstart").items()}
    assert all(0 < int(throttle or 100) < 100 for throttle in throttles.values()), throttles


@pytest.mark.parametrize(("section", "most"), [("observe", 10), ("error-limit", 3)])
def test_both_are_marked_down_by_bad_answers(pair: Pair, section: str, most: int) -> None:
    """With observe layer7, as many bad answers as the line says take a server out."""
    pair.wait_until_up(section)
    for recorder in pair.recorders.values():
        recorder.statuses[f"/{section}/bad"] = 500
    before = {name: int(row["chkdown"]) for name, row in pair.rows(section).items()}
    counts: dict[str, int] = {}
    for _ in range(40):
        pair.ask(section, "bad/x")
        for name, row in pair.rows(section).items():
            if int(row["chkdown"]) > before[name] and name not in counts:
                counts[name] = len(pair.visits(name, f"/{section}/bad/x"))
    assert counts.keys() == {"web1", "web2"}
    assert abs(counts["web1"] - counts["web2"]) <= 1, counts
    assert max(counts.values()) <= most, counts


@pytest.mark.parametrize("name", ["web1", "web2"])
def test_both_end_their_sessions_when_they_go_down(pair: Pair, name: str) -> None:
    """With on-marked-down shutdown-sessions a request in flight ends at once."""
    section = "on-marked-down"
    other = {"web1": "web2", "web2": "web1"}[name]
    pair.wait_until_up(section)
    for recorder in pair.recorders.values():
        recorder.statuses[f"/{section}/hang"] = 0
    probe.change(pair.proxy.settings, [f"set server {section}/{other} state maint"])
    try:
        endings: list[object] = []

        def ask_and_wait() -> None:
            try:
                endings.append(pair.ask(section, "hang/x").status_code)
            except requests.ConnectionError:  # HAProxy 3.0 closes the connection without an answer
                endings.append("closed")

        client = threading.Thread(target=ask_and_wait)
        client.start()
        wait_for(lambda: pair.visits(name, f"/{section}/hang/x"), "the request is in flight", 10)
        started_s = time.monotonic()
        probe.change(
            pair.proxy.settings, [f"disable health {section}/{name}", f"set server {section}/{name} health down"]
        )
        client.join(25)
        assert endings in ([502], [503], ["closed"]), endings
        assert time.monotonic() - started_s < 15  # the server hangs for 20
    finally:
        probe.change(
            pair.proxy.settings, [f"enable health {section}/{name}", f"set server {section}/{other} state ready"]
        )


def test_both_keep_idle_connections(pair: Pair) -> None:
    """Requests of many clients reuse the connections to a server."""
    pair.wait_until_up("check")
    for _ in range(40):
        pair.ask("check", "reuse")
    counts = {
        name: len({visit.connection for visit in pair.recorders[name, "http"].visits if visit.path == "/check/reuse"})
        for name in ("web1", "web2")
    }
    assert max(counts.values()) <= 5, counts

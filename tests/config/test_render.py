"""Servers and a template -> haproxy.cfg: golden files, HAProxy's check, and hostile members.

    PYTHONPATH=tests .venv/bin/python tests/config/test_render.py

rewrites the golden `.cfg` files after a change of the template; review the difference before you commit it.
"""

import cProfile
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions import build
from integration.recorder import CERTIFICATE
from serf_haproxy.config.diff import describe
from serf_haproxy.config.fingerprint import digest_of, rest_of
from serf_haproxy.config.parse import Parser
from serf_haproxy.config.render import Compiler, Config, Source, fill_in, finish, render
from serf_haproxy.control.rendering import BUILT_IN_TEMPLATE
from serf_haproxy.control.rules import read_rules
from serf_haproxy.errors import HaproxyFault, InputError, TemplateError
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf.events import ALIVE, Event, parse_line, read_event
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import file as services_file
from serf_haproxy.settings import Settings, load_settings

pytestmark = pytest.mark.usefixtures("time_limit")

TESTS_DIR = Path(__file__).parents[1]
GOLDEN_DIR = TESTS_DIR / "golden"
TEMPLATE = Path(BUILT_IN_TEMPLATE).read_text()
HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin") or "haproxy"
COMPILER = Compiler()  # compiling the template is most of the time that rendering takes
WEB1 = Server("web1", "127.0.1.1", 8080, None)
WEB2 = Server("web2", "127.0.1.2", 8080, 50)


def render_golden(members_path: Path) -> Config:
    """Return the configuration for the node files, services and settings of a golden pair."""
    environ_path = members_path.with_suffix(".env")
    pairs = environ_path.read_text().splitlines() if environ_path.exists() else []
    settings = load_settings({"SERF_HAPROXY_BALANCER_NAME": "lb1"} | dict(pair.split("=", 1) for pair in pairs))
    services_path = members_path.with_suffix(".toml")
    text = services_path.read_text() if services_path.exists() else None
    services = services_file.read_from(services_file.Source(str(services_path), settings), text)
    assert services.faults == ()
    evidence = {}
    for line in members_path.read_text().splitlines(keepends=True):
        status, member = parse_line(line)
        evidence[member.name] = NodeFile(status, member, 0)
    rules, *further_rules = read_rules(settings, "", services=services)
    decision = decide(Snapshot(0, rules, evidence, further_rules=tuple(further_rules)))
    return render(TEMPLATE, BUILT_IN_TEMPLATE, decision.servers, settings, services.listed)


def render_event(event: Event, settings: Settings) -> tuple[int, str]:
    """Return the number of servers of an event's members, and the rendered configuration."""
    evidence = {member.name: NodeFile(ALIVE, member, 0) for member in event.members}
    servers = build(evidence, Rules(settings.default_port)).servers
    text = fill_in(Source(TEMPLATE, BUILT_IN_TEMPLATE), servers, settings, compiler=COMPILER)
    return len(servers), finish(text, servers, Parser()).text


def render_text(template: str, *servers: Server) -> Config:
    """Return the text rendered from a custom template."""
    return render(template, "/etc/mine.j2", servers, Settings())


def test_an_own_template_sees_services() -> None:
    """`servers` are those of the default service; `services` have their keys and servers, `routes` their order."""
    template = (
        "{% for service in services %}{{ service.name }} {{ service.mode }} {{ service.balance }}"
        "{% for server in service.servers %} {{ server.name }} {{ server.version }} {{ server.is_backup }}{% endfor %}"
        ";{% endfor %}{% for route in routes %}{{ route.text }} {{ route.service }};{% endfor %}"
        "{% for server in servers %}{{ server.name }}{% endfor %}"
    )
    text = '[shop]\nroutes = ["/shop", "a.test"]\n[pg]\nmode = "tcp"\nbind = ":1"\nbalance = "first"\n'
    services = services_file.read_from(services_file.Source("", Settings()), text).listed
    offered = WEB1._replace(service="shop", version="v2", is_backup=True), WEB2._replace(service="gone")
    rendered = render(template, "/etc/mine.j2", (WEB1, *offered), Settings(), services).text
    assert rendered.splitlines()[0] == (
        "nodes http roundrobin web1  False;pg tcp first;shop http roundrobin web1 v2 True;/shop shop;a.test shop;web1"
    )


def test_haproxy_accepts_every_kind_of_value(tmp_path: Path) -> None:
    """Routes, paths, statuses and listeners with all characters that are allowed make a valid configuration."""
    text = (
        '[a]\nroutes = ["a_b.x/a%20b~c/%41", "X-.y", "*._z/", "/if"]\n'
        'health_status = "200-299,404"\nhealth_path = "/x?y=1&z=%20"\n'
        '[b-c]\nmode = "tcp"\nbind = "[::1]:5432"\nbalance = "source"\n'
        '[d]\nroutes = ["/d"]\nbalance = "hash"\nhash_key = "cookie:a_b-c"\nserver_proto = "h2"\nslowstart_s = 0.5\n'
        f'tls = true\ntls_ca_file = "{CERTIFICATE}"\ntls_name = "a-b.example"\n'
        '[e]\nroutes = ["/e"]\nsplit = {v1 = 100}\nclient_networks = ["10.0.0.0/8", "fd00::/8"]\nretries = 0\n'
        'server_maxconn = 5\nserver_maxqueue = 7\nserver_proto = "h2"\nbackups = "all"\nhealth = "tcp"\n'
        "connect_timeout_s = 0.25\nqueue_timeout_s = 1\nserver_timeout_s = 300\ntunnel_timeout_s = 7\n"
        '[f]\nmode = "tcp"\nbind = ":6"\nbalance = "hash"\nhash_key = "source"\nclient_networks = ["::1/128"]\n'
    )
    services = services_file.read_from(services_file.Source("", Settings()), text)
    assert services.faults == ()
    servers = (
        WEB1._replace(service="a", is_backup=True),
        WEB2._replace(service="b-c"),
        *(WEB2._replace(service=name) for name in "def"),
    )
    path = tmp_path / "haproxy.cfg"
    path.write_text(render(TEMPLATE, BUILT_IN_TEMPLATE, servers, Settings(), services.listed).text)
    check_with_haproxy(path)


def check_with_haproxy(path: Path) -> None:
    """Let HAProxy check a configuration as its master loads it. Its crt-list is taken for empty."""
    text = path.read_text()
    if "ssl crt-list" in text:
        with tempfile.TemporaryDirectory() as directory:
            (empty := Path(directory, "list")).touch()
            (other := Path(directory, "haproxy.cfg")).write_text(re.sub(r"crt-list \S+", f"crt-list {empty}", text))
            return _check_with_haproxy(other)
    return _check_with_haproxy(path)


def _check_with_haproxy(path: Path) -> None:
    checked = subprocess.run([HAPROXY, "-W", "-c", "-f", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    warnings = [line for line in checked.stderr.splitlines() if "[WARNING]" in line]
    # Before the first reload there is no state file, and the crt-list may be empty: HAProxy warns and continues.
    expected = ("server state file", "no SSL certificate specified")
    assert [line for line in warnings if not any(words in line for words in expected)] == []


@pytest.mark.parametrize("path", sorted(GOLDEN_DIR.glob("*.members")), ids=lambda path: path.stem)
def test_golden_pair(path: Path) -> None:
    """These node files give exactly this configuration, and HAProxy accepts it without a warning."""
    golden_path = path.with_suffix(".cfg")
    assert render_golden(path).text == golden_path.read_text()
    check_with_haproxy(golden_path)


def test_golden_files_are_pairs() -> None:
    """Each golden configuration and environment has its members."""
    stems = {path.stem for path in GOLDEN_DIR.glob("*.members")}
    assert stems == {path.stem for path in GOLDEN_DIR.glob("*.cfg")}
    assert stems >= {path.stem for path in (*GOLDEN_DIR.glob("*.env"), *GOLDEN_DIR.glob("*.toml"))}


@pytest.mark.parametrize("version", ["094", "0101"])
def test_recorded_members_make_a_valid_configuration(tmp_path: Path, version: str) -> None:
    """All recorded hostile members together give a configuration that HAProxy accepts."""
    paths = (TESTS_DIR / "payloads").glob(f"*-{version}.member-join.stdin")
    count, text = render_event(read_event("member-join", b"".join(path.read_bytes() for path in paths)), Settings())
    assert count == 9  # two with an unusual name, and seven with unusual tags, one of them port=22
    (tmp_path / "haproxy.cfg").write_text(text)
    check_with_haproxy(tmp_path / "haproxy.cfg")


@pytest.mark.parametrize("name", ["a" * 128, "1", "BACKEND", "FRONTEND", "server", "default", "localhost", "x.y_z-"])
def test_unusual_names_make_a_valid_configuration(tmp_path: Path, name: str) -> None:
    """HAProxy accepts every allowed node name as a server's name."""
    rendered = render(TEMPLATE, BUILT_IN_TEMPLATE, (WEB1._replace(name=name),), Settings().replace(cookie="SRV"))
    (tmp_path / "haproxy.cfg").write_text(rendered.text)
    check_with_haproxy(tmp_path / "haproxy.cfg")


ENDPOINT = r"(\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.]+\]):\d{1,5}"
SERVER_LINE = re.compile(
    rf"    server ([A-Za-z0-9][A-Za-z0-9._-]{{0,127}}) {ENDPOINT}( weight \d{{1,3}})?( cookie \1)? id \d{{5,7}}"
)
FRAGMENTS = ["#", "'", '"', "\\", "$HOME", "${HOME}", "%0A", "{{1}}", "=", ",", "server", "server evil 6.6.6.6:80"]
ALMOST = ["fe80::1%", "::1", "127.0.0.1", "port=", "weight=", "80", "256", " weight 256"]
NASTY = st.sampled_from([*FRAGMENTS, *ALMOST, *"\n\t\r\0 \x85\u2028", "\\n"])
FIELD = st.lists(NASTY | st.text(max_size=4) | st.sampled_from("abc019.-_"), max_size=4).map("".join)
GOOD_OR_NASTY = {
    "name": st.sampled_from(["web1", "web2", "a.b-c_d"]) | FIELD,
    "address": st.sampled_from(["127.0.1.1", "::1", "::ffff:1.2.3.4"]) | FIELD | FIELD.map("fe80::1%{}".format),
    "tags": st.sampled_from(["", "port=80", "port=80,weight=1"]) | FIELD | FIELD.map("port=8{}".format),
}
LINE = st.builds("\t".join, st.tuples(GOOD_OR_NASTY["name"], GOOD_OR_NASTY["address"], FIELD, GOOD_OR_NASTY["tags"]))


@given(st.lists(LINE, min_size=1, max_size=4), st.sampled_from(["", "SRV"]))
def test_no_member_can_add_a_line_or_a_word(lines: list[str], cookie: str) -> None:
    """Whatever a member's bytes, it adds one server line with the expected words, or nothing."""
    settings = Settings().replace(cookie=cookie)
    try:
        event = read_event("member-join", "\n".join(lines).encode("utf-8", "surrogatepass"))
    except InputError:
        return
    _, without_members = render_event(Event("member-join", [], []), settings)
    count, text = render_event(event, settings)
    fixed = without_members.split("\n")  # with the line by which an old worker reaches the newest one
    server_lines = [line for line in text.split("\n") if line.lstrip().startswith("server ") and line not in fixed]
    assert len(server_lines) == count
    for line in server_lines:
        words = SERVER_LINE.fullmatch(line)
        assert words, line
        assert bool(words[4]) is bool(cookie)
    assert drop_variable_lines(text) == drop_variable_lines(without_members)


def drop_variable_lines(text: str) -> list[str]:
    """Return the lines that do not depend on the servers: without server lines, their substitute, and the mark."""
    starts = ("    server ", "    # There is no server", "    description ")
    return [line for line in text.split("\n") if not line.startswith(starts)]


def test_four_times_the_services_take_four_times_the_work() -> None:
    """No step looks at each pair of services; the work is counted in calls of functions."""

    def count_calls(count: int) -> int:
        tables = [f'[s{n}]\nroutes = ["s{n}.test", "*.s{n}.test"]\n' for n in range(count)]
        tables += [f'[t{n}]\nmode = "tcp"\nbind = ":{20000 + n}"\n' for n in range(count)]
        services = services_file.read_from(services_file.Source("", Settings()), "".join(tables)).listed
        assert len(services) > 2 * count
        profile = cProfile.Profile()
        profile.runcall(fill_in, Source(TEMPLATE, BUILT_IN_TEMPLATE), (WEB1,), Settings(), services, COMPILER)
        return sum(entry.callcount for entry in profile.getstats())

    count_calls(1)  # what is done once
    assert count_calls(200) < 5 * count_calls(50)


def test_same_servers_give_the_same_bytes() -> None:
    """Rendering again, also in another process with another hash seed, gives the same text."""
    code = (
        "from serf_haproxy import settings; from serf_haproxy.config import render;"
        "from serf_haproxy.policy.server import Server;"
        "server = Server('web1', '127.0.1.1', 8080, None);"
        f"print(render.render(open({BUILT_IN_TEMPLATE!r}).read(), 't', (server,), settings.Settings()).text, end='')"
    )
    texts = {render(TEMPLATE, "t", (WEB1,), Settings()).text}
    for seed in ("0", "1"):
        argv = [sys.executable, "-c", code]
        environ = os.environ | {"PYTHONHASHSEED": seed}
        texts.add(subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout)
    assert len(texts) == 1


@pytest.mark.parametrize("template", ["x", "x\n", "x\n\n\n", "", "x\r\n", "é\n", "x\udcff"])
def test_digest_is_found_again(template: str) -> None:
    """A rendered text ends with the mark by which HAProxy confirms it, and with a line feed."""
    rendered = render_text(template)
    assert re.fullmatch("[0-9a-f]{16}", rendered.digest)
    assert digest_of(rendered.text) == rendered.digest
    assert rendered.description == f"serf-haproxy-{rendered.digest}-{rendered.layout.rest}"
    assert rest_of(rendered.description) == rendered.layout.rest
    assert rendered.text.endswith(f"\nglobal\n    description {rendered.description}\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:0],
        lambda text: text.partition("\n# The mark")[0] + "global\n    description mine\n",
        lambda text: text[:-1],
        lambda text: text + "\n",
        lambda text: text + "listen evil\n",
        lambda text: text.replace("127.0.1.1", "127.0.1.9"),
        lambda text: text.replace("description serf-haproxy-", "description serf-haproxy-0"),
        lambda text: text.replace("# The mark", "# A mark"),
    ],
)
def test_changed_text_has_no_digest(change: Callable[[str], str]) -> None:
    """A foreign text, or one that was edited anywhere, has no digest."""
    text = render(TEMPLATE, "t", (WEB1,), Settings()).text
    assert change(text) != text
    assert digest_of(change(text)) == ""


def test_servers_decide_the_digest() -> None:
    """Other servers, another order of servers, and another template give another digest."""
    template = "{% for server in servers %}{{ server.name }} {{ server.weight }}\n{% endfor %}"
    rendered = [render_text(template), render_text(template, WEB1), render_text(template, WEB1, WEB2)]
    rendered += [render_text(template, WEB2, WEB1), render_text(template + "# other\n", WEB1)]
    assert len({each.digest for each in rendered}) == len(rendered)


def test_mark_replaces_a_description_of_the_template(tmp_path: Path, wait_until: Callable) -> None:
    """HAProxy reports the mark even when the template sets a description."""
    cli = tmp_path / "cli.sock"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    template = (
        f"global\n    description mine\n    stats socket {cli} level admin\n"
        f"defaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n"
        f"frontend web\n    bind 127.0.0.1:{port}\n"
    )
    rendered = render_text(template)
    (tmp_path / "haproxy.cfg").write_text(rendered.text)

    def ask_info() -> str:
        try:
            return ask(str(cli), "show info", 1.0)
        except HaproxyFault:
            return ""

    with subprocess.Popen([HAPROXY, "-db", "-f", tmp_path / "haproxy.cfg"], stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(ask_info, "answer of HAProxy")
            assert re.findall(r"^description: (.*)$", ask_info(), re.MULTILINE) == [rendered.description]
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("a\nb\n{% if %}\n", "/etc/mine.j2:3: Expected an expression"),
        ("a\n{% for server in servers %}\n", "/etc/mine.j2:2: Unexpected end of template"),
        ("a\n{{ servers | sorted }}\n", "/etc/mine.j2:2: No filter named 'sorted'"),
        ("a\n\n\n{{ nodes }}\n", "/etc/mine.j2:4: 'nodes' is undefined"),
        ("a\n{{ settings.prot }}\n", "/etc/mine.j2:2: "),
        ("{% for server in servers %}\n{{ server.prot }}\n{% endfor %}", "/etc/mine.j2:2: "),
        ("a\n{{ 1 // 0 }}\n", "/etc/mine.j2:2: integer division or modulo by zero"),
        ("a\n{{ '%d' % 'x' }}\n", "/etc/mine.j2:2: "),
        ("a\n{{ 'x' | int + 'y' }}\n", "/etc/mine.j2:2: "),
        ("a\n{{ [1].index(2) }}\n", "/etc/mine.j2:2: "),
        ("a\n{% include 'other.j2' %}\n", "/etc/mine.j2:2: other.j2"),
        (
            "{% macro again() %}\n{{ again() }}\n{% endmacro %}\na\n{{ again() }}\n",
            "/etc/mine.j2:2: it calls itself without end",
        ),
        ("a\n{% include '' %}\n", "/etc/mine.j2:2: it calls itself without end"),
        ("a\n{{ '\\x00' }}\n", "/etc/mine.j2: the result contains a NUL byte"),
        ("\ufeffa\n", "/etc/mine.j2:1: the template begins with a byte-order mark (U+FEFF); save it as UTF-8 without"),
        ("\udcff\udcfea\0", "/etc/mine.j2:1: the template begins with a byte-order mark"),
    ],
)
def test_error_names_the_line_of_the_template(template: str, words: str) -> None:
    """Every error of a template is one line that begins with its file and line."""
    with pytest.raises(TemplateError) as caught:
        render_text(template, WEB1)
    assert str(caught.value).startswith(words)
    assert len(str(caught.value)) > len("/etc/mine.j2:2: ")
    assert len(str(caught.value).splitlines()) == 1


def test_template_sees_servers_and_settings() -> None:
    """A template can use each server's fields and every setting."""
    template = (
        "{% for s in servers %}{{ s.name }} {{ s.address }} {{ s.port }} {{ s.endpoint }} {{ s.weight }}\n{% endfor %}"
    )
    text = render_text(template + "{{ settings.balance }}", WEB1, WEB2._replace(address="::1")).text
    assert text.split("\n")[:3] == [
        "web1 127.0.1.1 8080 127.0.1.1:8080 None",
        "web2 ::1 8080 [::1]:8080 50",
        "roundrobin",
    ]


def lines_of(*servers: str) -> str:
    """Return a configuration with these server lines."""
    return "backend nodes\n" + "".join(f"    server {server}\n" for server in servers)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("", "", "the configuration changed"),
        (lines_of("a 1.1.1.1:1"), lines_of("a 1.1.1.1:1"), "the configuration changed"),
        (lines_of(), lines_of("a 1.1.1.1:1"), "servers changed: +a"),
        (lines_of("a 1.1.1.1:1"), lines_of(), "servers changed: -a"),
        (lines_of("a 1.1.1.1:1"), lines_of("a 1.1.1.1:2"), "servers changed: ~a"),
        (lines_of("a 1.1.1.1:1"), lines_of("a 1.1.1.1:1 weight 2"), "servers changed: ~a"),
        (
            lines_of("a 1.1.1.1:1", "b 1.1.1.1:1", "c 1.1.1.1:1"),
            lines_of("b 1.1.1.1:2", "c 1.1.1.1:1", "d 1.1.1.1:1"),
            "servers changed: -a ~b +d",
        ),
        (lines_of("a 1.1.1.1:1"), lines_of("a 1.1.1.1:1") + "frontend web\n", "the configuration changed"),
        ("", "global\n", "the configuration changed"),
        (
            lines_of(),
            lines_of(*(f"s{number:02} 1.1.1.1:1" for number in range(12))),
            "servers changed: " + " ".join(f"+s{number:02}" for number in range(10)) + " and 2 more",
        ),
    ],
)
def test_change_is_one_sentence(before: str, after: str, sentence: str) -> None:
    """A change is described by added, removed and changed servers, at most ten by name."""
    assert describe(Parser().read(before).servers, Parser().read(after).servers) == sentence


if __name__ == "__main__":
    for members_path in GOLDEN_DIR.glob("*.members"):
        members_path.with_suffix(".cfg").write_text(render_golden(members_path).text)

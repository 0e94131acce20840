"""Hostile gossip and real programs: the handler, HAProxy, and an RPC port that sends anything.

The tests of each parser, and `fuzz/`, cover the parsers by themselves.
"""

import contextlib
import ipaddress
import os
import re
import select
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import probe
from decisions import build
from fakes.serf_rpc import header, member, say
from fakes.servers import Talk, serving_tcp
from fuzz.checks import assert_printable, assert_storable, expect_lines, is_map
from serf_haproxy.control.edges import find_serf
from serf_haproxy.errors import SerfFault
from serf_haproxy.policy.admission import Rules
from serf_haproxy.serf import nodes
from serf_haproxy.serf.events import ALIVE, STATUS_OF_EVENT, make_member, name_fault, read_event
from serf_haproxy.serf.hints import Monitor
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.serf.roster import Roster
from serf_haproxy.serf.rpc import Connection
from serf_haproxy.settings import Settings

pytestmark = pytest.mark.usefixtures("time_limit")

HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin") or "haproxy"
HANG_S = 60.0
RULES = Rules(Settings().default_port, roles=("web", "api"), self_name="lb1")
# All examples of a test share its directories, so each example cleans up.
SHARED = [
    HealthCheck.function_scoped_fixture,
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
]

TRAVERSING = ["../x", "..", ".", "a/b", "../../outside/precious", "nodes/../x", "./x", "~", "-rf", "web1/", "..\\x"]
UNPRINTABLE = [
    "a\nb",
    "a\rb",
    "a\tb",
    "a\0b",
    "%2e%2e%2fx",
    "%",
    "a%0Ab",
    "é",
    "a\udcff",
    "\u2028",
    "x" * 129,
    "y" * 1400,
]
SHELL = ["$(touch x)", "`touch x`", "a;touch x", "a|x", "a b", "a'b", 'a"b', "*", "", "wake", ".web1.1", "web1.tmp"]
NAMES = (
    st.sampled_from(TRAVERSING + UNPRINTABLE + SHELL)
    | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
    | st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)
RAW_ADDRESSES = (
    st.ip_addresses().map(lambda address: address.packed)
    | st.sampled_from([bytes(4), bytes(16), b"\xe0\0\0\1", b"\xff" * 16, bytes(10) + b"\xff\xff\x0a\0\0\1", b"::1"])
    | st.binary(max_size=17)
)
WORDS = st.sampled_from(
    ["", "80", "0", "65535", "65536", "-1", "1e3", " 80", "080", "\uff18\uff10", "256", "257", "true", "TRUE"]
)
VALUES = WORDS | st.sampled_from(
    ["80\n    server evil 6.6.6.6:80", "80 backup", "80,port=22", "#", "${HOME}", '"', "\\"]
)
VALUES |= st.binary(max_size=8).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
TAGS = st.fixed_dictionaries(
    {"role": st.sampled_from(["web", "web", "api", "balancer", "", "WEB", "web "])},
    optional={"port": VALUES, "weight": VALUES, "drain": VALUES, "note": VALUES, "a,port": VALUES},
)
MEMBERS = st.tuples(NAMES, RAW_ADDRESSES, TAGS)


def list_tree(top: Path) -> dict[str, object]:
    """Return mode, inode, times, content and target of everything below a directory, except node files."""
    found: dict[str, object] = {}
    for directory, directories, files in os.walk(top):
        for name in [*directories, *files]:
            path = os.path.join(directory, name)
            if os.path.dirname(path) == str(top / "run" / "nodes"):
                continue
            is_nodes = path == str(top / "run" / "nodes")  # its times change with its node files
            status = os.lstat(path)
            content = Path(path).read_bytes() if os.path.isfile(path) and not os.path.islink(path) else b""
            target = os.readlink(path) if os.path.islink(path) else ""
            times = () if is_nodes else (status.st_mtime_ns, status.st_ctime_ns)
            found[path] = (status.st_mode, status.st_ino, times, content, target)
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a node directory deep inside it, surrounded by files that a traversal could reach."""
    top = tmp_path_factory.mktemp("tree")
    for path in ("run/nodes", "run/a", "run/outside", "outside", "run/home"):
        (top / path).mkdir(parents=True)
    for path in ("x", "outside/precious", "run/x", "run/outside/precious", "run/a/b", "run/home/x"):
        (top / path).write_text("precious")
    (top / "run" / "link").symlink_to("outside")
    return top


KINDS = st.sampled_from([*STATUS_OF_EVENT, "user", "query", "member-join"]).map(str.encode) | st.binary(max_size=20)
LINES = st.builds(
    "{}\t{}\tweb\tport={},role=web".format, NAMES, st.sampled_from(["10.0.0.1", "::1", "", "x"]) | VALUES, VALUES
).map(lambda line: line.encode("utf-8", "surrogateescape"))
VARIABLES = st.sampled_from(["SERF_TAG_PORT", "SERF_USER_EVENT", "SERF_SELF_NAME", "TMPDIR"])
ENVIRONS = st.dictionaries(VARIABLES, st.binary().map(lambda value: value.replace(b"\0", b"")))


@settings(max_examples=60, suppress_health_check=SHARED)
@given(st.data(), KINDS.map(lambda kind: kind.replace(b"\0", b"")), ENVIRONS)
def test_handler_writes_only_node_files(
    handler: Path, tree: Path, data: st.DataObject, kind: bytes, environ: dict[str, bytes]
) -> None:
    """For any event, members, payload and environment, the handler writes only node files."""
    nodes_dir = tree / "run" / "nodes"
    there = [f"{tree}/x\t::1\t\t\n{nodes_dir}/../x\t::1\t\t".encode()]
    payload = b"\n".join(data.draw(st.lists(LINES, max_size=4)) + there + data.draw(st.lists(st.binary(), max_size=2)))
    environ = environ | {
        "SERF_EVENT": kind,
        "SERF_HAPROXY_NODES_DIR": os.fsencode(nodes_dir),
        "SERF_HAPROXY_WAKE_FIFO": os.fsencode(tree / "run" / "no-wake"),
        "HOME": os.fsencode(tree / "run" / "home"),
    }
    before = list_tree(tree)
    try:
        completed = subprocess.run(
            [handler], input=payload, env=environ, cwd=tree / "run" / "a", capture_output=True, check=False
        )
        assert list_tree(tree) == before
        assert (completed.returncode, completed.stdout) == (100, b"")  # for the two invalid members of every payload
        for line in completed.stderr.decode("ascii").splitlines():
            assert line.startswith("member_event: ")
            assert_printable(line)
        written, strays = nodes.load(str(nodes_dir))
        assert strays == []
        assert not written or kind.decode() in STATUS_OF_EVENT
        raw_names = {raw.split(b"\t")[0] for raw in payload.split(b"\n")}
        assert {name.encode() for name in written} <= raw_names
        assert all(name_fault(name) is None for name in written)
    finally:
        for entry in os.scandir(nodes_dir):
            os.unlink(entry)


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=30).filter(lambda name: not set(name) & {0, 0x2F} and name not in (b".", b".."))
        | st.sampled_from([b"web1", b"web2", b".web1.77", b"-rf", b"x" * 200]),
        st.binary(max_size=60)
        | st.builds(
            lambda *fields: b"\t".join(fields) + b"\n",
            st.sampled_from([b"alive", b"left", b"failed", b"gone", b""]),
            st.sampled_from([b"web1", b"web2", b"web3"]),
            st.sampled_from([b"10.0.0.1", b"%31", b"::1", b"fe80::1%251"]) | st.binary(max_size=10),
            st.binary(max_size=5),
            st.sampled_from([b"", b"port=80", b"port=80,port=81", b"%=%,,="]) | st.binary(max_size=10),
        ),
        max_size=6,
    )
)
def test_node_directory_of_any_content(found: dict[bytes, bytes]) -> None:
    """Any file in the node directory is a node file or a stray with a reason, and gives valid servers."""
    with tempfile.TemporaryDirectory() as directory:
        for name, content in found.items():
            with open(os.path.join(os.fsencode(directory), name), "wb") as file:
                file.write(content)
        files, strays = nodes.load(directory)
        assert sorted(os.listdir(os.fsencode(directory))) == sorted(found)
    listed = {os.fsencode(name) for name in files} | {os.fsencode(stray.name) for stray in strays}
    assert listed <= found.keys()
    for stray in strays:
        assert_printable(stray.reason)
    pool = build(files, RULES)
    for server in pool.servers:
        assert str(ipaddress.ip_address(server.address)) == server.address
        assert 1 <= server.port <= 65535
    for reason in pool.quarantined.values():
        assert_printable(reason)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=20)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1))
    | NAMES.map(lambda name: name.encode("utf-8", "surrogateescape"))
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {
        "Name": NAMES.map(lambda name: name.encode("utf-8", "surrogateescape")) | ANYTHING,
        "Addr": RAW_ADDRESSES | ANYTHING,
        "Status": st.sampled_from([b"alive", b"leaving", b"left", b"failed", b"none", b"\xff"]) | ANYTHING,
        "Tags": TAGS | ANYTHING,
    }
)
GOOD_ENTRIES = st.builds(lambda name, address, tags: member(name, address, **tags), NAMES, RAW_ADDRESSES, TAGS)
ROSTERS = st.lists(GOOD_ENTRIES, max_size=4) | st.lists(GOOD_ENTRIES | ENTRIES | ANYTHING, max_size=4) | ANYTHING
DEEP = b"\x81\xa7Members\x91\x84\xa4Name\xc4\x01a\xa4Addr\xc4\x04\x7f\0\0\1\xa6Status\xc4\x05alive\xa4Tags\x81\xa1k"


def pack(message: object) -> bytes:
    """Return a message in MessagePack, with bytes that need not be UTF-8."""
    return bytes(msgpack.packb(message, unicode_errors="surrogateescape"))


def recite(*answers: bytes) -> Talk:
    """Send the next answer for each command, then close the connection."""

    def talk(connection: socket.socket) -> None:
        unpacker = msgpack.Unpacker()
        left = list(answers)
        while left and (data := connection.recv(65536)):
            unpacker.feed(data)
            for message in unpacker:
                if "Command" in message and left:
                    connection.sendall(left.pop(0))
        connection.shutdown(socket.SHUT_WR)

    return talk


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[Settings]:
    """Yield settings for an RPC port that sends these answers after that of the handshake."""
    with serving_tcp(recite(say(header(1)), *answers)) as rpc:
        yield Settings().replace(rpc_addr=rpc)


@settings(max_examples=120, suppress_health_check=SHARED)
@given(
    ROSTERS.map(lambda listed: pack({"Members": listed})) | ANYTHING.map(pack) | st.binary(max_size=60),
    st.just({"agent": {"name": "lb"}})
    | st.fixed_dictionaries({"agent": st.fixed_dictionaries({"name": SCALARS})})
    | ANYTHING,
    st.just("") | NAMES,
    st.integers(0, 40) | st.just(0),
)
@example(DEEP + b"\x91" * 1000 + b"\xc0", {"agent": {"name": "lb"}}, "", 0)
@example(DEEP + b"\x91" * 100_000, {"agent": {"name": "lb"}}, "", 0)
@example(b"\x81\xa7Members\xdd\xff\xff\xff\xff", {"agent": {"name": "lb"}}, "", 0)
@example(
    pack({"Members": [member("n" * 5_000_000, k="v" * 5_000_000), member("web1")]}), {"agent": {"name": "lb"}}, "", 0
)
@example(b"", {"agent": {"name": "lb"}}, "not\ntoday\x1b[2J\udcff", 0)
def test_roster_of_any_content(answer: bytes, stats: Any, error: str, cut_bytes: int) -> None:
    """Any answer is an error of one printable line, or members that can be stored and judged."""
    members_answer = say(header(3, error)) + answer
    members_answer = members_answer[: len(members_answer) - cut_bytes]
    with answering(say(header(2)) + pack(stats), members_answer) as settings_:
        connection = Connection(find_serf(settings_))
        try:
            roster = connection.read_roster()
        except SerfFault as fault:
            assert connection.fileno() == -1
            assert_printable(str(fault))
            return
        finally:
            connection.close()
    for name, (status, listed) in roster.members.items():
        assert name == listed.name
        assert_storable(status, listed)
    for name, reason in roster.refused:
        assert_printable(name + reason)
    assert_judgeable(roster)


@settings(max_examples=120, suppress_health_check=SHARED)
@given(st.lists(ENTRIES | ANYTHING, max_size=4), st.lists(GOOD_ENTRIES, max_size=3))
def test_no_entry_hides_another(odd: list[Any], good: list[Any]) -> None:
    """In a valid answer each map is judged alone: well-formed members are listed, whatever the others are.

    An answer with an entry that is no map of text is no list of members, and is an error.
    """
    web1 = member("web1", role="web")
    stats = say(header(2), {"agent": {"name": "lb"}})
    with answering(stats, say(header(3)) + pack({"Members": [*odd, *good, web1]})) as settings_:
        connection = Connection(find_serf(settings_))
        try:
            roster = connection.read_roster()
        except SerfFault:
            assert not all(is_map(pack(entry)) for entry in odd)
            return
        finally:
            connection.close()
    assert all(is_map(pack(entry)) for entry in odd)
    names = {entry["Name"] for entry in good if name_fault(entry["Name"]) is None}
    assert {"web1", *names} <= roster.members.keys()
    assert_judgeable(roster)


def assert_judgeable(roster: Roster) -> None:
    """Assert that the pool accepts any members, and that quarantined members have a reason."""
    pool = build({name: NodeFile(status, listed, 0) for name, (status, listed) in roster.members.items()}, RULES)
    for reason in pool.quarantined.values():
        assert_printable(reason)


@settings(max_examples=60, suppress_health_check=SHARED)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "Log": ANYTHING
                | NAMES.map(lambda name: f"[INFO] serf: EventMemberJoin: {name} ::1".encode("utf-8", "surrogateescape"))
            }
        )
        | ANYTHING,
        max_size=6,
    ),
    st.binary(max_size=20),
)
@example([{"Log": []}], b"")
@example([{"Log": 1}], b"")
def test_log_of_any_content(messages: list[Any], rubbish: bytes) -> None:
    """Any log message is a hint, no hint, or an error of one printable line that closes the connection."""
    with answering(say(header(2)) + b"".join(map(pack, messages)) + rubbish) as settings_:
        monitor = Monitor(find_serf(settings_))
        try:
            with pytest.raises(SerfFault) as caught:
                read_until_error(monitor)
            assert_printable(str(caught.value))
            assert monitor.fileno() == -1
        finally:
            monitor.close()


def read_until_error(monitor: Monitor) -> None:
    """Read hints until the other end closes the connection, which is an error."""
    while True:
        select.select([monitor], [], [], HANG_S)
        assert isinstance(monitor.read_hint(), frozenset)


def expect_server(name: str, raw_address: bytes, tags: dict[str, str]) -> str | None:
    """Return the server line of a roster's member, None for none; computed independently of the product."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name, re.ASCII) or name == RULES.self_name:
        return None
    if tags["role"] not in RULES.roles or len(raw_address) not in (4, 16):
        return None
    address = ipaddress.ip_address(raw_address)
    address = getattr(address, "ipv4_mapped", None) or address
    if int(address) == 0 or address.is_multicast or is_special(address.packed):
        return None
    wanted = {"port": (1, 65535, str(RULES.default_port)), "weight": (0, 256, "")}
    said = {key: tags.get(key, default) for key, (_, _, default) in wanted.items()}
    for key, (low, high, _) in wanted.items():
        if key in tags and not (re.fullmatch("[0-9]{1,5}", said[key], re.ASCII) and low <= int(said[key]) <= high):
            return None
    if tags.get("drain", "false") not in ("true", "false"):
        return None
    weight = "0" if tags.get("drain") == "true" else said["weight"]
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"    server {name} {host}:{int(said['port'])}" + (f" weight {int(weight)}" if weight else "")


def is_special(packed: bytes) -> bool:
    """Return whether an address, or the IPv4 address embedded in it, is never a server's."""
    if len(packed) == 4:
        is_metadata = packed in (bytes([100, 100, 100, 200]), bytes([168, 63, 129, 16])) or packed[:3] == b"\xc0\0\0"
        return packed[0] == 0 or packed[0] >= 240 or packed[:2] == b"\xa9\xfe" or is_metadata
    is_link_local = packed[0] == 0xFE and packed[1] & 0xC0 == 0x80
    is_old = packed[:12] == bytes(12) and packed[12:] != b"\0\0\0\1"
    is_old = is_old or packed[:6] == bytes.fromhex("0064ff9b0001")
    is_old = is_old or packed.hex() in ("fd000ec2" + "0" * 20 + "0254", "fd2000ce" + "0" * 20 + "0254")
    is_translated = packed[:12] == bytes.fromhex("0064ff9b0000000000000000") and is_special(packed[12:])
    return is_link_local or is_old or is_translated or (packed[:2] == b"\x20\x02" and is_special(packed[2:6]))


def check_configuration(directory: Path, evidence: dict[str, NodeFile]) -> list[str]:
    """Render the servers of node files, let HAProxy check the result, and return the server lines without ids."""
    config = Settings().replace(config_path=str(directory / "haproxy.cfg"), haproxy_bin=HAPROXY)
    rendered = probe.render(config, build(evidence, RULES).servers)
    assert probe.check(config, rendered.text) is None
    listed = [line for line in rendered.text.split("\n") if line.split()[:1] == ["server"]]
    assert "server newest " in listed.pop(0)  # the way from an old worker to the newest one
    lines = [line.rpartition(" id ") for line in listed]
    assert len({number for _, _, number in lines}) == len(lines)
    return [line for line, _, _ in lines]


@settings(max_examples=30, suppress_health_check=SHARED)
@given(st.lists(MEMBERS, min_size=10, max_size=50, unique_by=lambda listed: listed[0]))
def test_haproxy_gets_the_well_formed_members_of_a_roster(tmp_path: Path, listed: list) -> None:
    """HAProxy accepts the configuration of any roster, and its servers are exactly the valid members."""
    evidence = {
        name: NodeFile(
            ALIVE, make_member(name, str(ipaddress.ip_address(raw)) if len(raw) in (4, 16) else raw.hex(), tags), 0
        )
        for name, raw, tags in listed
        if name_fault(name) is None
    }
    lines = check_configuration(tmp_path, evidence)
    expected = [line for line in (expect_server(*fields) for fields in listed) if line]
    assert sorted(lines) == sorted(expected)


@settings(max_examples=30, suppress_health_check=SHARED)
@given(st.lists(st.tuples(NAMES, VALUES | st.ip_addresses().map(str), TAGS), min_size=10, max_size=50))
def test_haproxy_gets_nothing_else_from_an_event(tmp_path: Path, listed: list) -> None:
    """HAProxy accepts the configuration of any event, and each server comes from one line of standard input."""
    raw_lines = [
        "\t".join((name, address, tags["role"], ",".join(f"{key}={value}" for key, value in tags.items())))
        for name, address, tags in listed
    ]
    payload = "\n".join(raw_lines).encode("utf-8", "surrogateescape")
    event = read_event("member-join", payload)
    lines = check_configuration(tmp_path, {said.name: NodeFile(ALIVE, said, 0) for said in event.members})
    assert set(lines) <= {line for raw in payload.split(b"\n") for line in expect_lines(raw)}
    assert len({line.split()[1] for line in lines}) == len(lines)

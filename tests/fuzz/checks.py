"""Properties of each parser for any input, for the fuzzer and the replay of its corpus.

A check passes any bytes to the real code and fails when a property does not hold. The code may raise the documented
exceptions; any other exception is a finding.
"""

import contextlib
import ipaddress
import os
import re
import socket
import tempfile
from collections.abc import Callable
from unittest import mock

import msgpack

from decisions import build
from fakes.serf_rpc import header, say
from fakes.serf_rpc import member as list_member
from serf_haproxy.config.diff import diff
from serf_haproxy.config.fingerprint import description_of, strip
from serf_haproxy.config.parse import Line, Parser
from serf_haproxy.config.render import Compiler, Config, Source, fill_in, finish
from serf_haproxy.config.state_file import format_state
from serf_haproxy.control.rendering import BUILT_IN_TEMPLATE
from serf_haproxy.errors import HaproxyFault, InputError, SerfFault
from serf_haproxy.haproxy import runtime
from serf_haproxy.haproxy.stat import read_stat
from serf_haproxy.policy import order_wire, orders
from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import State
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf import nodes
from serf_haproxy.serf.events import (
    ALIVE,
    LEAVING,
    LINE_BYTES,
    STATUS_OF_EVENT,
    STATUSES,
    Member,
    format_line,
    name_fault,
    parse_line,
    read_event,
    say_the_same,
)
from serf_haproxy.serf.listing import Listing
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.serf.printing import printable
from serf_haproxy.serf.rpc import Connection
from serf_haproxy.serf.wire import Wire
from serf_haproxy.services import NAME
from serf_haproxy.settings import Settings

SETTINGS = Settings()
# They remember from case to case, as those of the daemon do: compiling the template would take most of the time.
COMPILER, PARSER = Compiler(), Parser()
TO_SUCCESSOR = f'    server newest "unix@{SETTINGS.successor_socket}" send-proxy-v2'
RULES = Rules(SETTINGS.default_port)
SERVICES = ("nodes", "a", "shop")
FURTHER_RULES = tuple(RULES._replace(are_named=True, service=service) for service in SERVICES[1:])
ORDERS_MS = 1_795_662_000_000  # when orders are read
KINDS = (*STATUS_OF_EVENT, "user", "query", "", None)
ENTRY = ("Name", "Status", "Addr")
COMMAND = re.compile(r"[A-Za-z0-9_.:/\[\],=+%@ -]+")
with open(BUILT_IN_TEMPLATE, encoding="utf-8") as template_file:
    TEMPLATE = template_file.read()


def check_events(data: bytes) -> None:
    """Parse an event: the first byte selects the kind, the rest is standard input."""
    kind, payload = KINDS[data[0] % len(KINDS)] if data else None, data[1:]
    try:
        event = read_event(kind, payload)
    except InputError as error:
        assert_printable(str(error))
        return
    raw_names = [line.split(b"\t")[0] for line in payload.split(b"\n") if line]
    assert len(event.members) + len(event.refused) == len(raw_names)
    for member in event.members:
        assert member.name.encode("ascii") in raw_names
        assert_storable(ALIVE, member)
    for reason in event.refused:
        assert_printable(reason)


def check_nodes(data: bytes) -> None:
    """Load a node file, and decide from it in one service and in several."""
    directory = _nodes_dir()
    path = os.path.join(directory, "web1")
    with open(path, "wb") as file:
        file.write(data)
    files, strays = nodes.load(directory)
    assert len(files) + len(strays) == 1
    for stray in strays:
        assert_printable(stray.reason)
    say_the_same(format_line(ALIVE, Member("web1", "127.0.1.1", "", ("a=1%2C2",))), decode(data))
    for file in files.values():
        assert format_line(file.status, file.member) == decode(data)
        file.member.tags_are_certain()
    pool = build(files, RULES)
    assert {server.name for server in pool.servers} | pool.quarantined.keys() <= {"web1"}
    for reason in pool.quarantined.values():
        assert_printable(reason)
    decision = decide(Snapshot(0, RULES._replace(are_named=True), files, further_rules=FURTHER_RULES))
    assert {(server.service in SERVICES, server.name) for server in decision.servers} <= {(True, "web1")}
    for (service, _), entry in decision.entries.items():
        assert NAME.fullmatch(service)
        assert_printable(entry.reason)


def check_roster(data: bytes) -> None:
    """Answer the RPC client with any bytes: the first byte selects how much of the answer is valid.

    In a valid answer, the rest is one entry among good ones, which it must not affect; or the fields of members, five
    each and separated by NUL, so that the fuzzer reaches them without learning MessagePack.
    """
    depth, answer = (data[0] % 5, data[1:]) if data else (0, b"")
    proper = [b"", say(header(1)), *[say(header(1), {"agent": {"name": "lb"}}, header(2))] * 3][depth]
    if depth == 4:
        answer = b"\x81\xa7Members\x93" + say(list_member("web1")) + answer + say(list_member("web2"))
    if depth == 3:
        fields = answer.split(b"\0")
        rows = zip(*[iter(fields)] * 5, strict=False)
        answer = say({"Members": [dict(zip(ENTRY, row[:3], strict=True), Tags={row[3]: row[4]}) for row in rows]})
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(proper + answer)
        theirs.shutdown(socket.SHUT_WR)
        connection = _connect(ours)
        try:
            roster = connection.read_roster()
        except SerfFault as error:
            assert connection.fileno() == -1
            assert_printable(str(error))
            assert depth < 3 or not is_map(answer if depth == 3 else data[1:])
            return
        finally:
            connection.close()
    assert depth < 4 or not is_map(data[1:]) or {"web1", "web2"} <= roster.members.keys()
    for name, (status, member) in roster.members.items():
        assert name == member.name
        assert status in STATUSES
        assert_storable(status, member)
    for name, reason in roster.refused:
        assert_printable(name + reason)


def check_render(data: bytes) -> None:
    """Render a join event: each server line comes from a member that an independent parser accepts."""
    with contextlib.suppress(InputError):
        event = read_event("member-join", data)
        pool = build({member.name: NodeFile(ALIVE, member, 0) for member in event.members}, RULES)
        text = fill_in(Source(TEMPLATE, BUILT_IN_TEMPLATE), pool.servers, SETTINGS, (), COMPILER)
        rendered = finish(text, pool.servers, PARSER)
        lines = [line for line in rendered.text.split("\n") if line.split(maxsplit=1)[:1] == ["server"]]
        lines.remove(TO_SUCCESSOR)
        assert len(lines) == len(pool.servers)
        assert len({line.rpartition(" id ")[2] for line in lines}) == len(lines)
        lines = [line.rpartition(" id ")[0] for line in lines]
        assert set(lines) <= {line for raw in data.split(b"\n") for line in expect_lines(raw)}
        assert len({line.split()[1] for line in lines}) == len(lines)
        seen = {(key[1], line.endpoint, line.weight) for key, line in rendered.layout.servers.items()}
        assert seen == {
            (server.name, server.endpoint, 1 if server.weight is None else server.weight) for server in pool.servers
        }
        assert description_of(rendered.text) == rendered.description
        assert Parser().read(strip(rendered.text)) == rendered.layout


def check_layout(data: bytes) -> None:
    """Parse any text as a configuration: the resulting runtime commands contain only safe characters."""
    text = decode(data)
    layout = Parser().read(text)
    assert {section for section, _ in layout.servers} <= layout.sections
    assert Parser().read(text + "\n# a remark\n\n") == layout
    lines = [line.strip() for line in text.split("\n")]  # HAProxy knows no other line end
    said = {tuple(line.split()[1:3]) for line in lines if line.split()[:1] == ["server"]}
    assert {(name, server.endpoint) for (_, name), server in layout.servers.items()} <= said
    assert not layout.servers or not any(line.startswith(".") for line in lines), "only HAProxy can evaluate .if"
    commands = diff(layout, Parser().read(""), {}).commands
    for command in commands:
        assert COMMAND.fullmatch(command), command
    names = {("nodes", line.split()[1].strip("\"'")): True for line in lines if len(line.split()) > 1}
    state = format_state(Config(text, "", layout), names, {}, "# header").split("\n")
    assert len(state) <= 3 + len(lines)
    assert all(len(line.split(" ")) == 25 for line in state[2:-1])
    for line in layout.servers.values():
        assert isinstance(line, Line)
        assert line.weight >= 0
    description_of(text)
    Parser().read(strip(text))


def check_haproxy(data: bytes) -> None:
    """Read what HAProxy says of its servers: the first byte selects the kind of answer."""
    text = data[1:].decode("utf-8", "replace")
    if data[:1] < b"\x80":
        check_stat(text)
    else:
        check_servers_state(text)


def check_stat(text: str) -> None:
    """Read `show stat`: what is shown of it is printable."""
    try:
        rows = read_stat(text)
    except HaproxyFault as error:
        assert_printable(str(error))
        return
    for (section, name), row in rows.items():
        assert name
        assert section is not None
        assert row.status
        assert not row.text or row.text.isprintable()
        assert printable(row.explain_check()).isascii()


def check_servers_state(text: str) -> None:
    """Read `show servers state` and `show servers conn`, as the answer of a worker that is asked for both."""
    asked = []

    def answer(_path: str, command: str, _timeout_s: float) -> str:
        asked.append(command)
        return f"Name: HAProxy\nPid: 7\ndescription: x\n\n{text}"

    with mock.patch.object(runtime, "ask", answer):
        running = runtime.Runtime("a", "b").read_running()
        again = runtime.Runtime("a", "b").read_running(running)
    assert 2 <= len(asked) <= 12
    for found in (running, again):
        assert found is not None
        for (section, name), seen in (found.servers or {}).items():
            assert " " not in section + name
            assert seen.line in text
            assert seen.endpoint.rpartition(":")[2] in seen.line
    if running and running.servers and again and again.servers is not None:
        assert running.servers.keys() == again.servers.keys()


def check_orders(data: bytes) -> None:
    """Read the body of an unsigned message of another balancer, and obey it: what is read is safe, and comes back."""
    try:
        message = order_wire.decode(b"- " + data, (), ORDERS_MS)
    except ValueError as error:
        assert_printable(str(error))
        return
    for order in message.orders:
        assert not order.node or not name_fault(order.node)
        assert not order.service or NAME.fullmatch(order.service)
        assert (order.verb, order.mode) in orders.FORMS
        assert_printable(printable(orders.explain(order)))
    assert order_wire.decode(order_wire.encode(message, ()), (), ORDERS_MS) == message
    active = orders.list_active(orders.merge({}, message.orders, ORDERS_MS), ORDERS_MS)
    member = Member("web1", "10.0.0.1", "", ("port=8080",))
    snapshot = Snapshot(ORDERS_MS * 10**6, RULES, {"web1": NodeFile(ALIVE, member, 0)}, orders=active)
    order = active.find(("nodes", "web1"))
    states = {None: State.SERVING, orders.DRAIN: State.DRAINING, orders.STOP: State.STOPPED}
    assert decide(snapshot).entries["nodes", "web1"].state is states[order and order.mode]


CHECKS: dict[str, Callable[[bytes], None]] = {
    "events": check_events,
    "nodes": check_nodes,
    "roster": check_roster,
    "render": check_render,
    "layout": check_layout,
    "haproxy": check_haproxy,
    "orders": check_orders,
}


def assert_printable(text: str) -> None:
    """Assert that a text is one line that is safe for terminals and logs."""
    assert text, "a reason is not empty"
    assert text.isprintable(), ascii(text)
    text.encode("utf-8")


def assert_storable(status: str, member: Member) -> None:
    """Assert that a member's name is a safe file name, and that its node file is read back unchanged."""
    assert name_fault(member.name) is None
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", member.name, re.ASCII)
    line = format_line(status, member)
    assert len(format_line(LEAVING, member).encode("utf-8")) <= LINE_BYTES
    read_status, read_member = parse_line(line)
    assert (read_status, format_line(read_status, read_member)) == (status, line)
    assert read_member.tag_values() == member.tag_values()
    assert read_member.tags_are_certain() is member.tags_are_certain()
    assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in line.replace("\t", "")[:-1])
    assert say_the_same(line, line)


def expect_lines(raw: bytes) -> set[str]:
    """Return the server lines, without ids, that one line of standard input may produce, independently of the product.

    Any occurrence of a repeated tag may be used; this check does not say which.
    """
    fields = decode(raw).split("\t")
    if len(fields) != 4 or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fields[0], re.ASCII):
        return set()
    try:
        address = ipaddress.ip_address(fields[1])
    except ValueError:
        return set()
    address = getattr(address, "ipv4_mapped", None) or address
    host = f"[{address}]" if address.version == 6 else str(address)
    pieces = fields[3].split(",")
    ports = {int(piece[5:]) for piece in pieces if re.fullmatch("port=[0-9]{1,5}", piece, re.ASCII)}
    weights = {int(piece[7:]) for piece in pieces if re.fullmatch("weight=[0-9]{1,5}", piece, re.ASCII)}
    endings = {f" weight {weight}" for weight in weights} | ({" weight 0"} if "drain=true" in pieces else set())
    ports |= {SETTINGS.default_port} if not any(piece.startswith("port=") for piece in pieces) else set()
    endings |= {""} if not any(piece.startswith("weight=") for piece in pieces) else set()
    return {f"    server {fields[0]} {host}:{port}{ending}" for port in ports for ending in endings}


def decode(data: bytes) -> str:
    """Decode bytes as the product does."""
    return data.decode("utf-8", "surrogateescape")


def is_map(data: bytes) -> bool:
    """Return whether data is one map, as an entry of a list of members must be."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        return isinstance(msgpack.unpackb(data, raw=True, strict_map_key=True), dict)
    return False


def _connect(ours: socket.socket) -> Connection:
    """Return a connection after its handshake; the other end has already sent everything."""
    connection = Connection.__new__(Connection)
    connection._timeout_s, connection._name, connection._seq = 5.0, "127.0.0.1:7373", 0
    connection._socket, connection._listing, connection._wire = ours, Listing(), Wire(ours, connection._name)
    return connection


_made: list[tempfile.TemporaryDirectory[str]] = []


def _nodes_dir() -> str:
    """Return the node directory of this process."""
    if not _made:
        _made.append(tempfile.TemporaryDirectory(prefix="serf-haproxy-fuzz-"))
    return _made[0].name

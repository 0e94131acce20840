"""The client of Serf's RPC, with real Serf agents, serfclient as a reference, and misbehaving servers."""

import ipaddress
import json
import resource
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from serfclient.client import SerfClient

from fakes.gossip import say_alive
from fakes.serf_rpc import Answer, header, member, pour_log, say, speak
from fakes.servers import Talk, be_silent, close_at_once, drip, pour, serving_tcp
from serf_haproxy.errors import SerfFault
from serf_haproxy.serf.events import ALIVE, FAILED, LEAVING, LEFT, LINE_BYTES
from serf_haproxy.serf.hints import Monitor
from serf_haproxy.serf.roster import Roster
from serf_haproxy.serf.rpc import Connection, RpcAddress

pytestmark = pytest.mark.usefixtures("time_limit")

KEY = "correct horse battery staple"
LIMIT_S = 0.4
GRACE_S = 5.0  # tolerance for a busy machine


class Cluster(NamedTuple):
    """The RPC address of a Serf agent that knows all members, and the members' hosts by name."""

    rpc: tuple[str, int]
    hosts: dict[str, str]


@pytest.fixture(scope="module")
def cluster(start_serf: Callable, tmp_path_factory: pytest.TempPathFactory, wait_until: Callable) -> Cluster:
    """Return a real cluster with ordinary members, one without tags, hostile ones, and one that left."""
    config_dir = tmp_path_factory.mktemp("config")

    def tags(**values: str) -> str:
        path = config_dir / f"{len(list(config_dir.iterdir()))}.json"
        path.write_text(json.dumps({"tags": values}))
        return f"-config-file={path}"

    balancer = start_serf("lb", "-tag=role=lb")
    join = f"-join={balancer.gossip}"
    # The member that leaves joins first: in a cluster of two, its leave message cannot be lost.
    gone = start_serf("web-gone", join, tags(role="web"))
    wait_until(lambda: "web-gone" in ask(balancer.rpc).members, "join of web-gone")
    gone.leave()
    wait_until(lambda: ask(balancer.rpc).members["web-gone"][0] == LEFT, "leave of web-gone")
    agents = {
        "lb": balancer,
        "web-gone": gone,
        "web1": start_serf("web1", join, tags(role="web", port="8080", weight="50")),
        "web2": start_serf("web2", join, tags(role="web", note="é % x")),
        "web-bare": start_serf("web-bare", join),
        "w-comma": start_serf("w-comma", join, tags(role="web", v="1,role=lb,port=22")),
        "w-nul": start_serf("w-nul", join, tags(k="a\0b\tc\nd")),
        "w-utf8": start_serf("w-utf8", join, b"-tag=t=\xff\xfe"),
        "../w": start_serf("../w", join, tags(role="web")),
    }
    found = Cluster(balancer.rpc, {name: agent.rpc[0] for name, agent in agents.items()})
    wait_until(lambda: len(ask(found.rpc).members) == len(agents) - 1, "whole cluster")
    return found


def connect(rpc: tuple[str, int], auth_file: Path | None = None) -> Connection:
    """Connect with a short time limit."""
    return Connection(RpcAddress(*rpc, str(auth_file or ""), LIMIT_S))


def ask(rpc: tuple[str, int], auth_file: Path | None = None) -> Roster:
    """Return the roster of a Serf agent, read on a new connection with the default time limit."""
    connection = Connection(RpcAddress(*rpc, str(auth_file or "")))
    try:
        return connection.read_roster()
    finally:
        connection.close()


def test_members_are_listed_as_they_are(cluster: Cluster) -> None:
    """The roster of a real cluster has each member's status, address, role and tags, and the Serf agent's own name."""
    roster = ask(cluster.rpc)
    assert roster.self_name == "lb"
    assert {name: status for name, (status, _) in roster.members.items()} == {
        name: LEFT if name == "web-gone" else ALIVE for name in cluster.hosts if name != "../w"
    }
    for name, (_, found) in roster.members.items():
        assert (found.name, found.address) == (name, cluster.hosts[name])
    tags = {name: found.tag_values() for name, (_, found) in roster.members.items()}
    assert tags["web1"] == {"role": "web", "port": "8080", "weight": "50"}
    assert tags["web-bare"] == {}
    assert roster.members["web1"][1].role == "web"


def test_hostile_tags_are_harmless(cluster: Cluster) -> None:
    """Commas, bytes that are not UTF-8 and control characters in a tag neither forge tags nor break the roster."""
    members = {name: found for name, (_, found) in ask(cluster.rpc).members.items()}
    assert members["w-comma"].tag_values() == {"role": "web", "v": "1,role=lb,port=22"}
    assert members["w-comma"].tags_are_certain()
    assert members["w-utf8"].tag_values() == {"t": "\udcff\udcfe"}
    assert members["w-utf8"].tags == ("t=%FF%FE",)
    assert members["w-nul"].tag_values() == {"k": "a\0b\\tc\\nd"}


def test_hostile_name_is_refused_alone(cluster: Cluster) -> None:
    """A member with an unsafe name is refused with a reason, and the others are listed."""
    ((name, reason),) = ask(cluster.rpc).refused
    assert name == "../w"
    assert "does not start with an ASCII letter or digit" in reason


def test_serfclient_gives_the_same_result(cluster: Cluster) -> None:
    """An independent client reads the same names, addresses, states and tags of members without hostile tags."""
    client = SerfClient(*cluster.rpc)
    entries = client.members(name="web.*").body["Members"]
    client.connection.close()
    theirs = {
        entry["Name"]: (entry["Status"], str(ipaddress.ip_address(entry["Addr"])), entry["Tags"]) for entry in entries
    }
    ours = {
        name: (status, found.address, found.tag_values())
        for name, (status, found) in ask(cluster.rpc).members.items()
        if name.startswith("web")
    }
    assert ours == theirs
    assert len(ours) == 4


def test_connection_can_be_used_again(cluster: Cluster) -> None:
    """One connection can read several rosters, and can be closed more than once."""
    connection = connect(cluster.rpc)
    assert len({len(connection.read_roster().members) for _ in range(20)}) == 1
    connection.close()
    connection.close()


def test_the_time_of_a_roster_is_on_the_clock_of_files(cluster: Cluster, tmp_path: Path) -> None:
    """A file written before the roster was requested is not newer, and one written afterwards is not older."""
    (tmp_path / "before").write_text("")
    time.sleep(0.02)  # newer kernels set file times up to one tick ahead of the coarse clock
    roster = ask(cluster.rpc)
    (tmp_path / "after").write_text("")
    assert (tmp_path / "before").stat().st_mtime_ns <= roster.asked_ns <= (tmp_path / "after").stat().st_mtime_ns


@pytest.fixture(scope="module")
def locked_rpc(start_serf: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """Return the RPC address of a real Serf agent that requires a key."""
    path = tmp_path_factory.mktemp("auth") / "agent.json"
    path.write_text(json.dumps({"rpc_auth": KEY}))
    rpc: tuple[str, int] = start_serf("locked", f"-config-file={path}").rpc
    return rpc


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Return the path for a key file."""
    return tmp_path / "rpc_auth"


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", f"  {KEY}\r\n"])
def test_right_key_is_accepted(locked_rpc: tuple[str, int], key_file: Path, text: str) -> None:
    """A real Serf agent accepts the key from its file, with or without a line end."""
    key_file.write_text(text)
    assert ask(locked_rpc, key_file).self_name == "locked"


@pytest.mark.parametrize("key", [b"wrong horse", b"wrong\xff\xfe horse", KEY[:-1].encode()])
def test_wrong_key_is_an_error_without_the_key(locked_rpc: tuple[str, int], key_file: Path, key: bytes) -> None:
    """A wrong key is an error with Serf's message, and neither its text nor its traceback contains the key."""
    key_file.write_bytes(key)
    with pytest.raises(SerfFault, match="refused auth: Invalid authentication token") as caught:
        connect(locked_rpc, key_file)
    assert "horse" not in "".join(traceback.format_exception(caught.value))


def test_missing_key_is_an_error(locked_rpc: tuple[str, int]) -> None:
    """Without a key, a Serf agent that requires one refuses to list its members."""
    connection = connect(locked_rpc)
    with pytest.raises(SerfFault, match="refused stats: Authentication required"):
        connection.read_roster()
    assert connection.fileno() == -1


def test_unneeded_key_is_an_error(cluster: Cluster, key_file: Path) -> None:
    """A key for a Serf agent that requires none is an error with Serf's message."""
    key_file.write_text(KEY)
    with pytest.raises(SerfFault, match="refused auth: "):
        connect(cluster.rpc, key_file)


def test_commands_change_the_cluster(key_file: Path, start_serf: Callable) -> None:
    """A Serf agent with a key joins another, sets and deletes its tags, and leaves, at the word of our client."""
    key_file.write_text(KEY)
    config = key_file.with_name("agent.json")
    config.write_text(json.dumps({"rpc_auth": KEY}))
    agent = start_serf("changing", f"-config-file={config}", "-tag=old=1")
    connection = Connection(RpcAddress(*agent.rpc, str(key_file), GRACE_S))
    other = start_serf("peer")
    connection.join(["127.0.0.1:1", other.gossip])  # one that answers is enough
    assert set(connection.read_roster().members) == {"changing", "peer"}
    connection.change_tags({"svc.shop": "8080:w50", "note": "é ="}, ["old", "never"])
    members = connection.read_roster().members
    assert members["changing"][1].tag_values() == {"svc.shop": "8080:w50", "note": "é ="}
    connection.leave()
    assert agent.process.wait(15) == 0
    assert ask(other.rpc).members["changing"][0] == LEFT


def test_a_command_that_serf_refuses_is_an_error(cluster: Cluster) -> None:
    """Tags that are too large, and addresses of which none answers, are errors with Serf's message."""
    connection = Connection(RpcAddress(*cluster.rpc, timeout_s=GRACE_S))
    with pytest.raises(SerfFault, match="refused tags: .*exceeds"):
        connection.change_tags({"much": "x" * 600})
    assert connection.fileno() == -1
    connection = Connection(RpcAddress(*cluster.rpc, timeout_s=GRACE_S))
    with pytest.raises(SerfFault, match="refused join: "):
        connection.join(["127.0.0.1:1"])


def test_commands_without_the_key_are_refused(locked_rpc: tuple[str, int]) -> None:
    """A Serf agent that requires a key takes no command without it."""
    for command in (lambda one: one.leave(), lambda one: one.join(["127.0.0.1:1"]), lambda one: one.change_tags({})):
        with pytest.raises(SerfFault, match="Authentication required"):
            command(connect(locked_rpc))


@pytest.mark.parametrize("kind", ["missing", "empty", "blank", "directory"])
def test_unusable_key_file_is_an_error(locked_rpc: tuple[str, int], key_file: Path, kind: str) -> None:
    """A key file that is missing, empty or unreadable is a SerfFault that names the file."""
    if kind == "directory":
        key_file.mkdir()
    elif kind != "missing":
        key_file.write_text({"empty": "", "blank": " \n"}[kind])
    with pytest.raises(SerfFault, match=str(key_file)):
        connect(locked_rpc, key_file)


@pytest.mark.parametrize("rpc", [("127.0.0.1", 1), ("no-such-host.invalid", 7373), ("a..b", 7373), ("x" * 70, 7373)])
def test_unreachable_serf_agent_is_an_error(rpc: tuple[str, int]) -> None:
    """A closed port and an unknown host are errors that name the address."""
    with pytest.raises(SerfFault, match=f"Serf's RPC at {rpc[0]}:{rpc[1]} cannot be reached: "):
        Connection(RpcAddress(*rpc))


def then(connection_end: Talk, first: bytes) -> Talk:
    """Send these bytes, then continue with another behaviour."""

    def talk(connection: object) -> None:
        connection.sendall(first)  # type: ignore[attr-defined]
        connection_end(connection)  # type: ignore[arg-type]

    return talk


HALF = say(header(1))[:-3]


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        pytest.param(be_silent, f"gave no answer to handshake in {LIMIT_S:g} s", id="silent"),
        pytest.param(close_at_once, "broke off", id="closes at once"),
        pytest.param(then(be_silent, b"\xc1" * 100), "invalid MessagePack", id="garbage"),
        pytest.param(then(be_silent, b"HTTP/1.1 400 Bad Request\r\n"), "sent int, not a map", id="web server"),
        pytest.param(then(be_silent, HALF), f"gave no answer to handshake in {LIMIT_S:g} s", id="half, then silent"),
        pytest.param(then(close_at_once, HALF), "broke off", id="half, then closed"),
        pytest.param(then(be_silent, say(header(2))), "answers out of order", id="wrong Seq"),
        pytest.param(then(be_silent, say({"Error": ""})), "answers out of order", id="no Seq"),
        pytest.param(then(be_silent, say({"Seq": 1})), "sent no bytes Error", id="no Error"),
        pytest.param(then(be_silent, say({"Seq": 1, "Error": 0})), "sent no bytes Error", id="Error is a number"),
        pytest.param(then(be_silent, say(header(1, "not today"))), "refused handshake: not today", id="Error"),
        pytest.param(then(be_silent, say([1, 2])), "sent list, not a map", id="list"),
        pytest.param(then(be_silent, say(None)), "sent NoneType, not a map", id="nothing"),
        pytest.param(then(be_silent, b"\x91" * 100_000), "invalid MessagePack", id="endless depth"),
        pytest.param(then(be_silent, b"\x81\x80\x00"), "invalid MessagePack", id="map as a key"),
        pytest.param(then(be_silent, b"\xdf\xff\xff\xff\xff"), "invalid MessagePack", id="map of 4 billion"),
        pytest.param(then(be_silent, b"\xc6\xff\xff\xff\xff"), "Serf's RPC at", id="4 GB"),
        pytest.param(then(drip, b"\xc6\x00\xff\xff\xff"), f"gave no answer to handshake in {LIMIT_S:g} s", id="drips"),
        pytest.param(pour, "sent int, not a map", id="endless stream"),
        pytest.param(then(pour, b"\xc6\x03\xff\xff\xff"), "Serf's RPC at", id="endless answer"),
    ],
)
def test_misbehaving_serf_agent_is_an_error(talk: Talk, words: str) -> None:
    """Any behaviour other than an answer to the handshake is an error within the time limit."""
    start_s = time.monotonic()
    with serving_tcp(talk) as rpc, pytest.raises(SerfFault, match=words) as caught:
        connect(rpc)
    assert time.monotonic() - start_s < LIMIT_S + GRACE_S
    assert "127.0.0.1" in str(caught.value) or "its protocol" in str(caught.value)


def body(answer: object) -> Answer:
    """Return an answer with a valid header and this body."""
    return lambda seq: say(header(seq), answer)


MEMBER = member("web1")


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param({"stats": lambda seq: say(header(seq, "no stats today"))}, id="stats refused"),
        pytest.param({"stats": lambda seq: say(header(seq))}, id="no stats"),
        pytest.param({"stats": body({})}, id="stats without agent"),
        pytest.param({"stats": body({"agent": {}})}, id="agent without name"),
        pytest.param({"stats": body([])}, id="stats are a list"),
        pytest.param({"members": lambda seq: say(header(seq, "no members today"))}, id="members refused"),
        pytest.param({"members": lambda seq: say(header(seq + 1), {"Members": []})}, id="wrong Seq"),
        pytest.param({"members": body({})}, id="no Members"),
        pytest.param({"members": body({"Members": None})}, id="Members are nothing"),
        pytest.param({"members": body({"Members": {}})}, id="Members are a map"),
        pytest.param({"members": lambda seq: say(header(seq), {"Members": [MEMBER]})[:-5]}, id="half the members"),
        pytest.param({"members": body({"Members": [MEMBER, None]})}, id="an entry is nothing"),
        pytest.param({"members": body({"Members": [MEMBER, [1]]})}, id="an entry is a list"),
        pytest.param({"members": body({"Members": [MEMBER | {"Tags": {1: "a"}}]})}, id="a key is a number"),
        pytest.param({"members": body({str(number): 1 for number in range(17)})}, id="too many keys"),
        pytest.param({"handshake": lambda seq: say(header(seq), header(seq))}, id="answers twice"),
    ],
)
def test_invalid_answer_is_an_error_and_closes(answers: dict[str, Answer]) -> None:
    """An answer that violates the protocol is an error within the time limit and closes the connection."""
    with serving_tcp(speak(answers)) as rpc:
        connection = connect(rpc)
        start_s = time.monotonic()
        with pytest.raises(SerfFault):
            connection.read_roster()
        assert time.monotonic() - start_s < LIMIT_S + GRACE_S
        assert connection.fileno() == -1


def list_raw(head: bytes, piece: bytes, size_bytes: int = 60_000_000) -> Answer:
    """Return an answer whose list of members is these bytes, the second of them repeated up to a size."""
    return lambda seq: say(header(seq)) + b"\x81\xa7Members" + head + piece * (size_bytes // len(piece))


BIG = b"\xa3abc\xc6\x00\x10\x00\x00" + bytes(2**20)
MANY, SMALL = b"\xdd\x00\x01\x86\xa0", b"\x81\xa1a\xc5\x08\x00" + bytes(2048)
NUMBERS = b"".join(b"\xcf" + (key * (2**61 - 1)).to_bytes(8, "big") + b"\xc0" for key in range(8))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(list_raw(b"\xdd\x03\x93\x87\x00", b"\xc0"), "60000000 members, more than", id="60 MB of nil"),
        pytest.param(list_raw(b"\xdd\x00\x01\x86\xa0", b"\xc0"), "NoneType where", id="nil"),
        pytest.param(list_raw(b"\xdd\x00\x01\x86\xa0", b"\x00"), "int where", id="numbers"),
        pytest.param(list_raw(b"\x91\xdd\x03\x93\x87\x00", b"\x80"), "invalid MessagePack", id="a list of maps"),
        pytest.param(list_raw(b"\x91\xdc\xff\xff", b"\x90"), "invalid MessagePack", id="lists in a list"),
        pytest.param(list_raw(b"\x91", b"\x92\x80"), "invalid MessagePack", id="lists in lists"),
        pytest.param(list_raw(b"\x91\xde\xff\xff", NUMBERS), "invalid MessagePack", id="keys with one hash"),
        pytest.param(list_raw(b"\x91\xde\xff\xff", BIG), "at once", id="big parts"),
        pytest.param(list_raw(MANY, SMALL, 80_000_000), "more than 67108864 bytes", id="80 MB"),
        pytest.param(list_raw(b"\xc0", b"\xc0"), "invalid MessagePack", id="no list"),
    ],
)
def test_a_huge_answer_is_an_error_at_once(answer: Answer, words: str) -> None:
    """Tens of megabytes of what are no members cost neither time nor memory."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serving_tcp(speak({"members": answer})) as rpc:
        connection = Connection(RpcAddress(*rpc))
        used_s = time.thread_time()
        with pytest.raises(SerfFault, match=words):
            connection.read_roster()
        assert time.thread_time() - used_s < 3
        assert connection.fileno() == -1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 400_000


def test_judging_the_members_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of members that takes too long to judge is an error, and the rest of it is not judged."""
    judged = []

    def judge_slowly(*_arguments: object) -> str:
        judged.append(time.sleep(0.1))
        return "too slow"

    monkeypatch.setattr("serf_haproxy.serf.listing.member_fault", judge_slowly)
    with serving_tcp(speak(None, *(member(f"web{number}") for number in range(1000)))) as rpc:
        connection = Connection(RpcAddress(*rpc, timeout_s=0.1))
        with pytest.raises(SerfFault, match="judging the members"):
            connection.read_roster()
    assert len(judged) < 10


def test_many_refused_members_are_counted(ask_for: Callable[..., Roster]) -> None:
    """Of very many refused members some have their reasons, and the others are counted."""
    roster = ask_for(member("web1"), *(member(f"../{number}") for number in range(5000)))
    assert list(roster.members) == ["web1"]
    assert len(roster.refused) == 1001
    assert roster.refused[-1][0] == "(4000 more)"


def test_a_member_with_very_many_tags_is_refused_alone(ask_for: Callable[..., Roster]) -> None:
    """A member whose forged tags are far more than Serf allows is refused before they are read."""
    roster = ask_for(member("odd", **{f"k{number}": "" for number in range(60_000)}), member("web1"))
    assert list(roster.members) == ["web1"]
    assert roster.refused == (("odd", "it has 60000 tags, whose line would take more than 4096 bytes"),)


@pytest.fixture
def ask_for() -> Callable[..., Roster]:
    """Return a function that reads a roster with these members."""

    def ask_fake(*members: dict[str, object]) -> Roster:
        with serving_tcp(speak(None, *members)) as rpc:
            return ask(rpc)

    return ask_fake


@pytest.mark.parametrize(
    ("odd", "shown", "reason"),
    [
        (MEMBER | {"Name": 1}, "(no name)", "it has int where Serf's protocol has Name"),
        (MEMBER | {"Name": None}, "(no name)", "it has NoneType where Serf's protocol has Name"),
        (MEMBER | {"Name": [[]]}, "(no name)", "it has list where Serf's protocol has Name"),
        (MEMBER | {"Status": None}, "web1", "it has NoneType where Serf's protocol has Status"),
        (MEMBER | {"Addr": 1}, "web1", "it has int where Serf's protocol has Addr"),
        (MEMBER | {"Tags": []}, "web1", "it has list where Serf's protocol has Tags"),
        (MEMBER | {"Tags": {"a": 1}}, "web1", "it has int where Serf's protocol has a tag"),
        (MEMBER | {"Name": "a\nb", "Tags": 1}, "a\\nb", "it has int where Serf's protocol has Tags"),
    ],
)
def test_invalid_entry_is_refused_alone(ask_for: Callable[..., Roster], odd: object, shown: str, reason: str) -> None:
    """An entry that violates the protocol is refused with a reason, and every other member is listed."""
    roster = ask_for(member("web0"), odd, member("web2"))
    assert list(roster.members) == ["web0", "web2"]
    assert roster.refused == ((shown, reason),)


def test_nil_tags_and_address_are_empty(ask_for: Callable[..., Roster]) -> None:
    """Nil tags are none, and a nil address is an empty one, which the pool quarantines."""
    roster = ask_for(MEMBER | {"Tags": None}, member("web2") | {"Addr": None})
    assert {name: (found.address, found.tags) for name, (_, found) in roster.members.items()} == {
        "web1": ("127.0.1.1", ()),
        "web2": ("", ()),
    }


@pytest.mark.parametrize(
    ("address", "tags"), [(b"\x7f\1\1\1", None), (b"", {"role": "web"}), (b"\x7f", None), (b"\x7f\1\1\1", 5)]
)
def test_a_forged_packet_hides_no_member(
    start_serf: Callable, wait_until: Callable, address: bytes, tags: object
) -> None:
    """A forged packet makes a real Serf agent list a member without tags or address; all others are still read."""
    agent = start_serf("lb", "-tag=role=lb")
    say_alive(agent.gossip, "web1", b"\x7f\0\1\1", {"role": "web"})
    say_alive(agent.gossip, "odd", address, tags)
    say_alive(agent.gossip, "web2", b"\x7f\0\1\2", {"role": "web"})
    wait_until(lambda: "web2" in ask(agent.rpc).members, "web2 in the roster")
    roster = ask(agent.rpc)
    assert roster.self_name == "lb"
    assert {"lb", "web1", "web2"} <= roster.members.keys() <= {"lb", "web1", "web2", "odd"}


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        (bytes([10, 1, 2, 3]), "10.1.2.3"),
        (bytes(10) + b"\xff\xff" + bytes([10, 1, 2, 3]), "10.1.2.3"),
        (bytes.fromhex("20010db8000000000000000000000001"), "2001:db8::1"),
        (b"", ""),
        (b"\x01\x02", "0102"),
    ],
)
def test_address_is_read_from_its_bytes(ask_for: Callable[..., Roster], raw: bytes, address: str) -> None:
    """4 or 16 bytes are an address; a mapped IPv4 address becomes IPv4; the pool quarantines anything else."""
    assert ask_for(member("web1", raw)).members["web1"][1].address == address


@pytest.mark.parametrize("status", [ALIVE, LEAVING, LEFT, FAILED])
def test_status_is_kept(ask_for: Callable[..., Roster], status: str) -> None:
    """Each of Serf's four states is read."""
    assert ask_for(member("web1", status=status)).members["web1"][0] == status


def test_member_without_a_state_is_left_out(ask_for: Callable[..., Roster]) -> None:
    """A member in any other state is not listed."""
    assert list(ask_for(member("web1", status="none"), MEMBER | {"Name": "web2"}).members) == ["web2"]


def test_empty_roster_is_a_roster(ask_for: Callable[..., Roster]) -> None:
    """An answer without members is an empty roster."""
    assert ask_for().members == {}


def test_ten_thousand_members_are_read(ask_for: Callable[..., Roster]) -> None:
    """The roster of a large cluster is read from one answer."""
    assert len(ask_for(*(member(f"web{number}", k="v" * 400) for number in range(10_000))).members) == 10_000


def test_member_too_large_for_a_node_file_is_refused(ask_for: Callable[..., Roster]) -> None:
    """A member too large for a node file is refused with a reason, and the others are listed."""
    roster = ask_for(member("huge", k="v" * LINE_BYTES), member("web1"))
    assert list(roster.members) == ["web1"]
    ((name, reason),) = roster.refused
    assert name == "huge"
    assert f"more than {LINE_BYTES} bytes" in reason


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\nb", "x" * 1400, "é", "a\udcff"])
def test_unsafe_name_is_refused(ask_for: Callable[..., Roster], name: str) -> None:
    """An unsafe name is refused and reported in a printable form."""
    roster = ask_for(member(name), member("web1"))
    assert list(roster.members) == ["web1"]
    ((shown, reason),) = roster.refused
    assert (shown + reason).isascii()
    assert (shown + reason).isprintable()


def test_the_end_of_the_serf_agent_makes_the_connection_readable(start_serf: Callable, wait_until: Callable) -> None:
    """When the Serf agent dies, the idle connection becomes readable and the next exchange is an error."""
    import select

    agent = start_serf("mortal")
    connection = connect(agent.rpc)
    connection.read_roster()
    assert select.select([connection], [], [], 0)[0] == []
    agent.process.kill()
    wait_until(lambda: select.select([connection], [], [], 0)[0], "end of the connection")
    with pytest.raises(SerfFault, match="broke off"):
        connection.read_roster()


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["[INFO] serf: EventMemberJoin: web1 127.0.1.1"], {"web1"}),
        (["[INFO] serf: EventMemberUpdate: web1"], {"web1"}),
        (["[INFO] serf: EventMemberUpdate: ../web1"], {""}),
        (["[INFO] serf: EventMemberUpdate:"], {""}),
        (["[DEBUG] serf: messageLeaveType: web1"], {"web1"}),
        (["[DEBUG] serf: messageLeaveType: web0"], set()),
        (["[DEBUG] serf: messageLeaveType: web0", "[DEBUG] serf: messageLeaveType: web1"], {"web1"}),
        (["[INFO] serf: EventMemberLeave: web9 127.0.1.9", "[DEBUG] serf: messageLeaveType: web0"], {"web9", "web0"}),
        (["[DEBUG] serf: messageJoinType: web1", "[DEBUG] memberlist: Stream connection from=127.0.0.1:1"], set()),
        ([], set()),
    ],
)
def test_hints_in_log_lines(wait_until: Callable, lines: list[str], names: set[str]) -> None:
    """A membership change and the first leave message of a member are hints; web0's was read before."""
    first, *rest = (
        say(header(2), {"Log": f"2026/01/01 00:00:00 {line}"})
        for line in ("[DEBUG] serf: messageLeaveType: web0", *lines, "[DEBUG] end")
    )
    is_first_read = threading.Event()

    def talk(connection: socket.socket) -> None:
        def answer(seq: int) -> bytes:
            connection.sendall(say(header(seq)) + first)
            is_first_read.wait(5)
            return b"".join(rest)

        speak({"monitor": answer})(connection)

    with serving_tcp(talk) as rpc:
        monitor = Monitor(RpcAddress(*rpc))
        wait_until(monitor.read_hint, "the hint at web0")
        is_first_read.set()
        assert select.select([monitor], [], [], 5)[0]
        assert monitor.read_hint() == names
        monitor.close()


LOG_LINE = say(header(2), {"Log": "[DEBUG] memberlist: Stream connection from=127.0.0.1:1"})


def test_a_log_without_end_is_read_in_parts() -> None:
    """`read_hint` returns, however much the Serf agent logs."""
    with serving_tcp(pour_log(LOG_LINE)) as rpc:
        monitor = Monitor(RpcAddress(*rpc))
        for _ in range(3):
            assert select.select([monitor], [], [], 5)[0]
            assert not monitor.read_hint()
        monitor.close()


@pytest.mark.parametrize("message", [b"x", say([]), b"\xc1"])
def test_invalid_log_messages_are_an_error(message: bytes) -> None:
    """Messages of the log that are not maps are an error and close the connection."""
    with serving_tcp(pour_log(message)) as rpc:
        monitor = Monitor(RpcAddress(*rpc))
        assert select.select([monitor], [], [], 5)[0]
        with pytest.raises(SerfFault):
            monitor.read_hint()
        assert monitor.fileno() == -1


def test_a_few_members_are_asked_for_by_their_names(start_serf: Callable) -> None:
    """A real Serf agent answers for exactly these names, whatever a pattern makes of them; unknown ones are missing."""
    first = start_serf("web.1")
    others = [start_serf(name, f"-join={first.gossip}") for name in ("web-1", "webx1", "web.10")]
    assert len(others) == 3
    connection = Connection(RpcAddress(*first.rpc))
    deadline = time.monotonic() + 20
    while len(connection.read_roster().members) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for names in ({"web.1"}, {"web.1", "web-1"}, {"web", "eb.1", "web.1|web-1"}):
        _, members = connection.read_some(names)
        assert members.keys() == names & {"web.1", "web-1"}
        assert all(status == ALIVE for status, _ in members.values())
    connection.close()


def test_a_second_roster_has_all_changes() -> None:
    """A second roster has each changed status, address and tag; unchanged members are not parsed again."""
    said = [member("web1"), member("web1", status="left"), member("web1", b"\x7f\0\1\2"), member("web1", port="1")]
    nested: object = b"x"
    for _ in range(900):
        nested = [nested]
    odd = member("web1") | {"Extra": nested}
    answers = iter([*said, odd, odd, said[0]])

    def answer(seq: int) -> bytes:
        return say(header(seq), {"Members": [next(answers), member("web2", port="x")]})

    with serving_tcp(speak({"members": answer})) as rpc:
        connection = Connection(RpcAddress(*rpc))
        rosters = [connection.read_roster() for _ in range(7)]
        connection.close()
    found = [(status, found.address, found.tags) for status, found in (each.members["web1"] for each in rosters)]
    alive = (ALIVE, "127.0.1.1", ())
    assert found == [
        alive,
        (LEFT, "127.0.1.1", ()),
        (ALIVE, "127.0.1.2", ()),
        (ALIVE, "127.0.1.1", ("port=1",)),
        alive,
        alive,
        alive,
    ]
    assert len({id(each.members["web2"][1]) for each in rosters}) == 1

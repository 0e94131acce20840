"""Serf's payloads and the lines of node files: recordings, tables, and properties for any input."""

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.errors import InputError
from serf_haproxy.serf.events import (
    ALIVE,
    FAILED,
    LEFT,
    LINE_BYTES,
    PAYLOAD_BYTES,
    STATUS_OF_EVENT,
    STATUSES,
    Member,
    escape,
    format_line,
    make_member,
    name_fault,
    parse_line,
    read_event,
    say_the_same,
    unescape,
)

PAYLOADS_DIR = Path(__file__).parents[1] / "payloads"
VERSIONS = ("094", "0101")

# Payload -> the node files' lines after the status; the same for both versions of Serf.
MEMBERS = {
    "member-join-multi": [
        "web2\t127.0.1.2\tweb\tport=8080,role=web,weight=20",
        "web3\t127.0.1.3\tweb\tport=8080,role=web,weight=30",
        "web4\t127.0.1.4\tweb\tport=8080,role=web,weight=40",
    ],
    "member-leave": ["web4\t127.0.1.4\tweb\tport=8080,role=web,weight=40"],
    "member-failed": ["web3\t127.0.1.3\tweb\tport=8080,role=web,weight=30"],
    "member-reap": ["web3\t127.0.1.3\tweb\tport=8080,role=web,weight=30"],
    "member-update": ["web2\t127.0.1.2\tweb\trole=web,weight=77"],
    "member-update-badutf8tag": ["web2\t127.0.1.2\tweb\trole=web,weight=77"],
    "member-join-badutf8tag": ["w-bad\t127.0.1.9\t\tt=%FF%FE"],
    "multi-member-join": [f"x{number}\t127.0.1.1{number}\t\t" for number in range(5)],
    "name-empty": ["vm\t127.0.1.20\tweb\trole=web"],
    "name-long128": [f"{'x' * 128}\t127.0.1.15\tweb\trole=web"],
    "tags-comma": ["w-comma\t127.0.1.5\tweb\tport=22,role=lb,role=web,v=1"],
    "tags-empty": ["w-empty\t127.0.1.9\t\t=v,k="],
    "tags-equals": ["w-equals\t127.0.1.6\t\ta=b=c=d=e"],
    "tags-nul": ["w-nul\t127.0.1.11\t\tk=a%00b"],
    "tags-space": ["w-space\t127.0.1.8\t\t k = v "],
    "tags-tabnl": [r"w-tabnl" + "\t127.0.1.7\t\t" + r"t=x\ty\nz%0D\nw\n"],
    "tags-unicode": ["w-unicode\t127.0.1.10\t\tné=中"],
}

# Payload -> why its only member is refused.
REFUSED_NAMES = {
    "name-backslash": r"it contains '\\'",
    "name-badutf8": r"it contains '\udcff'",
    "name-colon": "it contains ':'",
    "name-crlf": r"it contains '\r'",
    "name-ctrl": r"it contains '\x1b'",
    "name-dash": "it does not start with an ASCII letter or digit",
    "name-dotdot": "it does not start with an ASCII letter or digit",
    "name-long1000": "it has 1000 characters, more than 128",
    "name-long129": "it has 129 characters, more than 128",
    "name-long1400": "it has 1400 characters, more than 128",
    "name-long500": "it has 500 characters, more than 128",
    "name-newline": r"it contains '\\'",
    "name-quote": 'it contains "\'"',
    "name-slash": "it contains '/'",
    "name-space": "it contains ' '",
    "name-tab": r"it contains '\\'",
    "name-traverse": "it does not start with an ASCII letter or digit",
    "name-unicode": "it does not start with an ASCII letter or digit",
}
OTHER_EVENTS = ("query", "user", "user-emptypayload", "user-weirdname")

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
UNSEEN = ("Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs")  # Unicode's categories of what has no glyph of its own
ANY_TEXT = st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")) | st.text()
TAGS = st.dictionaries(st.sampled_from(["role", "port", "", "a,b", "k="]) | ANY_TEXT, ANY_TEXT, max_size=5)


def read_kind(stem: str) -> str:
    """Return the event of a recorded payload: from its environment, or member-join if it has none."""
    env_path = PAYLOADS_DIR / f"{stem}.env"
    if not env_path.exists():
        return "member-join"
    pairs = (line.partition("=") for line in env_path.read_text().splitlines())
    return next(value for name, _, value in pairs if name == "SERF_EVENT")


def find_payload(case: str, version: str) -> Path:
    """Return the standard input of a recorded case."""
    return next(PAYLOADS_DIR.glob(f"{case}-{version}*.stdin"))


def read_recorded(case: str, version: str) -> tuple[str, bytes]:
    """Return event and standard input of a recorded case."""
    return read_kind(f"{case}-{version}"), find_payload(case, version).read_bytes()


def read_tags(text: str) -> Member:
    """Return the member of a join with these tags on standard input."""
    return read_event("member-join", f"web1\t127.0.1.1\t\t{text}\n".encode()).members[0]


def print_as_serf(address: str, tags: dict[str, str], order: list[str]) -> bytes:
    """Return the line that Serf passes to handlers for a member; only tabs and line feeds are escaped."""

    def clean(text: str) -> str:
        return text.replace("\t", "\\t").replace("\n", "\\n")

    pairs = ",".join(f"{clean(key)}={clean(tags[key])}" for key in order)
    return f"web1\t{address}\t{clean(tags.get('role', ''))}\t{pairs}\n".encode("utf-8", "surrogateescape")


def test_every_recording_has_an_expectation() -> None:
    """Each recorded payload has an expectation in one of the tables of this module."""
    expected = {find_payload(case, version) for case in [*MEMBERS, *REFUSED_NAMES] for version in VERSIONS}
    expected |= {path for case in OTHER_EVENTS for path in PAYLOADS_DIR.glob(f"{case}-*.stdin")}
    assert expected == set(PAYLOADS_DIR.glob("*.stdin"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", MEMBERS)
def test_recorded_members_are_read(case: str, version: str) -> None:
    """Recorded payloads give the expected node-file lines, whatever Serf's version and tag order."""
    kind, payload = read_recorded(case, version)
    event = read_event(kind, payload)
    assert (event.kind, event.refused) == (kind, [])
    lines = [format_line(ALIVE, member) for member in event.members]
    assert sorted(lines) == [f"alive\t{rest}\n" for rest in MEMBERS[case]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", REFUSED_NAMES)
def test_recorded_hostile_names_are_refused(case: str, version: str) -> None:
    """A recorded name that is unsafe as a path or a server's name is refused with the reason."""
    event = read_event(*read_recorded(case, version))
    assert event.members == []
    (reason,) = event.refused
    assert REFUSED_NAMES[case] in reason
    assert reason.isascii()
    assert reason.isprintable()


@pytest.mark.parametrize("path", [path for case in OTHER_EVENTS for path in PAYLOADS_DIR.glob(f"{case}-*.stdin")])
def test_recorded_other_events_are_refused(path: Path) -> None:
    """A recorded user event or query is refused, whatever its payload."""
    with pytest.raises(InputError, match="is not a membership event"):
        read_event(read_kind(path.name.removesuffix(".stdin")), path.read_bytes())


def test_hostile_member_leaves_the_others_alone() -> None:
    """A refused member does not keep the members before and after it from being read."""
    event = read_event("member-join", b"a\t127.0.1.1\t\t\n../b\t127.0.1.2\t\t\nc\t127.0.1.3\t\t\n")
    assert [member.name for member in event.members] == ["a", "c"]
    assert len(event.refused) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_comma_makes_tags_uncertain(version: str) -> None:
    """A comma that forges tags makes the tags uncertain, because the role field contradicts them."""
    (member,) = read_event(*read_recorded("tags-comma", version)).members
    assert member.role == "web"
    assert not member.tags_are_certain()


@pytest.mark.parametrize(
    ("text", "is_certain"),
    [
        ("", True),
        ("port=1", True),
        ("port=1,port=2", False),
        ("role=web", False),  # the role field is empty
        ("a=1,2,3", True),
        ("a=%,b=%", True),
    ],
)
def test_uncertain_tags_are_detected(text: str, is_certain: bool) -> None:
    """Tags are uncertain when a key occurs twice or the role contradicts Serf's role field."""
    assert read_tags(text).tags_are_certain() is is_certain


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=1,2", {"a": "1,2"}),
        ("a=1,,", {"a": "1,,"}),
        ("a=,b=1,x,c=2", {"a": "", "b": "1,x", "c": "2"}),
        ("=v", {"": "v"}),
        ("a=100%", {"a": "100%"}),
        ("a=%2C", {"a": "%2C"}),
        ("a=x\ry", {"a": "x\ry"}),
    ],
)
def test_tag_values_are_unchanged(text: str, values: dict[str, str]) -> None:
    """A comma without a later equals sign continues a value, and a node file keeps the values unchanged."""
    member = read_tags(text)
    assert member.tag_values() == values
    assert parse_line(format_line(ALIVE, member))[1].tag_values() == values


@given(st.data(), TAGS)
def test_tag_order_is_ignored(data: st.DataObject, tags: dict[str, str]) -> None:
    """The same tags in another order give the same bytes, unless a tag contains a comma."""
    tags = {key.replace(",", ";"): value.replace(",", ";") for key, value in tags.items()}
    lines = set()
    for _ in range(2):
        payload = print_as_serf("127.0.1.1", tags, data.draw(st.permutations(list(tags))))
        lines.add(format_line(ALIVE, read_event("member-join", payload).members[0]))
    assert len(lines) == 1


@given(st.data(), TAGS)
def test_roster_and_event_give_equal_lines(data: st.DataObject, tags: dict[str, str]) -> None:
    """A member's lines from Serf's RPC and from Serf's event are equal for `say_the_same`."""
    payload = print_as_serf("127.0.1.1", tags, data.draw(st.permutations(list(tags))))
    event_line = format_line(ALIVE, read_event("member-join", payload).members[0])
    roster_line = format_line(ALIVE, make_member("web1", "127.0.1.1", tags))
    assert say_the_same(roster_line, event_line)
    if not any("," in key + value for key, value in tags.items()):
        assert roster_line == event_line


@given(TAGS)
def test_roster_knows_tags_exactly(tags: dict[str, str]) -> None:
    """A member from the roster has exactly the roster's tags, with tabs and line feeds as Serf escapes them."""
    tags = {key: value for key, value in tags.items() if not set("=\t\n") & set(key)}
    values = make_member("web1", "127.0.1.1", tags).tag_values()
    assert values == {key: value.replace("\t", r"\t").replace("\n", r"\n") for key, value in tags.items()}


def line_of(status: str = ALIVE, address: str = "127.0.1.1", role: str = "web", tags: str = "role=web") -> str:
    """Return a node file's line."""
    return f"{status}\tweb1\t{address}\t{role}\t{tags}\n"


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (line_of(), line_of(), True),
        (line_of(tags="role=web,v=1%2Cport=2"), line_of(tags="port=2,role=web,v=1"), True),
        (line_of(tags="role=web,v=1%2Cport=2"), line_of(tags="port=3,role=web,v=1"), False),
        (line_of(tags="role=web,v=1%2Cport=2"), line_of(tags="role=web,v=1"), False),
        (line_of(tags="v=1%2C2"), line_of(LEFT, tags="v=1%2C2"), False),
        (line_of(tags="v=1%2C2"), line_of(address="127.0.1.2", tags="v=1%2C2"), False),
        (line_of(tags="v=1%2C2"), line_of(role="lb", tags="v=1%2C2"), False),
        (line_of(tags="a=1,b=2"), line_of(tags="b=2,a=1"), False),  # not a line of this program: its tags are sorted
        (line_of(tags="v=1%2C2"), "", False),
    ],
)
def test_only_commas_may_differ(one: str, other: str, is_same: bool) -> None:
    """Two lines are equal when they differ only in the commas that are known to be part of a value."""
    assert say_the_same(one, other) is is_same
    assert say_the_same(other, one) is is_same


@given(ANY_TEXT)
def test_escape_can_be_undone(text: str) -> None:
    """Any text decoded from bytes is unchanged after escaping and unescaping."""
    assert unescape(escape(text)) == text


@given(ANY_TEXT)
def test_escaped_text_is_safe(text: str) -> None:
    """Escaped text is one line, valid UTF-8, and without control, format and other invisible characters."""
    escaped = escape(text)
    assert len(escaped.splitlines()) <= 1
    assert not any(unicodedata.category(character) in UNSEEN for character in escaped.replace(" ", ""))
    escaped.encode("utf-8")


@pytest.mark.parametrize("category", UNSEEN)
def test_every_character_that_misleads_is_escaped(category: str) -> None:
    """A terminal gets no character that has no glyph or changes the order of others; reading gives it back."""
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    unseen = [character for character in characters if unicodedata.category(character) == category]
    escapes = {character: escape(character) for character in unseen if character != " "}
    assert {text for text in escapes.values() if not re.fullmatch("(%[0-9A-F]{2})+", text)} == set()
    text = "".join(unseen)
    assert unescape(escape(text)) == text
    assert escape("Zürich 東京 שלום é") == "Zürich 東京 שלום é", "other scripts stay readable"


@pytest.mark.parametrize("kind", ["member-join", "member-update"])
def test_a_tag_with_bidirectional_controls_is_escaped_in_the_node_file(kind: str) -> None:
    """An event and the roster write the same line, of which `cat` shows every character in its order."""
    tags = {"note": "a\u202eb\u2066c\ufeff\u200bd\u00ade", "port": "80"}
    (member,) = read_event(kind, print_as_serf("127.0.1.1", tags, sorted(tags))).members
    assert format_line(ALIVE, member) == (
        "alive\tweb1\t127.0.1.1\t\tnote=a%E2%80%AEb%E2%81%A6c%EF%BB%BF%E2%80%8Bd%C2%ADe,port=80\n"
    )
    assert format_line(ALIVE, make_member("web1", "127.0.1.1", tags)) == format_line(ALIVE, member)
    assert member.tag_values() == tags


def test_a_file_of_an_earlier_release_is_read_as_it_was_meant() -> None:
    """Characters that an earlier release did not escape are read as they are."""
    _, member = parse_line("alive\tweb1\t127.0.1.1\t\tnote=a\u202eb,port=80\n")
    assert member.tag_values() == {"note": "a\u202eb", "port": "80"}


@pytest.mark.parametrize("text", ["100%", "%", "%zz", "a%4", "%  x", "% 4", "%+1", "%4%41"])
def test_stray_percent_sign_stays(text: str) -> None:
    """Unescaping leaves text unchanged that `escape` cannot have written."""
    assert unescape(text) == text


@given(st.sampled_from(STATUSES), NAMES, ANY_TEXT, TAGS)
def test_line_of_a_roster_member_can_be_read_back(status: str, name: str, address: str, tags: dict[str, str]) -> None:
    """`parse_line` reads what `format_line` writes, and writing it again gives the same bytes."""
    line = format_line(status, make_member(name, address, tags))
    read_status, member = parse_line(line)
    assert (read_status, member.name) == (status, name)
    assert unescape(member.address) == address
    assert format_line(read_status, member) == line


@given(st.sampled_from(sorted(STATUS_OF_EVENT)), st.binary() | st.lists(st.binary()).map(b"\t".join))
def test_no_bytes_break_the_reader(kind: str, payload: bytes) -> None:
    """Any input gives members with safe names and readable lines, reasons of one line, or InputError."""
    try:
        event = read_event(kind, payload)
    except InputError:
        return
    for member in event.members:
        assert name_fault(member.name) is None
        line = format_line(ALIVE, member)
        assert format_line(*parse_line(line)) == line
    assert all(reason.isascii() and reason.isprintable() for reason in event.refused)


@given(st.text("=,%25C\t\na\udcff", max_size=12))
def test_event_line_can_be_read_back(tags: str) -> None:
    """A line with any mix of commas, equals and percent signs in its tags is read back unchanged."""
    payload = f"web1\t127.0.1.1\t\t{tags}".encode("utf-8", "surrogateescape")
    for member in read_event("member-join", payload).members:
        line = format_line(ALIVE, member)
        assert format_line(*parse_line(line)) == line


@pytest.mark.parametrize("kind", [None, "", "user", "query", "member-flap", "MEMBER-JOIN", "member-join\n"])
def test_unknown_event_is_refused(kind: str | None) -> None:
    """Anything but the five membership events is invalid input, and the error names the five."""
    with pytest.raises(InputError, match="member-join, member-update, member-leave, member-failed, member-reap"):
        read_event(kind, b"web1\t127.0.1.1\t\t\n")


@pytest.mark.parametrize("payload", [b"", b"\n", b"\n\n\n"])
def test_event_without_members_is_refused(payload: bytes) -> None:
    """An event without a member is invalid input."""
    with pytest.raises(InputError, match="no member on standard input"):
        read_event("member-join", payload)


@pytest.mark.parametrize("line", [b"web1", b"web1\t127.0.1.1\t", b"web1\t127.0.1.1\t\t\t", b"\x00\xff\xfe", b"\r"])
def test_line_without_four_fields_is_refused(line: bytes) -> None:
    """A line without exactly four fields is refused with a reason."""
    event = read_event("member-join", line)
    assert event.members == []
    assert "fields instead of 4" in event.refused[0]


def test_payload_of_10_mib_is_refused() -> None:
    """A payload larger than Serf can send is refused as a whole."""
    with pytest.raises(InputError, match=f"more than {PAYLOAD_BYTES} bytes"):
        read_event("member-join", b"web1\t127.0.1.1\t\tk=" + b"v" * (10 * 1024 * 1024))


def test_payload_of_a_large_cluster_is_read() -> None:
    """Ten thousand members in one event are all read."""
    payload = b"".join(b"web%d\t127.0.1.1\tweb\trole=web,k=%s\n" % (n, b"v" * 500) for n in range(10_000))
    assert len(read_event("member-join", payload).members) == 10_000


def test_member_too_large_for_a_node_file_is_refused() -> None:
    """A member whose line is too long for a node file is refused; the longest allowed line is not."""
    head = b"web1\t127.0.1.1\t\tk="
    room = LINE_BYTES - len("leaving\t") - len(head) - 1
    assert len(read_event("member-join", head + b"v" * room).members) == 1
    event = read_event("member-join", head + b"v" * (room + 1))
    assert event.members == []
    assert f"more than {LINE_BYTES} bytes" in event.refused[0]


@pytest.mark.parametrize("name", ["a", "0", "web1", "web-1.example_2", "A" * 128])
def test_ordinary_name_is_allowed(name: str) -> None:
    """Host names and similar names are allowed."""
    assert name_fault(name) is None


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "_x", "a/b", "a b", "a\x00", "a\n", "é", "a\u0661", "A" * 129])
def test_unsafe_name_has_a_fault(name: str) -> None:
    """A name that could leave the directory, hide, or break a line is refused with a reason in printable ASCII."""
    fault = name_fault(name)
    assert fault
    assert fault.isascii()
    assert fault.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "alive\tweb1\t127.0.1.1\tweb\trole=web",
        "alive\tweb1\t127.0.1.1\tweb\n",
        "alive\tweb1\t127.0.1.1\tweb\trole=web\t\n",
        "alive\tweb1\t127.0.1.1\tweb\trole=web\n\n",
        "alive\tweb1\t127.0.1.1\tweb\trole=web\nalive\tweb2\t127.0.1.2\tweb\t\n",
        "none\tweb1\t127.0.1.1\tweb\trole=web\n",
        "ALIVE\tweb1\t127.0.1.1\tweb\trole=web\n",
        "127.0.1.1 web1\n",
    ],
)
def test_foreign_line_is_refused(text: str) -> None:
    """A torn or foreign line is refused."""
    with pytest.raises(InputError, match="not one line of status, name, address, role and tags"):
        parse_line(text)


def test_statuses_of_the_events() -> None:
    """Join and update mean alive, leave means left, failed means failed, and reap removes the node."""
    assert STATUS_OF_EVENT == {
        "member-join": ALIVE,
        "member-update": ALIVE,
        "member-leave": LEFT,
        "member-failed": FAILED,
        "member-reap": None,
    }

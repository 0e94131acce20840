"""The parsed configuration, and the commands that change the running servers to the wanted ones."""

from typing import Any

import pytest

from serf_haproxy.config.diff import Changes, diff, find_remade
from serf_haproxy.config.ids import choose_id
from serf_haproxy.config.parse import Layout, Line, Parser
from serf_haproxy.config.render import Config, finish
from serf_haproxy.config.state_file import format_state
from serf_haproxy.policy.snapshot import DOWN, STOPPING, UP, Seen
from serf_haproxy.services import Key

CONFIG = """\
global
    log stdout format raw daemon
defaults
    default-server inter 2s
backend nodes
    balance roundrobin
    default-server check rise 1
    server web1 10.0.0.1:80 weight 7
    # a remark
    server web2 [::1]:81
"""


def changed(before: str, after: str) -> str:
    """Return the configuration with one replacement."""
    assert before in CONFIG
    return CONFIG.replace(before, after)


def test_a_server_includes_its_defaults() -> None:
    """A server's words begin with those of its default-server lines, because `add server` inherits nothing."""
    layout = Parser().read(CONFIG)
    assert layout.servers == {
        ("nodes", "web1"): Line("10.0.0.1:80", 7, ("inter", "2s", "check", "rise", "1")),
        ("nodes", "web2"): Line("[::1]:81", 1, ("inter", "2s", "check", "rise", "1")),
    }
    assert layout.sections == {"nodes"}


@pytest.mark.parametrize(
    ("text", "is_same"),
    [
        (changed("    server web1 10.0.0.1:80 weight 7\n", ""), True),
        (changed("10.0.0.1:80", "10.9.9.9:99"), True),
        (changed("    # a remark\n", "\n"), True),
        (changed("roundrobin", "leastconn"), False),
        (changed("rise 1", "rise 2"), False),
        (changed("backend nodes", "backend others"), False),
    ],
)
def test_the_digest_of_the_rest_ignores_servers_and_comments(text: str, is_same: bool) -> None:
    """Only changes that need a reload change the digest of the rest."""
    assert (Parser().read(text).rest == Parser().read(CONFIG).rest) is is_same


@pytest.mark.parametrize(
    "text",
    [
        changed("backend nodes", "backend nodes from common"),
        changed("server web2 [::1]:81", 'server web2 [::1]:81 sni str("x")'),
        changed("server web2 [::1]:81", "server web2 [::1]:81 cookie ${HOME}"),
        changed("server web2 [::1]:81", "server-template web 3 10.0.0.1:80"),
        changed("default-server inter 2s", 'default-server sni str("x")'),
        changed("server web2 [::1]:81", ".if 0\n    server web2 [::1]:81\n.endif"),
        changed("backend nodes", "backend kn\u00f6del"),
    ],
)
def test_a_section_with_unsupported_syntax_needs_a_reload(text: str) -> None:
    """Named defaults, quotes, variables and server templates make a whole section part of the rest."""
    layout = Parser().read(text)
    assert (layout.servers, layout.sections) == ({}, frozenset())
    assert layout.rest != Parser().read(text.replace("web1", "web9")).rest


def test_defaults_apply_to_later_servers() -> None:
    """A default-server line does not change earlier servers."""
    layout = Parser().read("backend a\n server x 1.1.1.1:1\n default-server weight 7\n server y 1.1.1.1:2\n")
    assert [line.weight for line in layout.servers.values()] == [1, 7]


def test_a_server_can_disable_the_check_of_its_defaults() -> None:
    """With `no-check` a server has no check, and its remaining words are valid for `add server`."""
    layout = Parser().read(
        "backend a\n default-server check inter 2s\n server x 1.1.1.1:1 no-check\n server y 1.1.1.1:2\n"
    )
    assert [line.words for line in layout.servers.values()] == [("inter", "2s"), ("check", "inter", "2s")]


def test_only_a_line_feed_ends_a_line() -> None:
    """Other line separators do not end a comment, as in HAProxy."""
    text = changed("# a remark", "# a\u2028server evil 6.6.6.6:1\x0cserver evil 6.6.6.6:1")
    assert Parser().read(text) == Parser().read(CONFIG)


def seen(endpoint: str, weight: int = 1, is_maintained: bool = False, **more: Any) -> Seen:
    """Return a running server."""
    return Seen(endpoint, weight, is_maintained, False, False, UP, 0, 0, f"line-of-{endpoint} {weight} 9")._replace(
        **more
    )


CHECKED = Line("10.0.0.1:80", 1, ("check",))
PLAIN = Line("10.0.0.1:80", 3, ())
KEY = ("nodes", "a")
ID = choose_id(KEY)
POOL = "pool-max-conn -1 pool-purge-delay 5s"
STARTED = (
    "set server nodes/a state drain",
    "set server nodes/a health down",
    "set server nodes/a state ready",
)
MOVED_FROM = Line("10.0.0.9:80", 1, ("check",))
MOVED = "set server nodes/a addr 10.0.0.1 port 80"
REMOVED = ("set server nodes/a state maint", "del server nodes/a")
ADDED = (f"add server nodes/a 10.0.0.1:80 weight 1 id {ID} {POOL} check", "enable health nodes/a", *STARTED)
HEADER = "# srv_name srv_uweight srv_iweight"
READY = ("set server nodes/a state ready",)
WATCHED = ("enable health nodes/a",)
RAISED = ("set server nodes/a health up",)
AGENT = Line("10.0.0.1:80", 3, ("agent-check", "agent-port", "90"))


def layout(*lines: Line) -> Layout:
    """Return a configuration with the server `a` or none."""
    return Layout(dict.fromkeys([KEY], *lines) if lines else {}, frozenset(["nodes"]), "")


@pytest.mark.parametrize(
    ("goal", "before", "running", "changes"),
    [
        (layout(CHECKED), layout(CHECKED), {KEY: seen("10.0.0.1:80")}, Changes((), ())),
        (layout(CHECKED), layout(), {}, Changes(ADDED, ())),
        (
            layout(PLAIN),
            layout(),
            {},
            Changes(
                (f"add server nodes/a 10.0.0.1:80 weight 3 id {ID} {POOL}", "set server nodes/a state ready"),
                (),
            ),
        ),
        (layout(), layout(CHECKED), {KEY: seen("10.0.0.1:80")}, Changes(REMOVED, ())),
        (layout(), layout(), {KEY: seen("10.0.0.1:80", 1, True)}, Changes((), ("del server nodes/a",), unused=(KEY,))),
        (layout(), layout(), {("other", "a"): seen("10.0.0.1:80")}, Changes((), ())),
        (layout(CHECKED), layout(CHECKED), {KEY: seen("10.0.0.1:80", 1, True)}, Changes(STARTED, ())),
        (layout(CHECKED), layout(), {KEY: seen("10.0.0.1:80", 1, True)}, Changes(STARTED, ())),
        (layout(CHECKED), layout(CHECKED), {KEY: seen("10.0.0.1:80", is_drained=True)}, Changes(READY, ())),
        (layout(CHECKED), layout(), {KEY: seen("10.0.0.1:80", is_drained=True)}, Changes(STARTED, ())),
        (layout(CHECKED), layout(CHECKED), {KEY: seen("10.0.0.1:80", is_unwatched=True)}, Changes(WATCHED, ())),
        (
            layout(CHECKED),
            layout(),
            {KEY: seen("10.0.0.1:80", 1, True, is_unwatched=True)},
            Changes((*WATCHED, *STARTED), ()),
        ),
        (layout(CHECKED), layout(CHECKED), {KEY: seen("10.0.0.1:80", operation=DOWN)}, Changes((), ())),
        (layout(PLAIN), layout(PLAIN), {KEY: seen("10.0.0.1:80", 3, operation=DOWN)}, Changes(RAISED, ())),
        (layout(PLAIN), layout(PLAIN), {KEY: seen("10.0.0.1:80", 3, operation=STOPPING)}, Changes(RAISED, ())),
        (layout(AGENT), layout(AGENT), {KEY: seen("10.0.0.1:80", 3, operation=DOWN)}, Changes((), ())),
        (layout(CHECKED), layout(PLAIN), {KEY: seen("10.0.0.1:80")}, Changes(REMOVED, ())),
        (
            layout(CHECKED),
            layout(PLAIN),
            {KEY: seen("10.0.0.1:80", 1, True)},
            Changes(("del server nodes/a", "set server nodes/a state drain", "set server nodes/a state maint"), ()),
        ),
        (layout(CHECKED), layout(PLAIN), {KEY: seen("10.0.0.1:80", connection_count=1)}, Changes((), (), (KEY,))),
        (
            layout(CHECKED),
            layout(PLAIN),
            {KEY: seen("10.0.0.1:80", connection_count=1), ("nodes", "b"): seen("10.0.0.2:80")},
            Changes((*REMOVED, "set server nodes/b state maint", "del server nodes/b"), ()),
        ),
        (
            layout(CHECKED),
            layout(CHECKED),
            {KEY: seen("10.0.0.1:81", 5)},
            Changes((*REMOVED, ADDED[0], MOVED, *ADDED[1:], "set server nodes/a weight 1"), ()),
        ),
    ],
)
def test_plan_changes_running_servers_to_the_wanted_ones(
    goal: Layout,
    before: Layout,
    running: dict[tuple[str, str], Seen],
    changes: Changes,
) -> None:
    """Wanted configuration, live file and running servers -> commands."""
    assert diff(goal, before, running) == changes


OTHER = ("nodes", "b")


@pytest.mark.parametrize(
    ("before", "running", "gone", "waiting"),
    [
        (layout(CHECKED), {}, set(), set()),
        (layout(PLAIN), {}, {KEY}, set()),
        (layout(PLAIN), {KEY: seen("10.0.0.1:80")}, set(), set()),
        (layout(PLAIN), {KEY: seen("10.0.0.1:80", 1, True)}, set(), set()),
        (layout(PLAIN), {KEY: seen("10.0.0.1:80", 1, True), OTHER: seen("10.0.0.2:80")}, set(), {KEY}),
        (layout(PLAIN), {KEY: seen("10.0.0.1:80", 1, True), OTHER: seen("10.0.0.2:80", 0)}, set(), set()),
        (layout(), {}, set(), set()),
    ],
)
def test_servers_are_made_anew_when_they_are_gone(
    before: Layout, running: dict[tuple[str, str], Seen], gone: set[object], waiting: set[object]
) -> None:
    """A server with another line is added once it is gone, and waits only while another one serves."""
    assert find_remade(layout(CHECKED), before, running) == (gone, waiting)


DOWN_LINE = "1 nodes {} {} 10.0.0.1 0 0 1 1 0 1 0 0 6 0 0 0 - 80 - 0 0 - - 0"


def decide(names: str, is_new: bool) -> dict[Key, bool]:
    """Return the servers of the default service that were decided."""
    return {("nodes", name): is_new for name in names}


def test_a_state_file_keeps_remaining_servers_and_starts_new_ones_as_down() -> None:
    """A remaining server keeps its line, a moved or new one with a check starts as down, one without has no line."""
    lines = {("nodes", name): CHECKED for name in "abc"} | {("nodes", "d"): PLAIN}
    running = {("nodes", "a"): seen("10.0.0.1:80"), ("nodes", "b"): seen("10.0.0.1:99")}
    goal = Config("", "", Layout(lines, frozenset(["nodes"]), ""))
    text = format_state(goal, decide("abcd", True), running, HEADER)
    going_on = "line-of-10.0.0.1:80 1 1"
    assert text.splitlines() == ["1", HEADER, going_on, DOWN_LINE.format(2, "b"), DOWN_LINE.format(3, "c")]


def test_a_reload_sets_the_wanted_weight() -> None:
    """The state file has the wanted weight twice, because HAProxy keeps the current weight if both are equal."""
    text = format_state(Config("", "", layout(PLAIN)), {KEY: False}, {KEY: seen("10.0.0.1:80", 0)}, HEADER)
    assert text.splitlines()[2:] == ["line-of-10.0.0.1:80 3 3"]


@pytest.mark.parametrize("name", ["is_maintained", "is_drained", "is_unwatched"])
def test_manual_changes_do_not_survive_a_reload(name: str) -> None:
    """A server set to maintenance or drain, or without its health checks, starts like a new one."""
    text = format_state(
        Config("", "", layout(CHECKED)), {KEY: False}, {KEY: seen("10.0.0.1:80", **{name: True})}, HEADER
    )
    assert text.splitlines()[2:] == [DOWN_LINE.format(1, "a")]


@pytest.mark.parametrize(
    ("decided", "lines"),
    [({KEY: True}, [DOWN_LINE.format(1, "a")]), ({KEY: False}, []), ({}, [])],
    ids=["new or moved", "as before", "not ours"],
)
def test_new_and_moved_servers_start_as_down_when_the_running_ones_are_unknown(
    decided: dict[Key, bool], lines: list[str]
) -> None:
    """When the running servers are unknown, only a server that was there before may start as up."""
    assert format_state(Config("", "", layout(CHECKED)), decided, None, "").splitlines() == ["1", *lines]


@pytest.mark.parametrize(
    ("before", "is_down"),
    [
        ({("old", "a"): seen("10.0.0.1:80")}, False),
        ({("old", "a"): seen("10.0.0.1:80", operation=DOWN)}, True),
        ({("old", "a"): seen("10.0.0.9:80")}, True),
        ({("old", "b"): seen("10.0.0.1:80")}, True),
        ({("old", "a"): seen("10.0.0.1:80"), (KEY[0], "z"): seen("10.0.0.2:80")}, True),
    ],
)
def test_servers_of_a_service_with_another_name_start_as_they_were(before: dict[Key, Seen], is_down: bool) -> None:
    """Up only where the same server was up in a section that ends, and the new section had no server."""
    goal = Config("", "", layout(CHECKED))
    assert list(goal.layout.servers) == [KEY]
    text = format_state(goal, {KEY: True}, before, HEADER)
    assert text.splitlines()[2:] == ([DOWN_LINE.format(1, "a")] if is_down else [])


OPAQUE = """\
backend nodes
    server a 10.0.0.1:80 check sni str(x)
    server b "10.0.0.1:80" weight 7 check sni 'str(x)'
    server "c" 10.0.0.1:80 sni str(x)
    server d 10.0.0.1:80 track x/y sni str(x)
    server other 10.0.0.1:80 check sni str(x)
    server e "$PLACE" check
"""


def test_servers_in_other_than_plain_words_start_as_down() -> None:
    """Quotes and parentheses hide no server of ours: it keeps its state, or starts as down if it may be checked."""
    goal = finish(OPAQUE, (), Parser())
    assert goal.layout.servers == {}
    new = decide("abcde", True)
    text = format_state(goal, new, {KEY: seen("10.0.0.1:80")}, HEADER)
    weighted = DOWN_LINE.format(2, "b").replace("0 0 1 1", "0 0 7 7")
    down = [weighted, DOWN_LINE.format(3, "c")]
    assert text.splitlines() == ["1", HEADER, "line-of-10.0.0.1:80 1 1", *down]
    assert format_state(goal, new, None, "").splitlines() == ["1", DOWN_LINE.format(1, "a"), *down]
    unchecked = {KEY: seen("10.0.0.1:80", is_checked=False)}
    assert format_state(goal, new, unchecked, HEADER).splitlines()[3:] == [weighted]
    assert format_state(goal, decide("abcde", False), None, "").splitlines() == ["1"]


def test_servers_with_the_same_words_share_them() -> None:
    """Ten thousand servers have few different words."""
    servers = (
        Parser()
        .read("backend nodes\n server a 10.0.0.1:1 check inter 1s\n server b 10.0.0.2:1 check inter 1s\n")
        .servers
    )
    assert servers["nodes", "a"].words is servers["nodes", "b"].words


def test_a_parser_remembers_the_lines_of_one_text_of_any_length() -> None:
    """Neither does it forget lines of a long text before its end, nor does it keep those of all texts."""
    parser = Parser()
    for count, port in ((5000, 1), (5000, 2), (5000, 3), (6500, 4)):
        lines = (f" server w{n} 10.{n // 65536}.{n // 256 % 256}.{n % 256}:{port} check" for n in range(count))
        assert len(parser.read("\n".join(["backend nodes", *lines])).servers) == count
        assert count <= parser._read_line.cache_info().currsize <= 1.3 * count

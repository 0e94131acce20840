"""How often servers are checked: quickly while it matters, slower by steps, never more often than allowed in all."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serf_haproxy.policy.pace import Checks, Pace, Sight, set_paces
from serf_haproxy.policy.server import Server
from serf_haproxy.serf.events import ALIVE, Member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import DEFAULT_SERVICE, Key

S = 10**9
START_NS = 1_000_000 * S
RATE = 400.0


def make_servers(count: int) -> tuple[Server, ...]:
    return tuple(Server(f"web{number}", "10.0.0.1", number + 1, None) for number in range(count))


def key(number: int) -> Key:
    return DEFAULT_SERVICE, f"web{number}"


def see(
    count: int,
    at_s: float,
    down: frozenset[Key] | None = frozenset(),
    heard_s: Mapping[int, float] | None = None,
    *,
    new: frozenset[Key] = frozenset(),
    rate: float = RATE,
    proven_count: int | None = None,
) -> Sight:
    """Return what a pass at a time sees of `count` servers; heard_s says when a node was last heard of."""
    known = frozenset(map(key, range(count))) - new
    files = {
        f"web{number}": NodeFile(
            ALIVE, Member(f"web{number}", "10.0.0.1", "", ()), START_NS + int((heard_s or {}).get(number, -9999) * S)
        )
        for number in range(count)
    }
    return Sight(known, down, files, rate, START_NS + int(at_s * S), count if proven_count is None else proven_count)


def sum_rate(servers: tuple[Server, ...], out: frozenset[Key]) -> float:
    """Return how many checks a second HAProxy makes."""
    return sum(
        1000 / server.down_interval_ms if server.key in out else 1 / server.check_interval_s for server in servers
    )


def test_a_server_that_stays_down_is_checked_less_often_by_steps() -> None:
    """Every 50 ms for 30 s, every 400 ms for 5 minutes, then every 6.4 s."""
    servers, down, checks = make_servers(1), frozenset([key(0)]), Checks()
    intervals_ms = []
    for at_s in (0.0, 29.0, 31.0, 299.0, 301.0, 86400.0):
        paced, checks = set_paces(servers, checks, see(1, at_s, down))
        intervals_ms.append(paced[0].down_interval_ms)
    assert intervals_ms == [50, 50, 400, 400, 6400, 6400]


@pytest.mark.parametrize("how", ["it was up in between", "its node is heard of"])
def test_news_of_a_server_makes_its_checks_quick_again(how: str) -> None:
    """A server that went down once more, or whose node joined, may be up soon."""
    servers, down, checks = make_servers(1), frozenset([key(0)]), Checks()
    for at_s in (0.0, 1000.0):
        paced, checks = set_paces(servers, checks, see(1, at_s, down))
    assert paced[0].down_interval_ms == 6400
    if how == "it was up in between":
        paced, checks = set_paces(servers, checks, see(1, 1001.0))
        assert paced[0].down_interval_ms == 6400  # a server that is up is not made anew
    paced, checks = set_paces(servers, checks, see(1, 1002.0, down, {0: 1002.0} if "node" in how else None))
    assert paced[0].down_interval_ms == 50


def test_a_new_server_counts_as_down() -> None:
    """A hundred servers that are new at once share the rate."""
    servers = make_servers(100)
    new = frozenset(server.key for server in servers)
    paced, _ = set_paces(servers, Checks(), see(100, 0.0, new=new))
    assert {server.down_interval_ms for server in paced} == {800}


def test_members_that_have_never_been_up_do_not_slow_the_checks_of_others() -> None:
    """However many are invented, those that are up are checked every second."""
    down = frozenset(map(key, range(3, 2000)))
    paced, checks = set_paces(make_servers(2000), Checks(), see(2000, 0.0, down, proven_count=3))
    assert checks.interval_s == 1
    assert {server.check_interval_s for server in paced} == {1}


def test_while_haproxy_does_not_answer_nothing_changes() -> None:
    """Without HAProxy's view each server keeps its pace."""
    servers, down = make_servers(2), frozenset([key(0), key(1)])
    _, checks = set_paces(servers, Checks(), see(2, 0.0, down))
    before, checks = set_paces(servers, checks, see(2, 1000.0, down))
    assert set_paces(servers, checks, see(2, 2000.0, None)) == (before, checks)


def test_the_interval_of_servers_that_are_up_follows_their_number_slowly() -> None:
    """It grows at once, shrinks after ten minutes, and does not follow a number that goes up and down."""
    checks, intervals_s = Checks(), []
    for count, at_s in [(200, 0), (201, 1), (199, 2), (1000, 3), (300, 4), (300, 700), (101, 2000), (99, 3000)]:
        paced, checks = set_paces(make_servers(count), checks, see(count, float(at_s)))
        intervals_s.append(paced[0].check_interval_s)
    assert intervals_s == [1, 2, 2, 8, 8, 4, 2, 1]


def test_a_new_interval_gives_servers_that_are_up_their_first_words_back() -> None:
    """All words change with the interval, so servers that are up forget that they were down; others do not."""
    servers, down = make_servers(2000), frozenset([key(7)])
    everyone = frozenset(map(key, range(2000)))
    _, checks = set_paces(servers, Checks(), see(2000, 0.0, everyone, proven_count=0))
    assert len(checks.paces) == 2000
    _, same = set_paces(servers, checks, see(2000, 1.0, down, proven_count=0))
    assert len(same.paces) == 2000
    paced, changed = set_paces(servers, checks, see(2000, 1.0, down))
    assert (changed.interval_s, list(changed.paces)) == (16, [key(7)])
    assert [server.name for server in paced if server.down_interval_ms != 50] == ["web7"]


def test_a_clock_that_was_set_back_makes_checks_quick() -> None:
    """A time in the future counts as now."""
    servers, down = make_servers(1), frozenset([key(0)])
    before = Checks(1, 0, {key(0): Pace(0, START_NS + 10**6 * S)})
    paced, checks = set_paces(servers, before, see(1, 0.0, down))
    assert (paced[0].down_interval_ms, checks.paces[key(0)].down_ns) == (50, START_NS)


STEPS = st.lists(
    st.tuples(
        st.integers(1, 900),  # servers
        st.floats(0, 1),  # the share of them that is down
        st.floats(0, 1),  # the share of them that was just heard of
        st.floats(-100, 1000),  # seconds since the step before
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=50)
@given(STEPS)
def test_all_checks_together_stay_below_the_limit(steps: list[tuple[int, float, float, float]]) -> None:
    """Whatever joins, goes down, comes back or is heard of, and whatever the clock does."""
    checks, at_s = Checks(), 0.0
    for count, down_share, heard_share, later_s in steps:
        at_s += later_s
        down = frozenset(map(key, range(int(count * down_share))))
        heard_s = dict.fromkeys(range(int(count * heard_share)), at_s)
        paced, checks = set_paces(make_servers(count), checks, see(count, at_s, down, heard_s, rate=60))
        assert sum_rate(paced, down) <= 60
        assert {server.key for server in paced if checks.paces.get(server.key, Pace(0, 0)).down_ns} == set(down)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.frozensets(st.integers(0, 9)), st.integers(0, 2000), st.floats(0, 1000)), max_size=6),
    st.integers(1, 10),
)
def test_the_memo_of_servers_with_their_intervals_changes_nothing(
    steps: list[tuple[frozenset[int], int, float]], count: int
) -> None:
    """With the memo, each decision is what it would be without; a server with the same intervals is the same object."""
    memo: dict[Key, tuple[Server, Server]] = {}
    servers, checks, at_s = make_servers(count), Checks(), 0.0
    for down, proven_count, pause_s in steps:
        at_s += pause_s
        sight = see(count, at_s, frozenset(map(key, down)), proven_count=proven_count)
        with_memo, without = set_paces(servers, checks, sight, memo), set_paces(servers, checks, sight)
        assert with_memo == without
        again, _ = set_paces(servers, checks, sight, memo)
        assert all(one is other for one, other in zip(again, with_memo[0], strict=True))
        checks = with_memo[1]
        servers = (*servers[:-1], servers[-1]._replace(weight=proven_count % 256))

"""The law of measured weights: a table, its bounds for anything, and its course in a simulation."""

import random
import statistics

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from balance.simulation import LIMIT, Server, Simulation
from serf_haproxy.balance.law import FLOOR, Course, Pool, Share, weigh
from serf_haproxy.haproxy.traffic import Traffic

NAMES = ("a", "b", "c", "d", "e")
RATE = 500.0  # half of what five servers can do


def traffic(started: int = 0, answered: int = 0, weight: int = LIMIT, **more: object) -> Traffic:
    """Return the counters of a server."""
    rest = {"is_http": True, "is_up": True, "is_backup": False, "current_count": 0}
    rest |= {"connect_ms": 0, "broken_count": 0, "failed_count": 0}
    return Traffic(**({"started_count": started, "answered_count": answered, "weight": weight} | rest | more))  # type: ignore[arg-type]


def look(**servers: Traffic) -> dict[str, Share]:
    """Return what servers get after ten seconds of looks, in which as many came as the counters say."""
    limits = dict.fromkeys(servers, LIMIT)
    pool = Pool()
    count, span_s = 100, 10.0
    for step in range(count + 1):
        now = {name: _take_part(one, step / count) for name, one in servers.items()}
        pool, shares = weigh(pool, now, limits, span_s / count if step else 0)
        assert step or not shares
    return shares


def _take_part(server: Traffic, part: float) -> Traffic:
    """Return a server's counters after a part of the time; as many requests as at the end wait all the time."""
    answered, broken, failed = (
        round(part * count) for count in (server.answered_count, server.broken_count, server.failed_count)
    )
    if not server.is_http:
        current = round(part * server.current_count)
        return server._replace(
            started_count=round(part * server.started_count), failed_count=failed, current_count=current
        )
    waiting = server.started_count - server.answered_count - server.broken_count if part else 0
    started = answered + broken + waiting
    return server._replace(
        started_count=started, answered_count=answered, broken_count=broken, failed_count=failed,
        current_count=server.current_count if part else 0,
    )  # fmt: skip


def test_equal_servers_keep_their_weights() -> None:
    """Servers that cost the same keep all of their weight."""
    shares = look(a=traffic(1010, 1000, current_count=10), b=traffic(1010, 1000, current_count=10))
    assert {one.weight for one in shares.values()} == {LIMIT}
    assert [one.explain() for one in shares.values()] == ["its requests cost no more than usual"] * 2


def test_a_slow_server_gets_less() -> None:
    """A server at which ten times as many requests wait gets hardly anything, and the reason names the ratio."""
    shares = look(a=traffic(1100, 1000, current_count=100), b=traffic(1010, 1000, current_count=10))
    assert (shares["a"].weight, shares["b"].weight) == (1, LIMIT)
    assert shares["a"].explain() == "a request costs 7.9 times the usual one"
    assert shares["a"].wait_s == pytest.approx(1.0, rel=0.01)


def test_a_server_that_fails_at_once_gets_less() -> None:
    """Failures cost more than any wait, however fast they are."""
    shares = look(a=traffic(1005, 1000, failed_count=500, current_count=5), b=traffic(1010, 1000, current_count=10))
    assert shares["a"].weight == 1
    assert "50 % of them fail" in shares["a"].explain()


def test_a_server_that_hardly_gets_requests_is_seen_to_fail() -> None:
    """A server that fails gets so few requests that each is old before the next one comes; four of them tell."""
    names = ["a", *(f"b{number}" for number in range(19))]
    pool, limits = Pool(), dict.fromkeys(names, LIMIT)
    for look_count in range(1, 41):
        answered = look_count // 10  # one in five seconds
        others = {name: traffic(look_count, look_count) for name in names[1:]}
        pool, shares = weigh(pool, others | {"a": traffic(answered, answered, failed_count=answered)}, limits, 0.5)
        failing = {name for name, share in shares.items() if share.is_failing}
        assert failing == ({"a"} if answered >= 3 else set())


def test_a_server_fails_until_three_of_four_requests_succeed() -> None:
    """Half of its requests, and at least three, make a failing server; a single failure makes none."""
    pool, limits = Pool(), dict.fromkeys("ab", LIMIT)
    answered = failed = 0

    def go_on(good: int, bad: int) -> bool:
        nonlocal pool, answered, failed
        for _ in range(80):  # forty seconds, so that what was before hardly counts
            answered, failed = answered + good + bad, failed + bad
            now = {"a": traffic(answered, answered, failed_count=failed), "b": traffic(10 * answered, 10 * answered)}
            pool, shares = weigh(pool, now, limits, 0.5)
        return shares["a"].is_failing

    assert not go_on(1, 0)
    assert not go_on(2, 1)
    assert go_on(1, 2)
    assert go_on(2, 1)
    assert not go_on(9, 1)
    single = Pool({"a": Course(1.0, traffic(1, 1)), "b": Course(1.0, traffic(1, 1))}, 0.02)
    now = {"a": traffic(2, 2, failed_count=1), "b": traffic(2, 2)}
    assert not weigh(single, now, limits, 0.05)[1]["a"].is_failing


@pytest.mark.parametrize(
    "server",
    [
        traffic(1100, 1000, is_up=False, current_count=100),
        traffic(1100, 1000, weight=0, current_count=100),
    ],
    ids=["down", "drained"],
)
def test_some_servers_are_left_alone(server: Traffic) -> None:
    """A server that is down or drained is left alone, and so are the others for its sake."""
    shares = look(a=server, b=traffic(1010, 1000, current_count=10))
    assert shares.keys() == {"b"}
    assert shares["b"].weight == LIMIT


def test_the_last_server_keeps_its_weight() -> None:
    """A single server keeps its weight, whatever it does; and so do two that are equally bad."""
    bad = traffic(1010, 1000, failed_count=900, current_count=10)
    assert look(a=bad)["a"].weight == LIMIT
    assert min(one.weight for one in look(a=bad, b=bad).values()) == LIMIT


def test_half_of_the_servers_may_be_pushed() -> None:
    """Of five servers two may be pushed down; a third one that is as bad keeps half, and the reason says so."""
    bad = traffic(1100, 1000, current_count=100)
    good = traffic(1010, 1000, current_count=10)
    shares = look(a=bad, b=bad, c=bad, d=good, e=good)
    assert [one.weight for one in shares.values()] == [1, 1, 50, LIMIT, LIMIT]
    assert "enough others" in shares["c"].explain()


def test_a_weight_above_the_limit_is_corrected() -> None:
    """Where another hand has set more than the limit, the next look sets less, however little that is."""
    fine = traffic(1010, 1000, current_count=10)
    assert look(a=fine._replace(weight=LIMIT + 1), b=fine)["a"].weight == LIMIT
    pool = Pool({"a": Course(0.99, fine), "b": Course(1.0, fine)}, 0.1)
    now = {"a": fine._replace(started_count=1012, answered_count=1002, weight=LIMIT + 5), "b": fine}
    assert weigh(pool, now, dict.fromkeys("ab", LIMIT), 0.001)[1]["a"].weight <= LIMIT


def test_nothing_happens_without_requests() -> None:
    """While no request comes and none waits, all weights stay as they are."""
    pool = Pool({"a": Course(0.3, traffic(5, 5, 30))}, 0.02)
    assert weigh(pool, {"a": traffic(5, 5, 30)}, {"a": LIMIT}, 60) == (pool, {})


def test_a_new_daemon_goes_on_with_the_weights_that_it_finds() -> None:
    """What is not known of a server is taken from the weight that it has."""
    pool, _ = weigh(Pool(), {"a": traffic(5, 5, 30)}, {"a": LIMIT}, 0)
    assert pool.courses["a"].factor == 0.3


def test_counters_that_begin_anew_are_no_news() -> None:
    """A new worker counts from zero; the first look at it changes nothing."""
    pool = Pool({"a": Course(1.0, traffic(1000, 1000)), "b": Course(1.0, traffic(1000, 1000))}, 0.02)
    after = {"a": traffic(90, 10, current_count=80), "b": traffic(12, 11, current_count=1)}
    assert weigh(pool, after, dict.fromkeys("ab", LIMIT), 1)[1] == {}


def test_an_open_tunnel_does_not_wait() -> None:
    """A WebSocket or a long answer is at the server for hours, and has been answered."""
    shares = look(a=traffic(1110, 1100, current_count=110), b=traffic(1010, 1000, current_count=10))
    assert {one.weight for one in shares.values()} == {LIMIT}


def test_a_request_that_no_counter_tells_of_does_not_wait_for_ever() -> None:
    """Requests that ended without any counter are found out when fewer are at the server."""
    odd, limits = traffic(1100, 1000), dict.fromkeys("ab", LIMIT)
    pool, _ = weigh(Pool(), {"a": odd, "b": traffic()}, limits, 0)
    for step in range(1, 100):
        now = {"a": traffic(1100 + step, 1000 + step, current_count=1), "b": traffic(step, step)}
        pool, shares = weigh(pool, now, limits, 0.1)
    assert shares["a"].weight == LIMIT


def test_connections_that_are_accepted_late_cost_more() -> None:
    """In mode tcp the time that counts is the one in which a connection is accepted; long connections do not matter."""
    slow = traffic(1000, is_http=False, current_count=10, connect_ms=1000)
    fast = traffic(1000, is_http=False, current_count=900, connect_ms=1)
    shares = look(a=slow, b=fast, c=fast)
    assert shares["a"].weight < 10
    assert shares["b"].weight == shares["c"].weight == LIMIT


def test_a_look_after_a_gap_says_no_more_than_another_one() -> None:
    """Where nobody looked for two seconds, what waits at one moment is taken neither for the gap nor for a fault."""
    pool, limits = Pool(), dict.fromkeys(NAMES, LIMIT)
    for step in range(100):
        now = {name: traffic(8 * step + 1, 8 * step, current_count=1) for name in NAMES}
        pool, shares = weigh(pool, now, limits, 0.05 if step else 0)
    assert {one.weight for one in shares.values()} == {LIMIT}
    now = {name: traffic(8 * 140 + 1, 8 * 140, current_count=1) for name in NAMES}
    now["a"] = traffic(8 * 140 + 12, 8 * 140, current_count=12)
    pool, shares = weigh(pool, now, limits, 2.0)
    assert shares["a"].weight > 40
    assert {shares[name].weight for name in "bcde"} == {LIMIT}


def test_connections_that_stay_open_count_when_they_are_made() -> None:
    """In mode tcp a server that refuses connections gets hardly anything, though no other connection has ended."""
    refusing = traffic(1000, is_http=False, failed_count=1000)
    open_ones = traffic(1000, is_http=False, current_count=1000)
    shares = look(a=refusing, b=open_ones, c=open_ones)
    assert shares["a"].weight == 1
    assert shares["b"].weight == shares["c"].weight == LIMIT


_COUNTERS = st.builds(
    Traffic,
    weight=st.integers(0, 256),
    is_http=st.booleans(),
    is_up=st.booleans(),
    is_backup=st.just(False),
    **{
        name: st.integers(0, 10**12)
        for name in (
            "current_count", "connect_ms", "started_count", "answered_count", "broken_count", "failed_count"
        )
    },
)  # fmt: skip


@settings(max_examples=200, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    looks=st.lists(st.tuples(st.lists(_COUNTERS, min_size=5, max_size=5), st.floats(0, 100)), min_size=1, max_size=6),
    limits=st.lists(st.integers(0, 256), min_size=5, max_size=5),
)
def test_whatever_haproxy_reports_weights_are_sound(
    looks: list[tuple[list[Traffic], float]], limits: list[int]
) -> None:
    """Each weight is 1 to the limit, no server that is down or drained is touched, and not all cost more than usual."""
    pool, most = Pool(), dict(zip(NAMES, limits, strict=True))
    for counters, elapsed_s in looks:
        now = dict(zip(NAMES, counters, strict=True))
        pool, shares = weigh(pool, now, most, elapsed_s)
        for name, share in shares.items():
            assert 1 <= share.weight <= max(most[name], 1)
            assert FLOOR <= share.factor <= 1
            assert now[name].weight > 0
            assert now[name].is_up
        if shares:
            assert min(one.times for one in shares.values()) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_server_settles_and_recovers(seed: int) -> None:
    """One of five that is ten times slower gets less than 1.5 % within seconds, and all of its part after it heals."""
    servers = {name: Server() for name in NAMES}
    servers["a"].service_s = 0.2
    course = Simulation(servers, RATE, seed)
    course.run(5)
    course.got.clear()
    course.run(20)
    assert course.got.count("a") / len(course.got) < 0.015
    servers["a"].service_s = 0.02
    course.run(10)
    assert course.weights[0]["a"] == LIMIT


@pytest.mark.parametrize("load", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("seed", range(8))
def test_a_healed_server_is_back_in_ten_seconds_at_a_low_load(load: float, seed: int) -> None:
    """Where hardly any request comes, a server that was ten times slower is back ten seconds after it heals."""
    servers = {name: Server() for name in NAMES}
    course = Simulation(servers, 2 * load * RATE, seed)
    course.run(10)
    servers["a"].service_s = 0.2
    seen: list[int] = []
    course.run(20, lambda: seen.append(course.weights[0]["a"]))
    assert min(seen) < LIMIT / 10
    servers["a"].service_s = 0.02
    seen.clear()
    course.run(10, lambda: seen.append(course.weights[0]["a"]))
    assert LIMIT in seen


@pytest.mark.parametrize("load", [0.05, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_a_black_hole_gets_hardly_anything(load: float, seed: int) -> None:
    """Two seconds after one of five begins to fail at once, less than one request in a hundred fails."""
    servers = {name: Server() for name in NAMES}
    course = Simulation(servers, 2 * load * RATE, seed)
    course.run(5)
    servers["a"].failed_share = 1
    course.run(2)
    course.got.clear()
    course.failed_count = 0
    course.run(30)
    assert course.failed_count < 0.01 * len(course.got)


@pytest.mark.parametrize("seed", range(8))
def test_a_black_hole_is_seldom_tried_where_few_requests_come(seed: int) -> None:
    """With ten requests a second, less than one in a hundred fails while one of five servers fails all of its own."""
    servers = {name: Server() for name in NAMES}
    course = Simulation(servers, 10, seed)
    course.run(30)
    servers["a"].failed_share = 1
    course.run(10)
    course.got.clear()
    course.failed_count = 0
    course.run(100)
    assert course.failed_count < 0.01 * len(course.got)


@pytest.mark.parametrize("seed", range(3))
def test_servers_that_are_equally_bad_do_not_take_turns(seed: int) -> None:
    """Of three among five that fail most requests two get hardly anything, and the same third one keeps half."""
    servers = {name: Server() for name in NAMES}
    course = Simulation(servers, 200, seed)
    course.run(5)
    for name in "abc":
        servers[name].failed_share = 0.9
    course.run(10)
    low_counts: list[int] = []
    course.run(60, lambda: low_counts.append(sum(weight < 30 for weight in course.weights[0].values())))
    assert statistics.mean(low_counts) < 2.2


@pytest.mark.parametrize("load", [0.1, 0.6, 0.9])
def test_equal_servers_are_left_alone(load: float) -> None:
    """Servers that are equal keep nearly all of their weight, at any load: noise is not taken for news."""
    course = Simulation({name: Server() for name in NAMES}, 1000 * load, seed=1)
    course.run(5)
    seen: list[int] = []
    course.run(60, lambda: seen.extend(course.weights[0].values()))
    assert statistics.mean(seen) > 0.97 * LIMIT


@pytest.mark.parametrize("seed", [4, 9])
def test_equal_servers_do_not_fall_in_turns_near_full_load(seed: int) -> None:
    """At 95 % of what they can do, with queues that come and go by chance, equal servers keep nearly all their weight.

    With these seeds they lost more than a third of it when weights could fall twice as fast for waits.
    """
    course = Simulation({name: Server() for name in NAMES}, 950, seed)
    course.run(5)
    seen: list[int] = []
    course.run(60, lambda: seen.extend(course.weights[0].values()))
    assert statistics.mean(seen) > 0.9 * LIMIT


@pytest.mark.parametrize("seed", range(3))
def test_equal_servers_are_left_alone_by_a_machine_that_stalls(seed: int) -> None:
    """Where one pause of 33 lasts one to two seconds, no equal server is taken for a slow one."""
    chance = random.Random(seed)
    course = Simulation(
        {name: Server() for name in NAMES},
        RATE,
        seed,
        choose_pause_s=lambda: chance.uniform(1, 2) if chance.random() < 0.03 else 0.05,
    )
    course.run(5)
    seen: list[int] = []
    course.run(60, lambda: seen.extend(course.weights[0].values()))
    assert min(seen) > LIMIT / 2
    assert statistics.mean(seen) > 0.97 * LIMIT


@pytest.mark.parametrize("balancer_count", [1, 2])
@pytest.mark.parametrize("worker_count", [1, 2])
def test_a_small_server_does_not_swing(balancer_count: int, worker_count: int) -> None:
    """A server with a quarter or half of the others' workers is slow only under load: its part settles."""
    servers = {name: Server() for name in NAMES}
    servers["a"].worker_count = worker_count
    course = Simulation(servers, 700, 1, balancer_count)
    course.run(10)
    seen: list[float] = []
    course.run(60, lambda: seen.append(course.shares[0]["a"].factor))
    windows = [statistics.mean(seen[start : start + 100]) for start in range(0, len(seen), 100)]
    middle = statistics.mean(windows)
    assert 0.05 < middle < 0.9
    assert statistics.pstdev(windows) < 0.35 * middle, [f"{one:.2f}" for one in windows]

"""The law of scaling: readings and what they come to."""

import itertools

import pytest

from autoscale.world import SCALING, World, make_slots
from serf_haproxy.autoscale.law import Plan, Step, Verb, decide
from serf_haproxy.autoscale.reading import Memory, Reading
from serf_haproxy.autoscale.scaling import Scaling
from serf_haproxy.autoscale.slots import Slot, State
from serf_haproxy.services.peaks import WEEK_MIN, Peak


def verbs(plan: Plan) -> list[tuple[str, str]]:
    """Return the steps of a plan as pairs of words."""
    return [(step.verb.value, step.slot) for step in plan.steps]


def first(demand: int | None, slots: tuple[Slot, ...], scaling: Scaling = SCALING, week_min: int | None = None) -> Plan:
    """Return the plan of a first decision."""
    return decide(scaling, Reading(100.0, demand, slots, week_min=week_min), Memory())[0]


@pytest.mark.parametrize(
    ("demand", "wanted"),
    [(0, 1), (7, 1), (8, 2), (14, 2), (15, 3), (69, 10), (70, 10), (1000, 10)],
)
def test_servers_follow_the_demand(demand: int, wanted: int) -> None:
    """A demand needs its share of the target utilisation of each server, rounded up, within min and max."""
    plan = first(demand, make_slots(1))
    assert plan.wanted == wanted
    assert verbs(plan) == [("start", f"web{index}") for index in range(2, wanted + 1)]


@pytest.mark.parametrize(("target", "maxconn"), [(0.57, 100), (0.1, 1), (1.0, 3), (0.7, 30)])
def test_a_demand_that_fits_exactly_needs_no_other_server(target: float, maxconn: int) -> None:
    """Rounding of the product of target and maxconn adds no server."""
    scaling = SCALING._replace(target=target, server_maxconn=maxconn)
    capacity = round(target * maxconn * 10)
    assert first(capacity, make_slots(10), scaling).wanted <= 10
    assert first(capacity, make_slots(0), scaling).wanted == 10


def test_servers_that_start_count() -> None:
    """What starts already is not started again."""
    slots = list(make_slots(1))
    slots[1:3] = [slot._replace(state=State.STARTING, since_s=99.0) for slot in slots[1:3]]
    assert verbs(first(28, tuple(slots))) == [("start", "web4")]
    assert verbs(first(21, tuple(slots))) == []


def test_the_greatest_demand_of_three_seconds_counts() -> None:
    """A second of load is answered at once, and remembered for the window."""
    world = World()
    world.tick(0)
    assert verbs(world.tick(25)) == [("start", "web2"), ("start", "web3")]
    world.set("web2", state=State.ABSENT)
    assert verbs(world.tick(0)) == [("start", "web2")]
    world.set("web2", state=State.ABSENT)
    world.run(0, 3)
    assert world.plans[-1].demand_out == 0
    assert world.plans[-1].demand_in == 25


def test_servers_go_one_at_a_time() -> None:
    """After a window with less demand one server drains and stops, then, after the cooldown, the next one."""
    world = World(serving=4)
    plans = world.run(1, 90)
    assert [verbs(plan) for plan in plans] == [
        [("drain", "web4")],
        [("stop", "web4")],
        [("drain", "web3")],
        [("stop", "web3")],
        [("drain", "web2")],
        [("stop", "web2")],
    ]
    drains = [
        index for index, plan in enumerate(world.plans) if ("drain", "web") in [(v, s[:3]) for v, s in verbs(plan)]
    ]
    assert drains[0] == SCALING.in_window_s
    assert {after - before for before, after in itertools.pairwise(drains)} == {SCALING.cooldown_s + 1}
    assert world.count(State.SERVING) == 1
    assert plans[0].reason == "up to 1 request at once in the last 60 s, 1.0 on average, need 1 server; 4 are there"


def test_several_may_drain_at_once_where_the_rules_say_so() -> None:
    """`at_once` servers drain at the same time, and never the last one."""
    world = World(SCALING._replace(at_once=4), serving=10)
    plans = [plan for plan in world.run(0, 120) if plan.steps[0].verb is Verb.DRAIN]
    assert [len(plan.steps) for plan in plans] == [4, 4, 1]


def test_of_many_servers_a_fifth_may_drain_at_once() -> None:
    """Of thirty servers six drain at the same time, of nine one."""
    for serving, number in ((30, 6), (9, 1)):
        world = World(SCALING._replace(max=40), serving=serving)
        assert len(world.run(0, 62)[0].steps) == number


@pytest.mark.parametrize(
    ("serving", "demand", "steps"),
    [
        (200, 1435, 0),  # needs 205
        (200, 1442, 1),  # 206, of which five are no reason for a start
        (200, 1540, 15),  # 220
        (39, 280, 0),  # 40
        (38, 273, 1),  # 39: of fewer than forty servers each counts
    ],
)
def test_one_of_forty_servers_is_no_reason_to_start(serving: int, demand: int, steps: int) -> None:
    """Servers are started for a mean that needs a fortieth more than there are, up to that fortieth less."""
    plan = first(demand, make_slots(serving, 250), SCALING._replace(max=250))
    assert [step.verb for step in plan.steps] == [Verb.START] * steps


@pytest.mark.parametrize(("demand", "left"), [(1372, 200), (1358, 198), (1330, 194)])
def test_one_of_forty_servers_is_no_reason_to_end_one(demand: int, left: int) -> None:
    """Servers go down to a fortieth more than the mean needs: of 196 to 200, of 194 to 198, of 190 to 194."""
    world = World(SCALING._replace(max=250), serving=200)
    world.run(demand, 300)
    assert world.count(State.SERVING) == left


def test_the_least_number_of_servers_counts_whole() -> None:
    """Where more than forty servers are the fewest that may be, all of them are started."""
    scaling = SCALING._replace(min=203, max=250)
    assert len(first(1400, make_slots(200, 250), scaling).steps) == 3


def test_the_victim_has_the_least_to_do_and_is_the_newest() -> None:
    """Of the servers in service that one drains that has the least in flight, of these the newest."""
    world = World(serving=4)
    world.set("web1", in_flight=0, is_kept=True)
    world.set("web2", in_flight=1, since_s=5.0)
    world.set("web3", in_flight=1, since_s=9.0)
    world.set("web4", in_flight=2, since_s=20.0)
    assert verbs(world.run(1, 62)[0]) == [("drain", "web3")]


def test_a_server_in_maintenance_is_no_capacity_and_is_left_alone() -> None:
    """What an operator has taken out is replaced, and neither drained nor stopped; it counts for max."""
    world = World(SCALING._replace(min=2, max=3), serving=2)
    world.set("web1", is_kept=True)
    assert verbs(world.tick(0)) == [("start", "web3")]
    world.run(0, 200)
    assert world.slots["web1"].state is State.SERVING
    assert verbs(world.tick(100)) == []
    assert "3 of 3 slots are taken" in world.plans[-1].reason


def test_the_last_server_in_service_stays() -> None:
    """While another one is in maintenance, the last one in service is not drained."""
    world = World(serving=2)
    world.set("web1", is_kept=True)
    assert world.run(0, 200) == []


def test_blind_adds_and_never_takes_away() -> None:
    """While the demand is not known whole, what is known of it may add servers; none drains, none stops."""
    world = World(serving=3)
    assert world.run(0, 300, "lb2 does not answer") == []
    assert world.plans[-1].reason == "no server is taken away: lb2 does not answer"
    assert verbs(world.tick(36, "lb2 does not answer")) == [("start", "web4"), ("start", "web5")]


def test_nothing_known_changes_nothing() -> None:
    """Without any answer all servers stay, and those that are missing for min are started."""
    world = World(serving=3)
    assert world.run(None, 100, "no answer") == []
    assert [plan.steps for plan in World(serving=0).run(None, 3, "no answer")] == [(Step(Verb.START, "web1"),)]


def test_a_long_gap_begins_the_window_anew() -> None:
    """After more than five seconds blind a whole window has to be seen again; a shorter gap does not matter."""
    for gap_s, until in ((4, 57), (7, 60)):
        world = World(serving=2)
        world.run(0, 50)
        world.run(0, gap_s, "lb2 does not answer")
        world.run(0, 100)
        drains = [index for index, plan in enumerate(world.plans) if plan.steps and plan.steps[0].verb is Verb.DRAIN]
        assert drains[0] == (60 if gap_s == 4 else 50 + gap_s + until)


def test_a_drained_server_is_not_stopped_blind() -> None:
    """A balancer that does not answer may still send requests to a server that drains."""
    world = World(serving=2)
    world.run(0, 61)
    assert world.count(State.DRAINING) == 1
    world.run(0, 100, "lb2 does not answer")
    assert world.count(State.DRAINING) == 1
    assert verbs(world.tick(0)) == [("stop", "web2")]


def test_load_that_comes_back_ends_a_drain() -> None:
    """A server that drains goes back into service before another one is started, at any moment before its stop."""
    for drain_s in (1.0, 50.0):
        world = World(serving=2, drain_s=drain_s)
        world.run(0, 61)
        world.run(0, int(drain_s) - 1)
        assert verbs(world.tick(18)) == [("return", "web2"), ("start", "web3")]


def test_a_drain_lasts_until_empty_or_its_limit() -> None:
    """A drain ends when every balancer says empty, after its least time; at its limit in any case."""
    scaling = SCALING._replace(drain_least_s=20, drain_limit_s=40)
    for drain_s, lasts_s in ((1.0, 20), (30.0, 30), (1000.0, 40)):
        world = World(scaling, serving=2, drain_s=drain_s)
        plans = world.run(0, 120)
        ats = [world.plans.index(plan) for plan in plans]
        assert [verbs(plan)[0][0] for plan in plans] == ["drain", "stop"]
        assert ats[1] - ats[0] == lasts_s


def test_a_sudden_load_and_its_end_keep_the_plan() -> None:
    """The servers of a sudden load stay for a whole window after its end, and none goes while one still starts."""
    world = World(start_s=100.0)
    world.run(0, 100)
    world.run(50, 3)
    assert world.count(State.STARTING) == 5
    assert world.run(0, 95) == []
    assert "still to come into service" in world.plans[-1].reason
    assert verbs(world.run(0, 30)[0])[0][0] == "drain"


def test_a_constant_demand_changes_nothing() -> None:
    """With what the demand needs, nothing comes and nothing goes, up to the margin below."""
    for demand in (15, 20, 21):
        world = World(serving=3)
        assert world.run(demand, 600) == []


def test_a_server_that_never_joins_is_replaced() -> None:
    """A slot that is not in service within its limit no longer counts: it is stopped, another one started."""
    world = World(broken=frozenset({"web2"}))
    world.run(8, 119)
    assert world.count(State.SERVING, State.STARTING) == 2
    plan, *rest = world.run(8, 4)
    assert verbs(plan) == [("stop", "web2")]
    assert "a start failed: the next one is after a pause" in plan.reason
    assert [verbs(plan) for plan in rest] == [[("start", "web3")]]


def test_pauses_grow_while_every_start_fails() -> None:
    """Broken slots are tried one at a time after the second failure, with pauses that double up to five minutes."""
    world = World(SCALING._replace(start_limit_s=5), broken=frozenset(f"web{index}" for index in range(2, 11)))
    plans = world.run(21, 3600)
    starts = [world.plans.index(plan) for plan in plans if plan.steps[0].verb is Verb.START]
    assert len(starts) <= 20
    pauses = [after - before for before, after in itertools.pairwise(starts)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(305, abs=2)
    assert all(
        len(plan.steps) == 1 for plan in plans if plan.steps[0].verb is Verb.START and world.plans.index(plan) > 20
    )


def test_one_good_start_ends_the_pauses() -> None:
    """A server that has come into service and stays lets all others start."""
    world = World(SCALING._replace(start_limit_s=5), broken=frozenset(f"web{index}" for index in range(2, 11)))
    world.run(70, 600)
    world.broken = frozenset()
    world.run(70, 400)
    assert world.count(State.SERVING) == 10
    assert world.memory.starts.row == 0


def test_a_server_that_ended_by_itself_is_replaced() -> None:
    """A slot whose server ended is cleared and another one started; one that failed lately is taken last."""
    world = World(serving=2)
    world.tick(14)
    world.set("web1", state=State.FAILED, since_s=world.now_s)
    assert verbs(world.tick(14)) == [("stop", "web1")]
    assert [verbs(plan) for plan in world.run(14, 3)] == [[("start", "web3")]]


def test_more_servers_than_max_drain_without_a_window() -> None:
    """Servers beyond max drain at once, one at a time, and not while blind."""
    world = World(SCALING, serving=5)
    world.scaling = SCALING._replace(max=3)
    assert world.run(0, 3, "lb2 does not answer") == []
    plans = world.run(35, 10)
    assert [verbs(plan)[0][0] for plan in plans] == ["drain", "stop", "drain", "stop"]
    assert "3 servers are the most" in plans[0].reason
    assert {plan.wanted for plan in world.plans} == {3}


def test_the_clock_of_the_readings_may_begin_anew() -> None:
    """A clock that went back makes the law forget, and so take nothing away for a whole window."""
    world = World(serving=3)
    world.run(0, 59)
    world.now_s = 5.0
    assert world.run(0, 59) == []
    assert verbs(world.run(0, 2)[0]) == [("drain", "web3")]


def test_a_clock_that_leaps_forward_takes_nothing_away() -> None:
    """After hours without a look nothing is known of the demand meanwhile."""
    world = World(serving=3)
    world.run(0, 30)
    world.now_s += 10_000
    assert world.run(0, 59) == []


def test_none_at_all() -> None:
    """With a min of 0 the last server goes after a longer window, and the first request starts one."""
    world = World(SCALING._replace(min=0), serving=2)
    plans = world.run(0, 400)
    ats = [world.plans.index(plan) for plan in plans]
    assert [verbs(plan)[0] for plan in plans] == [
        ("drain", "web2"),
        ("stop", "web2"),
        ("drain", "web1"),
        ("stop", "web1"),
    ]
    assert (ats[0], ats[2]) == (60, 300)
    assert world.run(0, 1000) == []
    assert verbs(world.tick(1)) == [("start", "web1")]
    assert "0 are there" in world.plans[-1].reason


@pytest.mark.parametrize(
    ("week_min", "wanted"),
    [(None, 1), (479, 1), (480, 6), (719, 6), (720, 1), (WEEK_MIN - 60, 4), (0, 4), (59, 4), (60, 1), (3000, 10)],
)
def test_peaks_of_the_week_have_their_servers(week_min: int | None, wanted: int) -> None:
    """During a peak there are at least its servers, over the end of the week too, and never more than max."""
    peaks = (Peak(480, 720, 6), Peak(WEEK_MIN - 60, 60, 4), Peak(3000, 3001, 99))
    plan = first(0, make_slots(1), SCALING._replace(peaks=peaks), week_min=week_min)
    assert plan.wanted == wanted
    assert ("the fewest now" in plan.reason) == (wanted > 1)


def test_a_moment_of_a_short_queue_is_chance() -> None:
    """A second with no longer a queue than chance explains adds nothing; one request more adds servers for all."""
    for demand, wanted in ((36, 3), (37, 5)):
        world = World(serving=3)
        world.run(15, 100)
        assert world.tick(demand - 1).wanted == wanted


def test_two_controllers_agree_about_slots() -> None:
    """Two that see the same slots start the same ones, so that both together start no more than one of them would."""
    slots = make_slots(2)
    less, more = (first(demand, slots) for demand in (28, 50))
    assert set(less.steps) < set(more.steps)

"""The law of scaling, for any load and any slots."""

import itertools
import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale.world import SCALING, World, name_slots
from serf_haproxy.autoscale.law import Plan, Verb, decide
from serf_haproxy.autoscale.reading import Memory, Reading
from serf_haproxy.autoscale.scaling import Scaling
from serf_haproxy.autoscale.slots import Slot, State

NUMBER = 8
SCALINGS = st.builds(
    lambda least, more, maxconn, target, window_s, cooldown_s, at_once: Scaling(
        least,
        max(1, least + more),
        maxconn,
        target,
        in_window_s=window_s,
        cooldown_s=cooldown_s,
        start_limit_s=20.0,
        drain_limit_s=20.0,
        zero_after_s=30.0,
        at_once=at_once,
    ),
    st.integers(0, 3),
    st.integers(0, NUMBER - 3),
    st.integers(1, 20),
    st.floats(0.1, 1),
    st.sampled_from([10.0, 15.0]),
    st.sampled_from([0.0, 5.0]),
    st.integers(1, 3),
)
SLOTS = st.lists(
    st.builds(
        Slot,
        st.just(""),
        st.sampled_from(list(State)),
        st.floats(0, 200),
        st.integers(0, 20),
        st.booleans(),
        st.booleans(),
    ),
    max_size=NUMBER + 2,
).map(lambda slots: tuple(slot._replace(name=name) for slot, name in zip(slots, name_slots(NUMBER + 2), strict=False)))
# What happens in a second: the demand, None if nothing is known of it; why it is not known whole; what befalls a slot.
SECONDS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 200), st.just(0)),
        st.sampled_from(["", "", "", "lb2 does not answer"]),
        st.sampled_from(["", "", "", "ends", "breaks", "heals"]),
        st.integers(1, NUMBER),
        st.integers(1, 20),
    ),
    max_size=12,
)


def list_verbs(plans: Sequence[Plan]) -> list[Verb]:
    """Return what was done, step by step."""
    return [step.verb for plan in plans for step in plan.steps]


def befall(world: World, what: str, name: str) -> None:
    """Let something happen to a slot from outside."""
    if name not in world.slots:
        return
    if what == "ends" and world.slots[name].state is not State.ABSENT:
        world.set(name, state=State.FAILED, since_s=world.now_s)
    elif what == "breaks":
        world.broken |= {name}
    elif what == "heals":
        world.broken -= {name}


@given(
    scaling=SCALINGS,
    seconds=SECONDS,
    serving=st.integers(0, NUMBER),
    work_s=st.none() | st.floats(0.001, 100),
)
def test_whatever_happens_the_number_stays_within_its_limits(
    scaling: Scaling, seconds: list[tuple[int | None, str, str, int, int]], serving: int, work_s: float | None
) -> None:
    """At most max exist, at least min are wanted, no drain goes below min, and no more drain than may."""
    world = World(scaling, serving=min(serving, scaling.max), work_s=work_s)
    for demand, blind, what, index, span_s in seconds:
        befall(world, what, f"web{index}")
        for _ in range(span_s):
            before = world.count(State.SERVING)
            plan = world.tick(demand, blind)
            assert scaling.min <= plan.wanted <= scaling.max
            assert len(world.slots) - world.count(State.ABSENT) <= scaling.max
            assert world.count(State.DRAINING) <= max(scaling.at_once, NUMBER // 5)
            drains = list_verbs([plan]).count(Verb.DRAIN)
            assert not drains or before - drains >= scaling.min
            assert not (drains and blind)


@given(
    scaling=SCALINGS, slots=SLOTS, demand=st.one_of(st.none(), st.integers(0, 300)), blind=st.sampled_from(["", "why"])
)
def test_any_slots_at_all(scaling: Scaling, slots: tuple[Slot, ...], demand: int | None, blind: str) -> None:
    """Steps fit the states of their slots, a slot is in one step only, the same reading gives the same steps."""
    course = Memory()
    for second in range(8):  # so that taking servers away is possible
        _, course = decide(scaling, Reading(200.0 + 4 * second, 0), course)
    reading = Reading(232.0, demand, slots, blind)
    plan, after = decide(scaling, reading, course)
    assert decide(scaling, reading, after)[0].steps == plan.steps
    states = {slot.name: slot for slot in slots}
    fitting = {
        Verb.START: {State.ABSENT},
        Verb.DRAIN: {State.SERVING},
        Verb.RETURN: {State.DRAINING},
        Verb.STOP: {State.DRAINING, State.FAILED, State.STARTING},
    }
    assert len({step.slot for step in plan.steps}) == len(plan.steps)
    for step in plan.steps:
        state = states[step.slot].state
        assert state in fitting[step.verb]
        assert not states[step.slot].is_kept
        assert not blind or (step.verb is not Verb.DRAIN and (step.verb, state) != (Verb.STOP, State.DRAINING))
    existing = sum(slot.state is not State.ABSENT for slot in slots)
    assert existing + list_verbs([plan]).count(Verb.START) <= max(existing, scaling.max)


@given(
    scaling=SCALINGS,
    slots=SLOTS,
    demands=st.lists(st.integers(0, 300), min_size=1, max_size=10),
    extra=st.integers(0, 100),
)
def test_more_demand_never_means_fewer_servers(
    scaling: Scaling, slots: tuple[Slot, ...], demands: list[int], extra: int
) -> None:
    """A load that is never below another one gets no fewer servers, neither in its plan nor by its steps."""
    plans = []
    for addition in (0, extra):
        memory = Memory()
        for second, demand in enumerate(demands):
            plan, memory = decide(scaling, Reading(second * 7.0, demand + addition, slots), memory)
        plans.append(plan)
    less, more = (
        plan.wanted + list_verbs([plan]).count(Verb.START) + list_verbs([plan]).count(Verb.RETURN) for plan in plans
    )
    assert plans[0].wanted <= plans[1].wanted
    assert less <= more


@pytest.mark.parametrize("work_s", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("start_s", [2, 15, 40])
def test_the_end_of_a_queue_starts_nothing(work_s: float, start_s: int) -> None:
    """After a sudden load that stays there are never more servers than while its queue lasted, or than it needs."""
    for before, times, part in itertools.product((5.0, 30.0), (2.0, 5.0), (0.05, 0.5, 1.0)):
        world = World(SCALING._replace(max=150), serving=math.ceil(before / 7), start_s=start_s, work_s=work_s)
        world.run(round(before), 3)
        began_s, load = world.now_s, times * before
        demand = before + part * (load - before) / work_s  # it came within the last second
        most = math.ceil(load / 7) + 1  # the demand is rounded
        while world.now_s < began_s + start_s + 2 or demand > 10 * world.count(State.SERVING):
            most = max(most, world.tick(round(demand)).wanted)
            demand = flow(world, demand, load)
        for _ in range(20):
            assert world.tick(round(demand)).wanted <= most, (before, times, part)
            demand = flow(world, demand, load)


def flow(world: World, demand: float, load: float) -> float:
    """Return the demand after a second in which requests come that need so many places, with the world's servers."""
    assert world.work_s
    places = 10.0 * world.count(State.SERVING)
    for _ in range(100):
        demand += 0.01 * (load - min(demand, places)) / world.work_s
    return demand


@pytest.mark.parametrize("limit_s", [5.0, 60.0])
def test_starts_that_fail_are_bounded(limit_s: float) -> None:
    """While no start succeeds, there is one start in five minutes, and a few more at the beginning."""
    world = World(SCALING._replace(start_limit_s=limit_s), broken=frozenset(name_slots(10)[1:]))
    world.run(70, 10_800)
    assert list_verbs(world.plans).count(Verb.START) <= 10_800 / 300 + 25


@settings(max_examples=30)
@given(demands=st.tuples(st.integers(0, 120), st.integers(0, 120)), serving=st.integers(1, 10))
def test_two_controllers_stay_within_max_and_converge(demands: tuple[int, int], serving: int) -> None:
    """Two that act on the same slots never have more than max; once they read the same, they come to rest."""
    world = World(serving=serving)
    memories = [Memory(), Memory()]

    def take_turns(loads: Sequence[int], span_s: int) -> list[Plan]:
        plans = []
        for _ in range(span_s):
            for index, load in enumerate(loads):
                world.memory = memories[index]
                plans.append(world.tick(load))
                memories[index] = world.memory
                assert len(world.slots) - world.count(State.ABSENT) <= SCALING.max
        return plans

    take_turns(demands, 90)
    take_turns((max(demands), max(demands)), 220)
    assert list_verbs(take_turns((max(demands), max(demands)), 60)) == []
    assert world.count(State.SERVING) >= min(10, -(-max(demands) // 7))


@pytest.mark.parametrize("load", [1, 3, 5, 8, 12, 17, 23, 30, 42, 60, 90])
def test_a_constant_load_does_not_swing(load: int) -> None:
    """With random requests at a constant rate no server that was taken away is started again, for half an hour."""
    world = World(SCALING._replace(max=40), serving=load // 7 + 3)
    chance = random.Random(load)
    for _ in range(600):  # what was there at the beginning has gone
        world.tick(draw(chance, load))
    settled = len(world.plans)
    for _ in range(1800):
        world.tick(draw(chance, load))
    verbs = list_verbs(world.plans[settled:])
    assert Verb.DRAIN not in verbs or Verb.START not in verbs[verbs.index(Verb.DRAIN) :]


def draw(chance: random.Random, mean: float) -> int:
    """Return a number with Poisson's distribution: requests in flight at a constant rate."""
    number, passed = 0, chance.expovariate(1)
    while passed < mean:
        number += 1
        passed += chance.expovariate(1)
    return number

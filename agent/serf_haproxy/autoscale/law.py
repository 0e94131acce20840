"""The law of scaling: from the demand for one service to the slots that are started, drained and stopped. Pure.

The demand is what is in flight or queued, at all balancers together. Servers are added at once when requests have to
wait, and when the mean demand needs them; what starts counts as capacity. They are taken away one at a time, when mean
and peak of a whole window allow it with a margin, and never while the demand is not known whole. So what a sudden load
has brought outlives that load by a whole window. `docs/explanation/autoscaling.md` has the rules and their reasons.
"""

import enum
from typing import NamedTuple

from serf_haproxy.autoscale.amount import Sight, Verdict, judge
from serf_haproxy.autoscale.course import Look, add
from serf_haproxy.autoscale.queue import follow, is_long
from serf_haproxy.autoscale.reading import Memory, Reading
from serf_haproxy.autoscale.scaling import Scaling
from serf_haproxy.autoscale.slots import Tally, choose_returns, choose_starts, choose_victims, count


class Verb(enum.Enum):
    """What is to be done with a slot. Each may be repeated without harm."""

    RETURN = "return"
    """End its drain: it goes back into service."""
    START = "start"
    DRAIN = "drain"
    STOP = "stop"
    """Let the server leave, then end it: after its drain, or because its start failed."""


class Step(NamedTuple):
    """One slot, and what is to be done with it."""

    verb: Verb
    slot: str


class Plan(NamedTuple):
    """What a decision came to.

    Attributes:
        wanted: How many servers should be in service, `min` to `max`.
        have: How many are in service or start.
        steps: What is to be done now; what adds servers comes first. A step that did not work is in the next plan
            again, so whoever takes the steps has to pace what fails.
        reason: Why, in one line.
        until_s: When the decision may become another one though the demand stays; None if it does not.
        demand_out: The greatest demand of `out_window_s`.
        demand_in: The greatest demand of `in_window_s`.
        mean: The mean demand of the last minute.
    """

    wanted: int
    have: int
    steps: tuple[Step, ...]
    reason: str
    until_s: float | None
    demand_out: int
    demand_in: int
    mean: float


def decide(scaling: Scaling, reading: Reading, memory: Memory) -> tuple[Plan, Memory]:
    """Return what to do now for one service, and what to remember.

    The same reading again, with what was remembered, gives the same steps.
    """
    tally = count(reading.slots, scaling, reading.now_s)
    memory = look(scaling, reading, tally, memory)
    verdict = judge(Sight(scaling, reading, tally, memory))
    steps = choose(verdict, reading, tally, memory)
    windows_s = (scaling.out_window_s, scaling.in_window_s)
    out, kept = (memory.course.find_peak(reading.now_s, window_s) for window_s in windows_s)
    have, mean = tally.serving + tally.starting, memory.course.mean or 0.0
    return Plan(verdict.wanted, have, steps, verdict.reason, verdict.until_s, out, kept, mean), memory


def look(scaling: Scaling, reading: Reading, tally: Tally, memory: Memory) -> Memory:
    """Return what is remembered after a reading."""
    now_s, have = reading.now_s, tally.serving + tally.starting
    if now_s < memory.now_s:
        memory = Memory()  # another clock: its times mean nothing
    keep_s = max(scaling.in_window_s, scaling.out_window_s, 0 if scaling.min else scaling.zero_after_s)
    flow, level = follow(scaling, reading, tally, memory.flow), float(reading.demand or 0)
    if flow.offered is not None and is_long(level, scaling.server_maxconn * tally.serving):
        level = min(flow.offered, level)  # what waits needs no server of its own
    course = add(memory.course, now_s, Look(reading.demand, not reading.blind, level), keep_s)
    changed_s = memory.changed_s if memory.have in (None, have) else now_s
    return Memory(now_s, course, memory.starts.learn(tally, now_s), changed_s, have, flow)


def choose(verdict: Verdict, reading: Reading, tally: Tally, memory: Memory) -> tuple[Step, ...]:
    """Return the steps of a verdict: which slots come and go."""
    returning = choose_returns(reading.slots, verdict.more) if verdict.more > 0 else []
    distrusted = {name for name, _ in memory.starts.seen}
    starting = choose_starts(reading.slots, verdict.startable, distrusted) if verdict.startable else []
    draining = choose_victims(reading.slots, -verdict.more) if verdict.more < 0 else []
    stopping = [name for name, _ in tally.failed]
    if not reading.blind:
        stopping += [name for name in tally.drained if name not in returning]
    chosen = ((Verb.RETURN, returning), (Verb.START, starting), (Verb.DRAIN, draining), (Verb.STOP, stopping))
    return tuple(Step(verb, name) for verb, names in chosen for name in names)

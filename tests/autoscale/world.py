"""A service whose slots do what a plan says: its servers start, serve, drain and stop in a time that is given."""

import dataclasses

from serf_haproxy.autoscale.law import Plan, Verb, decide
from serf_haproxy.autoscale.reading import Memory, Reading
from serf_haproxy.autoscale.scaling import Scaling
from serf_haproxy.autoscale.slots import Slot, State

SCALING = Scaling(min=1, max=10, server_maxconn=10)  # 7 requests for each server


def name_slots(number: int) -> list[str]:
    """Return the names of slots."""
    return [f"web{index}" for index in range(1, number + 1)]


def make_slots(serving: int, number: int = 10, since_s: float = 0.0) -> tuple[Slot, ...]:
    """Return slots of which the first ones serve, and the others are absent."""
    return tuple(
        Slot(name, State.SERVING if index < serving else State.ABSENT, since_s)
        for index, name in enumerate(name_slots(number))
    )


@dataclasses.dataclass
class World:
    """Slots, moved by plans, in steps of a second.

    Attributes:
        broken: Slots whose server never comes into service.
        work_s: How long a server works at a request, where that is known.
    """

    scaling: Scaling = SCALING
    serving: int = 1
    start_s: float = 5.0
    drain_s: float = 1.0
    broken: frozenset[str] = frozenset()
    work_s: float | None = None
    now_s: float = 1000.0
    memory: Memory = dataclasses.field(default_factory=Memory)
    slots: dict[str, Slot] = dataclasses.field(default_factory=dict)
    plans: list[Plan] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.slots = {slot.name: slot for slot in make_slots(self.serving, self.scaling.max)}

    def set(self, name: str, **changes: object) -> None:
        """Change a slot from outside."""
        self.slots[name] = self.slots[name]._replace(**changes)

    def count(self, *states: State) -> int:
        """Return how many slots are in one of these states."""
        return sum(slot.state in states for slot in self.slots.values())

    def tick(self, demand: int | None, blind: str = "", week_min: int | None = None) -> Plan:
        """Let a second go by: decide, and do what the plan says."""
        self.now_s += 1
        self._age()
        start_s = self.start_s if self.work_s else None
        reading = Reading(self.now_s, demand, tuple(self.slots.values()), blind, week_min, self.work_s, start_s)
        plan, self.memory = decide(self.scaling, reading, self.memory)
        again, _ = decide(self.scaling, reading, self.memory)
        assert again == plan
        for step in plan.steps:
            self._take(step.verb, step.slot)
        self.plans.append(plan)
        return plan

    def run(self, demand: int | None, span_s: int, blind: str = "") -> list[Plan]:
        """Let some seconds go by with the same demand; return the plans that had steps."""
        plans = [self.tick(demand, blind) for _ in range(span_s)]
        return [plan for plan in plans if plan.steps]

    def _age(self) -> None:
        for slot in self.slots.values():
            age_s = self.now_s - slot.since_s
            if slot.state is State.STARTING and age_s >= self.start_s and slot.name not in self.broken:
                self.set(slot.name, state=State.SERVING, since_s=self.now_s)
            elif slot.state is State.DRAINING and age_s >= self.drain_s:
                self.set(slot.name, is_empty=True)
            elif slot.state is State.STOPPING:
                self.set(slot.name, state=State.ABSENT, since_s=self.now_s)

    def _take(self, verb: Verb, name: str) -> None:
        state = {
            Verb.START: State.STARTING,
            Verb.DRAIN: State.DRAINING,
            Verb.RETURN: State.SERVING,
            Verb.STOP: State.STOPPING,
        }[verb]
        allowed = {
            Verb.START: {State.ABSENT},
            Verb.DRAIN: {State.SERVING},
            Verb.RETURN: {State.DRAINING},
            Verb.STOP: {State.DRAINING, State.FAILED, State.STARTING},
        }[verb]
        assert self.slots[name].state in allowed
        self.set(name, state=state, since_s=self.now_s, is_empty=False)

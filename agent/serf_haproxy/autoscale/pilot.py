"""The pilot of one service: looks, has the law decide, and takes the steps."""

import logging
from collections.abc import Collection, Mapping
from typing import NamedTuple

from serf_haproxy.autoscale.executor import is_slot
from serf_haproxy.autoscale.gauge import Gauge
from serf_haproxy.autoscale.hands import Act, Hands
from serf_haproxy.autoscale.law import Plan, Verb, decide
from serf_haproxy.autoscale.orders import Orders, Standing
from serf_haproxy.autoscale.reading import Memory, Reading
from serf_haproxy.autoscale.scaling import Scaling
from serf_haproxy.autoscale.slots import Slot, State
from serf_haproxy.autoscale.survey import Sight, find_fixed, find_slots, measure_start
from serf_haproxy.autoscale.wire import Load
from serf_haproxy.services.peaks import find_week_min
from serf_haproxy.services.scaling import Scale

log = logging.getLogger("serf-haproxy")


class View(NamedTuple):
    """What is seen of a service at one moment, beside what the executor says.

    Attributes:
        now_s: The monotonic clock.
        at_s: The time of day, seconds since the epoch.
        gauge: The load at this balancer.
        loads: The loads at other balancers.
        standing: The orders that have effect.
        blind: Why the demand is not known whole, or must not be relied on; "" if it is.
    """

    now_s: float
    at_s: float
    gauge: Gauge
    loads: Mapping[str, Load]
    standing: Standing
    blind: str


class Event(NamedTuple):
    """Something to be told: of a slot, or of the whole service where `slot` is empty."""

    slot: str
    what: str
    why: str


class Pilot:
    """What scales one service; `counts` says how often what was decided, and what came of it.

    Args:
        name: The service.
        scale: How its servers are started and stopped.
        rules: The rules of the law.
        hands: What has them started and stopped.
        orders: How servers are drained.
    """

    def __init__(self, name: str, scale: Scale, rules: Scaling, hands: Hands, orders: Orders) -> None:
        self.name, self.scale, self.rules = name, scale, rules
        self._orders = orders
        self.hands = hands
        self.memory = Memory()
        self.slots: tuple[Slot, ...] = ()
        self.served: set[str] = set()
        self.plan: Plan | None = None
        self.reading: Reading | None = None
        self.fixed = 0
        self.start_s: float | None = None
        self.counts: dict[str, int] = {}

    def look(self, view: View) -> list[Event]:
        """Look at the slots and decide; return what happened since the last look. Nothing is done yet."""
        events = [self._describe(act) for act in self.hands.collect(view.now_s)]
        busy = {slot: verb for slot, (verb, _) in self.hands.find_busy().items()}
        ours, kept = set(view.standing.ours), view.standing.find_kept(self.name)
        sight = Sight(self.hands.filled, busy, view.gauge, view.loads, ours, kept, self.served)
        before = self.slots
        self.slots = find_slots(self.scale, sight, {slot.name: slot for slot in before}, view.now_s)
        self.start_s = measure_start(self.start_s, before, self.slots, self.served)
        self.fixed = find_fixed(sight, self.slots)
        self.served |= {slot.name for slot in self.slots if slot.state is State.SERVING}
        self.served -= {slot.name for slot in self.slots if slot.state is State.ABSENT}
        blind = view.blind
        if not self.hands.is_known(view.now_s):
            blind = self.hands.fault or "the executor does not say what runs"
        demand = view.gauge.demand + sum(load.demand for load in view.loads.values())
        left = max(0, demand - int(self.fixed * self.rules.capacity))
        week_min = find_week_min(self.scale.time_zone, view.at_s) if self.rules.peaks else None
        works_s = [view.gauge.work_s, *(load.work_s for load in view.loads.values())]
        work_s = max((one_s for one_s in works_s if one_s), default=None)
        self.reading = Reading(view.now_s, left, self.slots, blind, week_min, work_s, self.start_s)
        plan = self.plan
        self.plan, self.memory = decide(self.rules, self.reading, self.memory)
        if plan is None or (plan.wanted, plan.have) != (self.plan.wanted, self.plan.have):
            log.debug("%s", f"service {self.name}: {self.plan.reason}")
        return events

    def act(self, view: View) -> list[Event]:
        """Take the steps of the last decision; return what was begun.

        Raises:
            SystemFault: An order cannot be given.
        """
        if self.plan is None or not self.hands.is_known(view.now_s):
            return []
        events = []
        reason = self.plan.reason
        serving = sum(slot.state is State.SERVING for slot in self.slots) + self.fixed
        for verb, slot in self.plan.steps:
            if verb is Verb.DRAIN:
                self._orders.drain(slot, reason, self.rules.drain_limit_s, is_last=serving == 1)
                serving -= 1
                events.append(Event(slot, "drain", reason))
            elif verb is Verb.RETURN:
                self._orders.undo(slot)
                events.append(Event(slot, "return", reason))
            else:
                events += self._tell(verb, slot, view, self._explain_stop(slot) if verb is Verb.STOP else reason)
        self._clean_up(view, {step.slot for step in self.plan.steps})
        return events

    def _explain_stop(self, name: str) -> str:
        slot = next(slot for slot in self.slots if slot.name == name)
        if slot.state is State.DRAINING:
            limit_s = f"{self.rules.drain_limit_s:g} s"
            return "it is drained" if slot.is_empty else f"it still has {slot.in_flight} requests after {limit_s}"
        limit_s = f"{self.rules.start_limit_s:g} s"
        return "it does not run" if slot.state is State.FAILED else f"it is not in service {limit_s} after its start"

    def _tell(self, verb: Verb, slot: str, view: View, reason: str) -> list[Event]:
        if verb is Verb.START and slot in view.standing.ours:
            self._orders.undo(slot)
        return [Event(slot, verb.value, reason)] if self.hands.tell(verb, slot, view.now_s) else []

    def _clean_up(self, view: View, touched: Collection[str]) -> None:
        """Undo the orders about servers that have gone."""
        for slot in self.slots:
            is_gone = slot.state is State.ABSENT and slot.name not in view.gauge.servers
            if is_gone and slot.name in view.standing.ours and slot.name not in touched:
                self._orders.undo(slot.name)

    def _describe(self, act: Act) -> Event:
        if not act.fault:
            return Event(act.slot, f"{act.verb.value} done", f"it took {act.took_s:.1f} s")
        log.warning("%s", f"service {self.name}: slot {act.slot}: {act.verb.value} failed: {act.fault}")
        return Event(act.slot, f"{act.verb.value} failed", act.fault)

    def has(self, slot: str) -> bool:
        """Return whether a name is one of a slot of this service."""
        return is_slot(self.scale, slot)

    def forget(self) -> None:
        """Have the next decision rely on nothing that was remembered."""
        self.memory = Memory()

    def dry_run(self) -> list[str]:
        """Return the steps of the last decision in words."""
        if self.plan is None:
            return []
        return [f"{step.verb.value} {step.slot}" for step in self.plan.steps]

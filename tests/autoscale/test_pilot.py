"""The pilot of one service: what it decides while the clock on the wall leaps."""

import calendar
from typing import Any

import pytest

from serf_haproxy.autoscale.gauge import Gauge, Row
from serf_haproxy.autoscale.hands import Hands
from serf_haproxy.autoscale.law import Verb
from serf_haproxy.autoscale.orders import Orders, Standing
from serf_haproxy.autoscale.pilot import Pilot, View
from serf_haproxy.autoscale.rules import make_rules
from serf_haproxy.autoscale.scaling import Scaling
from serf_haproxy.services.peaks import read_peaks
from serf_haproxy.services.scaling import Scale
from serf_haproxy.services.service import Service
from serf_haproxy.settings import Settings

SCALE = Scale(executor="command", max=5, slots="s-", in_window_s=60, peaks=read_peaks(["Mon 08:00-09:00 min 4"]))
MONDAY_S = calendar.timegm((2026, 11, 23, 0, 0, 0))
NIGHT_S, PEAK_S = MONDAY_S + 3 * 3600, MONDAY_S + 8 * 3600 + 60


class Filled:
    """An executor whose slots are filled at once, and which notes what it is told."""

    def __init__(self) -> None:
        self.filled: dict[str, bool] = {"s-1": True}

    def list_filled(self) -> dict[str, bool]:
        """Return the slots."""
        return dict(self.filled)

    def start(self, slot: str) -> None:
        """Start."""
        self.filled[slot] = True

    def stop(self, slot: str) -> None:
        """Stop."""
        self.filled.pop(slot, None)


class Course:
    """A pilot whose steps are taken at once, and both clocks."""

    def __init__(self) -> None:
        service = Service("shop", server_maxconn=10, scale=SCALE)
        rules = make_rules(service)
        assert rules is not None
        self.executor = Filled()
        self.pilot = Pilot("shop", SCALE, rules, Hands(self.executor), Orders(Settings()))
        self.now_s, self.at_s = 1000.0, float(NIGHT_S)
        self.ours: dict[str, Any] = {}

    @property
    def in_service(self) -> set[str]:
        """The servers that get requests."""
        return self.executor.filled.keys() - self.ours.keys()

    def go_on(self, span_s: float) -> list[tuple[Verb, str]]:
        """Let time go by without a request; return the steps."""
        steps = []
        for _ in range(round(span_s * 4)):
            self.now_s += 0.25
            self.at_s += 0.25
            rows = {name: Row(name in self.in_service, 0) for name in list(self.executor.filled)}
            self.pilot.look(View(self.now_s, self.at_s, Gauge(0, rows), {}, Standing(self.ours, [], False), ""))
            assert self.pilot.plan is not None
            for verb, slot in self.pilot.plan.steps if self.pilot.hands.is_known(self.now_s) else ():
                steps.append((verb, slot))
                self._take(verb, slot)
            self._settle()
            assert len(self.in_service) >= 1
            assert len(self.executor.filled) <= SCALE.max
        return steps

    def _take(self, verb: Verb, slot: str) -> None:
        if verb is Verb.DRAIN:
            self.ours[slot] = None
            return
        if verb is not Verb.STOP:
            self.ours.pop(slot, None)
        if verb is not Verb.RETURN:
            assert self.pilot.hands.tell(verb, slot, self.now_s)

    def _settle(self) -> None:
        """Wait for the threads of the executor, which know no other time than that of this machine."""
        hands = self.pilot.hands
        for future in [
            *(task.future for task in hands._tasks.values()),
            *([hands._listing[2]] if hands._listing else []),
        ]:
            future.result(30)
        self.ours = {slot: order for slot, order in self.ours.items() if slot in self.executor.filled}


@pytest.fixture
def course() -> Course:
    """Return a pilot at night, that has looked for a while."""
    course = Course()
    assert course.go_on(120) == []
    return course


def test_a_peak_begins_and_ends_by_the_clock_on_the_wall(course: Course) -> None:
    """Servers are there as it begins, and stay until it is over; then they go one after another."""
    course.at_s = PEAK_S - 80
    assert course.go_on(10) == []
    assert course.go_on(60) == [(Verb.START, slot) for slot in ("s-2", "s-3", "s-4")]
    assert course.go_on(120) == []
    course.at_s = PEAK_S + 3480
    assert course.go_on(50) == []
    gone = course.go_on(120)
    assert [verb for verb, _ in gone] == [Verb.DRAIN, Verb.STOP] * 3
    assert course.in_service == {"s-1"}


@pytest.mark.parametrize("leap_s", [NIGHT_S, NIGHT_S + 365 * 86400.0, 0.0, NIGHT_S - 86400.0])
def test_a_clock_that_leaps_hurries_nothing(course: Course, leap_s: float) -> None:
    """In and out of a peak every few seconds: never fewer than min in service, and one goes in ten seconds at most."""
    for _ in range(20):
        course.at_s = PEAK_S
        course.go_on(3)
        assert len(course.in_service) == 4
        course.at_s = leap_s
        steps = course.go_on(12)
        assert [verb for verb, _ in steps].count(Verb.DRAIN) <= 2
        assert len(course.in_service) >= 2


def test_the_defaults_of_a_services_file_are_those_of_the_study() -> None:
    """A table with nothing but what is needed scales by the rules that docs/autoscale-study.md simulates."""
    service = Service("shop", server_maxconn=10, scale=Scale(executor="command", max=5))
    assert make_rules(service) == Scaling(1, 5, 10)

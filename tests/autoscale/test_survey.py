"""What is in each slot, from what the executor, HAProxy and the orders say; and what balancers tell each other."""

import threading
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.autoscale.executor import ExecutorFault
from serf_haproxy.autoscale.gauge import Gauge, Row, read_gauges
from serf_haproxy.autoscale.hands import Hands
from serf_haproxy.autoscale.law import Verb
from serf_haproxy.autoscale.slots import Slot, State
from serf_haproxy.autoscale.survey import Sight, find_fixed, find_slots, measure_start
from serf_haproxy.autoscale.wire import Load, format_loads, parse_loads
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.services.scaling import Scale

SCALE = Scale(max=2, slots="s-")
UP, DOWN, BUSY = Row(is_open=True, in_flight=0), Row(is_open=False, in_flight=0), Row(is_open=False, in_flight=3)
NAMES = st.sampled_from(["shop", "api", "a-1"])
LOADS = st.builds(
    Load,
    st.integers(0, 10**9 - 1),
    st.dictionaries(st.sampled_from(["s-1", "s-22"]), st.integers(0, 9)),
    st.none() | st.integers(0, 10**9 - 1).map(lambda work_ms: work_ms / 1000),
)


def see(**changes: object) -> Sight:
    """Return a sight of a service without anything."""
    plain = Sight({}, {}, Gauge(0, {}), {}, (), ())
    return plain._replace(**changes)


def look(sight: Sight, before: Mapping[str, Slot] | None = None, now_s: float = 10.0) -> Slot:
    """Return what becomes of the first slot."""
    return find_slots(SCALE, sight, before or {}, now_s)[0]


@pytest.mark.parametrize(
    ("sight", "state"),
    [
        (see(), State.ABSENT),
        (see(busy={"s-1": Verb.START}), State.STARTING),
        (see(filled={"s-1": True}), State.STARTING),
        (see(filled={"s-1": True}, gauge=Gauge(0, {"s-1": DOWN})), State.STARTING),
        (see(filled={"s-1": True}, gauge=Gauge(0, {"s-1": UP})), State.SERVING),
        (see(busy={"s-1": Verb.START}, gauge=Gauge(0, {"s-1": UP})), State.SERVING),
        (see(filled={"s-1": False}), State.FAILED),
        (see(filled={"s-1": True}, gauge=Gauge(0, {"s-1": BUSY}), ours={"s-1"}), State.DRAINING),
        (see(filled={"s-1": True}, busy={"s-1": Verb.STOP}, ours={"s-1"}), State.STOPPING),
        (see(ours={"s-1"}), State.ABSENT),
    ],
)
def test_each_slot_has_one_state(sight: Sight, state: State) -> None:
    """What is being done counts first, then the orders, then what HAProxy sees, then what the executor says."""
    assert look(sight).state is state


def test_a_drain_begins_when_no_balancer_sends_requests_any_more() -> None:
    """Until every balancer has closed the server its drain's time stands still, and it is not empty."""
    here = see(filled={"s-1": True}, ours={"s-1"}, gauge=Gauge(0, {"s-1": UP}))
    slot = look(here, now_s=10)
    later = look(here, {"s-1": slot}, 50)
    assert (later.state, later.since_s, later.is_empty) == (State.DRAINING, 50, False)
    closed = here._replace(gauge=Gauge(0, {"s-1": DOWN}), loads={"lb2": Load(5, {})})
    assert look(closed, {"s-1": later}, 60) == Slot("s-1", State.DRAINING, 60, 0, is_empty=False)
    everywhere = closed._replace(loads={"lb2": Load(5, {"s-1": 2})})
    draining = look(everywhere, {"s-1": later}, 61)
    assert draining == Slot("s-1", State.DRAINING, 50, 2, is_empty=False)
    empty = everywhere._replace(loads={"lb2": Load(5, {"s-1": 0})})
    assert look(empty, {"s-1": draining}, 62) == Slot("s-1", State.DRAINING, 50, 0, is_empty=True)


def test_what_others_have_started_is_left_alone() -> None:
    """A server in service that is no filled slot carries demand; it is neither stopped nor started here."""
    sight = see(gauge=Gauge(3, {"s-1": UP, "web1": UP, "web2": DOWN}))
    slots = find_slots(SCALE, sight, {}, 10)
    assert [slot.name for slot in slots] == ["s-2"]
    assert find_fixed(sight, slots) == 2


def test_a_server_that_is_down_after_it_served_is_kept() -> None:
    """It is no capacity and is not stopped; one that has never served is starting."""
    sight = see(filled={"s-1": True}, gauge=Gauge(0, {"s-1": DOWN}))
    assert not look(sight).is_kept
    assert look(sight._replace(served={"s-1"})).is_kept
    assert look(sight._replace(kept={"s-1"})).is_kept


def test_slots_beyond_the_greatest_number_are_seen() -> None:
    """What was started while `max` was greater comes last."""
    slots = find_slots(SCALE, see(filled={"s-10": True, "s-3": True, "other": True}), {}, 10)
    assert [slot.name for slot in slots] == ["s-1", "s-2", "s-3", "s-10"]


def test_a_longer_start_counts_at_once_and_shorter_ones_bit_by_bit() -> None:
    """The time from a start to the service is measured; a server that was down and comes back did not start."""
    began, there = Slot("s-1", State.STARTING, 10.0), Slot("s-1", State.SERVING, 18.0)
    assert measure_start(None, [began], [began], ()) is None
    assert measure_start(None, [began], [there], ()) == 8.0
    assert measure_start(5.0, [began], [there], ()) == 8.0
    assert measure_start(18.0, [began], [there], ()) == 15.0
    assert measure_start(3.0, [began], [there], ("s-1",)) == 3.0


@given(st.dictionaries(NAMES, LOADS))
def test_loads_are_read_as_they_are_written(loads: dict[str, Load]) -> None:
    """Text and loads are the same thing."""
    assert parse_loads(format_loads(loads)) == loads


@pytest.mark.parametrize("text", ["shop", "shop -1", "shop 1 s-1", "shop 1...", "Shop 1", "shop 1\n\nx", "shop \u0661"])
def test_no_other_text_is_a_load(text: str) -> None:
    """A text that was cut or forged is refused as a whole."""
    with pytest.raises(ValueError, match="is not the load of a service"):
        parse_loads(text)


def test_the_demand_is_what_is_in_flight_or_waits() -> None:
    """Requests at the servers and in both kinds of queues count once; a server without weight gets none."""
    answer = (
        "# pxname,svname,qcur,scur,stot,status,type,uweight\n"
        "shop,s-1,1,4,90,UP,2,1\nshop,s-2,0,2,8,DRAIN,2,0\nshop,s-3,0,0,0,UP 1/3,2,5\nshop,s-4,,,,no check,2,1\n"
        "shop,BACKEND,3,6,98,UP,1,6\n"
    )
    gauge = read_gauges(answer)["shop"]
    assert gauge.demand == 10
    expected = {"s-1": Row(True, 5, 4, 90), "s-2": Row(False, 2, 2, 8), "s-3": Row(True, 0), "s-4": Row(True, 0)}
    assert gauge.servers == expected
    assert read_gauges("No such proxy.\n") == {}
    with pytest.raises(HaproxyFault, match="cannot be read"):
        read_gauges("# pxname,svname\nshop,s-1\n")


class Fake:
    """An executor whose starts wait until they are told to go on."""

    def __init__(self) -> None:
        self.may_go, self.fault = threading.Event(), ""
        self.filled: dict[str, bool] = {}

    def list_filled(self) -> Mapping[str, bool]:
        """Return what was started."""
        return dict(self.filled)

    def start(self, slot: str) -> None:
        """Start, or fail."""
        self.may_go.wait(30)
        if self.fault:
            raise ExecutorFault(self.fault)
        self.filled[slot] = True

    def stop(self, slot: str) -> None:
        """Stop."""
        self.filled.pop(slot, None)


class Idle(Fake):
    """An executor that says that it has started, and has not."""

    def start(self, slot: str) -> None:
        """Do nothing."""


def collect(hands: Hands, now_s: float) -> list[tuple[Verb, str, str]]:
    """Wait for something that was done."""
    deadline_s = time.monotonic() + 30
    while not (acts := hands.collect(now_s)):
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    return [(act.verb, act.slot, act.fault) for act in acts]


def test_no_look_waits_for_the_executor_and_nothing_is_told_twice() -> None:
    """What is under way is not told again, and what is done counts as busy until a later list shows it."""
    executor = Fake()
    hands = Hands(executor)
    assert hands.tell(Verb.START, "s-1", 0)
    assert not hands.tell(Verb.START, "s-1", 1)
    assert not hands.tell(Verb.STOP, "s-1", 1)
    assert hands.find_busy() == {"s-1": (Verb.START, 0)}
    executor.may_go.set()
    assert collect(hands, 2) == [(Verb.START, "s-1", "")]
    assert hands.find_busy() or hands.filled == {"s-1": True}
    deadline_s = time.monotonic() + 30
    while hands.find_busy():
        assert time.monotonic() < deadline_s
        hands.collect(3)
        time.sleep(0.005)
    assert hands.filled == {"s-1": True}


def test_what_is_under_way_goes_on_by_other_rules() -> None:
    """Where the services file says something else meanwhile, a start is not told again, and its end is told."""
    executor = Fake()
    former = Hands(executor)
    assert former.tell(Verb.START, "s-1", 0)
    hands = Hands(executor, former)
    assert hands.find_busy() == {"s-1": (Verb.START, 0)}
    assert not hands.tell(Verb.START, "s-1", 1)
    assert not hands.tell(Verb.STOP, "s-1", 1)
    executor.may_go.set()
    assert collect(hands, 2) == [(Verb.START, "s-1", "")]


def test_a_start_that_fills_no_slot_is_a_failure() -> None:
    """A program that ends well and does nothing is told of, and told again after pauses that grow."""
    hands = Hands(Idle())
    now_s, starts_s, faults = 0.0, [], set()
    deadline_s = time.monotonic() + 60
    while len(starts_s) < 6:
        assert time.monotonic() < deadline_s
        now_s += 0.25
        faults |= {act.fault for act in hands.collect(now_s)}
        if not hands.find_busy() and hands.tell(Verb.START, "s-1", now_s):
            starts_s.append(now_s)
        time.sleep(0.01)
    assert starts_s[-1] - starts_s[-2] >= 8
    assert faults == {"", "it has ended well, and the list of slots does not show it"}


def test_what_fails_is_told_again_after_pauses_that_grow() -> None:
    """Pauses double from a second to a minute, and begin anew after a success."""
    executor = Fake()
    executor.may_go.set()
    executor.fault = "no room"
    hands = Hands(executor)
    now_s, pauses_s = 0.0, []
    for _ in range(9):
        assert hands.tell(Verb.START, "s-1", now_s)
        assert collect(hands, now_s) == [(Verb.START, "s-1", "no room")]
        begin_s = now_s
        while not hands.tell(Verb.START, "s-1", now_s):
            now_s += 0.5
        collect(hands, now_s)
        pauses_s.append(now_s - begin_s)
        now_s += 1000
    assert pauses_s[0] == 1
    assert max(pauses_s) == 60

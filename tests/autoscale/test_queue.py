"""What ends a queue in time, and how long a request takes: numbers to numbers."""

import math

import pytest

from autoscale.world import SCALING, World
from serf_haproxy.autoscale.gauge import Row
from serf_haproxy.autoscale.meter import Work
from serf_haproxy.autoscale.queue import count_enders, follow
from serf_haproxy.autoscale.reading import Flow, Reading
from serf_haproxy.autoscale.slots import Tally

MANY = SCALING._replace(max=200)


@pytest.mark.parametrize(
    ("before", "now", "serving", "offered"),
    [
        (50, 50, 8, 50.0),  # in balance: as many come as end
        (80, 930, 8, 250.0),  # all are busy: 400 a second end, 850 more come
        (2000, 1000, 40, 200.0),  # a queue that falls
        (0, 3, 0, 0.6),  # the first ones, without a server
        (1147, 276, 106, 276.0),  # a queue that ends: what is in flight falls to what comes, and no lower
    ],
)
def test_what_comes_is_known_from_servers_and_a_demand_that_changes(
    before: int, now: int, serving: int, offered: float
) -> None:
    """Requests that take 0.2 s: what all servers finish, and what the demand grows by, in places at servers."""
    flow = Flow(9.0, before, 10 * serving)
    reading = Reading(9.25, now, work_s=0.2, start_s=5.0)
    assert follow(MANY, reading, Tally(serving), flow) == flow  # too soon to say
    assert follow(MANY, reading._replace(now_s=10.0), Tally(serving), flow).offered == pytest.approx(offered)


def test_what_comes_is_not_known_after_a_gap() -> None:
    """Without the demand before, after a gap, or without the time of a request nothing is said."""
    reading = Reading(10.0, 50, work_s=0.2)
    for seen, flow in (
        (reading, Flow()),
        (reading, Flow(2.0, 50, 80, 50.0)),
        (reading._replace(work_s=None), Flow(9.0, 50, 80, 50.0)),
    ):
        assert follow(MANY, seen, Tally(8), flow) == Flow(10.0, 50, 80)


def test_servers_that_have_just_joined_have_finished_nothing_yet() -> None:
    """Forty servers come to ten within a second: that all are busy at its end does not mean that more comes."""
    reading = Reading(10.0, 900, work_s=0.2, start_s=5.0)
    assert follow(MANY, reading, Tally(50), Flow(9.0, 900, 100, 100.0)).offered == pytest.approx(100.0)


def test_servers_that_end_a_queue_count_what_comes_until_they_are_there() -> None:
    """850 wait, 850 more come each second, and a start takes 5 s; what starts already has less to do."""
    flow = Flow(10.0, 930, 80, 250.0)
    reading = Reading(10.0, 930, work_s=0.2, start_s=5.0)
    alone = count_enders(MANY, reading, Tally(8), flow)
    assert alone == math.ceil((250 + (850 + 850 * 5) * 0.2 / 1) / 10)
    assert count_enders(MANY, reading, Tally(8, 20, starting_s=(9.0,) * 20), flow) < alone
    assert count_enders(MANY, reading._replace(start_s=None), Tally(8), flow) == math.inf
    assert count_enders(MANY, reading, Tally(8), Flow(9.5, 80, 80, 50.0)) == alone  # in the second in which it comes
    slow = reading._replace(work_s=30.0)
    assert count_enders(MANY, slow, Tally(8), flow) > 930 / 10  # long requests: a place for each


@pytest.mark.parametrize("work_s", [0.2, 30.0, None])
def test_a_sudden_load_starts_no_more_servers_than_end_its_queue(work_s: float | None) -> None:
    """Where requests are short what is started ends a queue that grows; else each that waits has a place, up to max."""
    world = World(MANY, serving=8, work_s=work_s)
    world.run(50, 20)
    world.tick(930)
    wanted = world.plans[-1].wanted
    assert wanted == 110  # 930 by what a server takes for a moment
    assert world.plans[-1].reason.startswith("930 requests at once are more than 8 servers can take")
    world.tick(1780)
    assert world.plans[-1].wanted == (110 if work_s == 0.2 else 200)
    world.run(250, 30)
    assert world.plans[-1].mean < 300 or work_s is None or work_s > 1


def test_the_time_of_a_request_is_what_servers_have_worked_by_requests() -> None:
    """Four requests at a time and twenty a second take 0.2 s; a reload begins anew, and keeps what is known."""
    work = Work()
    for look in range(41):
        work = work.follow(look / 4, {"s-1": Row(True, 9, 4, 5 * look)})
    assert work.mean_s == pytest.approx(0.2)
    reloaded = work.follow(10.25, {"s-1": Row(True, 9, 4, 1)})
    assert reloaded.mean_s == pytest.approx(0.2)
    assert Work().follow(0.0, {}).mean_s is None
    assert Work().follow(0.0, {"s-1": Row(True, 1, 1, 0)}).follow(1.0, {"s-1": Row(True, 1, 1, 1)}).mean_s is None

"""The requests of the lab and of the study: their times, clients and work."""

import collections
import statistics

import pytest

from serf_haproxy.lab.arrivals import CLIENT_COUNT, Work, make_requests

RATE, DURATION_S, MEAN_S = 1000.0, 30.0, 0.02


@pytest.mark.parametrize("kind", ["exponential", "bimodal"])
def test_rate_and_work_are_as_wanted(kind: str) -> None:
    """The mean rate and the mean work are the wanted ones, within the spread of so many requests."""
    requests = make_requests(1, RATE, DURATION_S, Work(kind, MEAN_S), 0.0)
    assert len(requests) == pytest.approx(RATE * DURATION_S, rel=0.03)
    assert statistics.mean(request.work_us for request in requests) == pytest.approx(1e6 * MEAN_S, rel=0.05)
    assert [request.at_s for request in requests] == sorted(request.at_s for request in requests)


def test_arrivals_are_poisson() -> None:
    """The numbers of arrivals in equal times have a variance as large as their mean."""
    requests = make_requests(2, RATE, DURATION_S, Work("exponential", MEAN_S), 0.0)
    counts = collections.Counter(int(request.at_s * 50) for request in requests)
    numbers = [counts[slot] for slot in range(int(DURATION_S * 50))]
    assert statistics.variance(numbers) == pytest.approx(statistics.mean(numbers), rel=0.15)


def test_the_same_seed_gives_the_same_requests() -> None:
    """Requests follow from the seed, and a longer run begins like a shorter one."""
    work = Work("exponential", MEAN_S)
    short, long = (make_requests(3, RATE, length_s, work, 0.0) for length_s in (1.0, 2.0))
    assert long[: len(short)] == short
    assert make_requests(4, RATE, 1.0, work, 0.0) != short


def test_bimodal_work_is_short_or_long() -> None:
    """There are two lengths, one of them twenty times the other, and one request of ten has it."""
    requests = make_requests(5, RATE, DURATION_S, Work("bimodal", MEAN_S), 0.0)
    counts = collections.Counter(request.work_us for request in requests)
    (short, _), (long, count) = sorted(counts.items(), key=lambda pair: -pair[1])
    assert long / short == pytest.approx(20, rel=0.01)
    assert count / len(requests) == pytest.approx(0.1, rel=0.1)


def test_some_clients_ask_more_with_a_skew() -> None:
    """Without a skew all clients ask alike; with one of 1, the first asks about twice as often as the second."""
    work = Work("exponential", MEAN_S)
    equal, skewed = (
        collections.Counter(request.client for request in make_requests(6, RATE, DURATION_S, work, skew))
        for skew in (0.0, 1.0)
    )
    assert len(equal) == CLIENT_COUNT
    assert max(equal.values()) < 2 * min(equal.values())
    assert skewed[0] / skewed[1] == pytest.approx(2, rel=0.15)

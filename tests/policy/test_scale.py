"""Room below the weights of members, for measured weights."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.policy.scale import scale_up
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.split import share_out


def servers(weights: list[int | None]) -> list[Server]:
    """Return servers with these weights."""
    return [Server(f"web{number}", "10.0.0.1", 80, weight) for number, weight in enumerate(weights)]


@pytest.mark.parametrize(
    ("weights", "algorithm", "scaled"),
    [
        ([None, None], "random", [100, 100]),
        ([1, 2, 0], "random", [50, 100, 0]),
        ([20, 20], "random", [120, 120]),
        ([200, 100], "random", [200, 100]),
        ([0], "random", [0]),
        ([], "random", []),
        ([1] * 512, "random", [100] * 512),
        ([1] * 513, "random", [50] * 513),
        ([1] * 1000, "random", [50] * 1000),
        ([1] * 40000, "random", [1] * 40000),
        ([1] * 4000, "roundrobin", [100] * 4000),
        ([1] * 4000, "leastconn", [100] * 4000),
    ],
)
def test_weights_grow_to_about_a_hundred(weights: list[int | None], algorithm: str, scaled: list[int]) -> None:
    """The largest weight becomes 64 to 128; with very many servers it grows less where that costs HAProxy much."""
    assert [server.weight for server in scale_up(servers(weights), algorithm)] == scaled


@given(st.lists(st.integers(0, 256), max_size=300))
def test_the_ratio_of_weights_stays(weights: list[int]) -> None:
    """All weights grow by the same whole number, and none exceeds 256."""
    scaled = [server.weight or 0 for server in scale_up(servers(list(weights)), "random")]
    factors = {Fraction(after, before) for before, after in zip(weights, scaled, strict=True) if before}
    assert len(factors) <= 1
    assert all(factor.denominator == 1 for factor in factors)
    assert max(scaled, default=0) <= 256
    assert [weight == 0 for weight in scaled] == [weight == 0 for weight in weights]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9)), min_size=2, max_size=20), st.integers(1, 99))
def test_a_split_with_room_below_stays_exact(rows: list[tuple[int, int]], share: int) -> None:
    """The weights of a split grow too where they are measured, and the versions keep their ratio."""
    shares = {"v1": share, "v2": 100 - share}
    members = [
        Server(f"web{number}", "10.0.0.1", 80, weight, version=f"v{1 + version}")
        for number, (version, weight) in enumerate(rows)
    ]
    totals = dict.fromkeys(shares, 0)
    for server in scale_up(share_out(shares, members, lambda _: True), "roundrobin"):
        assert 0 <= (server.weight or 0) <= 256
        totals[server.version] += server.weight or 0
    if {server.version for server in members} == shares.keys():
        assert totals["v1"] * shares["v2"] == totals["v2"] * shares["v1"] > 0

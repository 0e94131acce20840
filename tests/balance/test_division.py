"""Weights inside a version: whatever its servers get, together it is exactly what the split gives the version."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.balance.division import divide, find_factors

Weights = dict[str, int]
GIVEN = {"a": 100, "b": 100, "c": 100}


@pytest.mark.parametrize(
    ("present", "factors", "weights"),
    [
        (GIVEN, (1, 1, 1), GIVEN),
        (GIVEN, (0.01, 1, 1), {"a": 2, "b": 149, "c": 149}),
        (GIVEN, (0.95, 1, 1), GIVEN),
        ({"a": 2, "b": 149, "c": 149}, (0.0101, 1, 1), {"a": 2, "b": 149, "c": 149}),
        ({"a": 96, "b": 102, "c": 102}, (1, 1, 1), GIVEN),
        ({"a": 100, "b": 100, "c": 99}, (0.95, 1, 1), {"a": 96, "b": 102, "c": 102}),
        (GIVEN, (0.01, 0.01, 1), {"a": 22, "b": 22, "c": 256}),
    ],
    ids=["whole", "slow", "little", "unchanged", "healed", "by another hand", "largest"],
)
def test_a_version_keeps_its_total(present: Weights, factors: tuple[float, ...], weights: Weights) -> None:
    """What a slow server loses the others get, up to 256; small changes are not made, and a wrong total is mended."""
    assert divide(GIVEN, dict(zip(GIVEN, factors, strict=True)), present) == weights


def test_a_version_of_one_server_keeps_its_weight() -> None:
    """There is no other server that could get what it loses."""
    assert divide({"a": 7}, {"a": 0.01}, {"a": 7}) == {"a": 7}


_SERVERS = st.lists(
    st.tuples(st.integers(1, 256), st.floats(0.01, 1), st.integers(0, 256)), min_size=1, max_size=40
).map(lambda rows: {f"web{number}": row for number, row in enumerate(rows)})


@given(_SERVERS)
def test_the_total_is_exact_for_any_servers(servers: dict[str, tuple[int, float, int]]) -> None:
    """The total is that of the split, each weight is 1 to 256, and a second look changes nothing."""
    limits, factors, present = ({name: row[index] for name, row in servers.items()} for index in range(3))
    weights = divide(limits, factors, present)  # type: ignore[arg-type]
    assert sum(weights.values()) == sum(limits.values())
    assert sum(present.values()) == sum(limits.values()) or min(weights.values()) >= 1
    assert max(weights.values()) <= 256
    assert divide(limits, factors, weights) == weights  # type: ignore[arg-type]


@given(_SERVERS)
def test_factors_are_found_in_the_weights(servers: dict[str, tuple[int, float, int]]) -> None:
    """A new daemon takes the factors from the weights: the server that gets most of its part gets all of it."""
    limits, present = ({name: max(1, int(row[index])) for name, row in servers.items()} for index in (0, 2))
    factors = find_factors(limits, present)
    assert max(factors.values()) == 1
    assert min(factors.values()) > 0

"""Weights that have together exactly what a version gets of a split, whatever each of its servers gets. Pure.

The weights that the split gives to the servers of a version have the right total. A server that is slow gets less of
it, and the others of its version get what it has lost, up to HAProxy's largest weight.
"""

from collections.abc import Mapping

from serf_haproxy.policy.claim import WEIGHT_MAX

_CHANGE = 0.1  # smaller changes of all weights, relative to them, are not worth a command


def divide(given: Mapping[str, int], factors: Mapping[str, float], present: Mapping[str, int]) -> dict[str, int]:
    """Return the weight of each server of a version: 1 to 256, and with the total of those that the split gives.

    Args:
        given: The weights that the split gives, 1 to 256.
        factors: How much of its part each server should get, 0.01 to 1.
        present: The weights in use; they stay where their total is right and none is wrong by more than a tenth.
    """
    total = sum(given.values())
    wanted = _round(_spread(total, {name: factors[name] * weight for name, weight in given.items()}))
    if sum(present[name] for name in given) != total or wanted == given:
        return wanted
    is_due = any(abs(weight - present[name]) > _CHANGE * present[name] for name, weight in wanted.items())
    return wanted if is_due else {name: present[name] for name in wanted}


def find_factors(given: Mapping[str, int], present: Mapping[str, int]) -> dict[str, float]:
    """Return how much of its part each server gets by the weights in use; the one that gets most of it gets all."""
    ratios = {name: present[name] / weight for name, weight in given.items()}
    most = max(ratios.values(), default=1.0)
    return {name: ratio / most for name, ratio in ratios.items()}


def _spread(total: int, wanted: Mapping[str, float]) -> dict[str, float]:
    """Return numbers of 1 to 256 with a total, in the ratio of others as far as these bounds allow."""
    spread: dict[str, float] = {}
    rest, left = dict(wanted), float(total)
    while rest:  # each turn but the last one takes at least one server away
        ratio = left / sum(rest.values())
        above = {name: ratio * each - WEIGHT_MAX for name, each in rest.items() if ratio * each > WEIGHT_MAX}
        below = {name: 1 - ratio * each for name, each in rest.items() if ratio * each < 1}
        if not above and not below:
            return spread | {name: ratio * each for name, each in rest.items()}
        bound, names = (WEIGHT_MAX, above) if sum(above.values()) >= sum(below.values()) else (1, below)
        for name in names:
            spread[name] = bound
            left -= bound
            del rest[name]
    return spread


def _round(numbers: Mapping[str, float]) -> dict[str, int]:
    """Return whole numbers with the same total, each wrong by less than 1."""
    whole = {name: int(number) for name, number in numbers.items()}
    missing = round(sum(numbers.values())) - sum(whole.values())
    by_rest = sorted(numbers, key=lambda name: (whole[name] - numbers[name], name))
    return whole | {name: whole[name] + 1 for name in by_rest[:missing]}

"""Flap damping: a node that fails and returns again and again is kept out until it has been steady. Pure.

Each failure and each return adds 1 to the node's penalty, which halves with every half-life. A node whose penalty
reaches the cutoff is damped; below half of the cutoff it serves again. RFC 2439 describes this scheme for routes. A
graceful leave counts nothing, so a rollout is never damped.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

_PENALTY_MAX = 4.0  # in cutoffs: a node is kept out for at most three half-lives after its last flap
_NOTHING = 0.1  # a penalty that no longer matters


class FlapRules(NamedTuple):
    """When a node is damped.

    Attributes:
        cutoff: The penalty at which a node is damped; 0: never.
        half_life_s: The time in which a penalty halves, seconds.
    """

    cutoff: float = 0.0
    half_life_s: float = 60.0


class Flap(NamedTuple):
    """The memory of a node that has failed.

    Attributes:
        penalty: Its penalty at `at_s`.
        at_s: When the node last failed or returned, seconds since the epoch.
        is_alive: Whether it has returned.
        is_damped: Whether it is kept out until its penalty is below half of the cutoff.
    """

    penalty: float
    at_s: float
    is_alive: bool
    is_damped: bool


def update(flaps: Mapping[str, Flap], alive: Mapping[str, bool], rules: FlapRules, now_s: float) -> dict[str, Flap]:
    """Return what to remember after a look at all nodes.

    Args:
        flaps: What was remembered, by name.
        alive: By name, True for a node that is alive and False for one that failed.
        rules: When a node is damped.
        now_s: The time, seconds since the epoch.
    """
    if not rules.cutoff:
        return {}
    updated = {}
    for name in flaps.keys() | {name for name, is_alive in alive.items() if not is_alive}:
        flap = flaps.get(name, Flap(0.0, now_s, True, False))
        is_alive = alive.get(name, flap.is_alive)
        flap = flap._replace(at_s=min(flap.at_s, now_s))  # the clock was set back
        if flap.is_alive != is_alive:
            penalty = min(_now(flap, rules, now_s) + 1.0, _PENALTY_MAX * rules.cutoff)
            flap = Flap(round(penalty, 3), now_s, is_alive, flap.is_damped or penalty >= rules.cutoff)
        if flap.is_damped and _now(flap, rules, now_s) <= rules.cutoff / 2:
            flap = flap._replace(is_damped=False)
        if _now(flap, rules, now_s) > _NOTHING or (not is_alive and name in alive):
            updated[name] = flap
    return updated


def damp(flaps: Mapping[str, Flap], serving: Mapping[str, object], rules: FlapRules, now_s: float) -> dict[str, float]:
    """Return the nodes that are kept out, and for how many more seconds.

    At least half of the nodes that could serve do so: those with the highest penalties are kept out first.

    Args:
        flaps: What is remembered, by name.
        serving: The nodes that could serve, by name.
        rules: When a node is damped.
        now_s: The time, seconds since the epoch.
    """
    penalties = {name: _now(flap, rules, now_s) for name, flap in flaps.items() if flap.is_damped and name in serving}
    worst = sorted(penalties, key=lambda name: (-penalties[name], name))[: len(serving) // 2]
    half = rules.cutoff / 2
    return {
        name: rules.half_life_s * math.log2(penalties[name] / half) for name in sorted(worst) if penalties[name] > half
    }


def _now(flap: Flap, rules: FlapRules, now_s: float) -> float:
    """Return what is left of a penalty now."""
    return float(flap.penalty * 0.5 ** (max(0.0, now_s - flap.at_s) / rules.half_life_s))

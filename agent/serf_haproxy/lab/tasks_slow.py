"""The tasks of the lab about a slow server: delays, weights, and the choice of an algorithm."""

import math
import time

from serf_haproxy.lab.bench import NAMES, Bench, Browser
from serf_haproxy.lab.paper import Paper
from serf_haproxy.lab.traffic import Result, Traffic, make_traffic

COOKIE = "SERVERID"
DELAYS_MS = (0, 250, 2500)
ALGORITHMS = ("roundrobin", "leastconn", "random")
_VISIT_COUNT = 40  # with a delay, a thousand requests of a user would take four minutes
_RATE, _DURATION_S = 60.0, 10.0
_TIMES = 10.0


def slow_down(bench: Bench, paper: Paper, visit_count: int) -> None:
    """Task 4: a slow server with sticky sessions, then weights."""
    count = min(visit_count, _VISIT_COUNT)
    bench.configure(balance="roundrobin", cookie=COOKIE)
    paper.head(f"4.1 Two users with a cookie, {count} requests each, while s1 answers later")
    rows = []
    for delay_ms in DELAYS_MS:
        at = come_to_both(bench)
        bench.lab.slow(NAMES[0], delay_ms=delay_ms)
        if delay_ms >= 1000:
            bench.wait_status(NAMES[0], "DOWN")
        rows.append({"delay at s1": f"{delay_ms} ms", **_visit(at, count), "s1 is": bench.explain_check(NAMES[0])})
    bench.lab.heal(NAMES[0])
    bench.wait_status(NAMES[0], "UP")
    paper.add_table("delays", rows)
    paper.say(
        "250 ms: each user keeps its server; the one at s1 waits for each answer, the other does not notice.",
        "2,500 ms: no request fails. The delay is for health checks too, and they have one second: after two",
        "failures s1 is down, and its user gets s2. That costs the session, which was in the memory of s1.",
    )
    paper.head(f"4.2 Weights 2 and 1, {3 * count} requests without and with cookies, then with 250 ms at s1")
    bench.lab.tags(NAMES[0], {"weight": "2"})
    bench.lab.tags(NAMES[1], {"weight": "1"})
    bench.wait_weights({NAMES[0]: 2, NAMES[1]: 1})
    rows = []
    for delay_ms in DELAYS_MS[:2]:
        bench.lab.slow(NAMES[0], delay_ms=delay_ms)
        for keeps_cookies in (False, True):
            started_s = time.monotonic()
            counts = bench.count(1, 3 * count, keeps_cookies)
            took_s = time.monotonic() - started_s
            rows.append(
                {
                    "delay at s1": f"{delay_ms} ms",
                    "cookies": "kept" if keeps_cookies else "none",
                    **counts,
                    "took": f"{took_s:.1f} s",
                }
            )
    bench.lab.heal(NAMES[0])
    paper.add_table("weights", rows)
    paper.say(
        "Without cookies s1 gets two requests of three, however slow it is: weights are what an operator says.",
        "With a cookie the weights only decide where a user comes first; then all its requests go there.",
    )


def compare_algorithms(bench: Bench, paper: Paper, visit_count: int) -> None:
    """Task 5: two further algorithms beside roundrobin under an open load, with equal servers and a slow one."""
    duration_s = _DURATION_S if visit_count > 100 else 4.0
    paper.head("5. leastconn and random beside roundrobin")
    paper.say(
        f"{_RATE:g} requests a second come at random times (Poisson) for {duration_s:g} s, whether or not earlier ones",
        f"are answered. Each is 20 ms of work on average. A slow s1 takes {_TIMES:g} times as long.",
        "leastconn: the server with the fewest open requests. random: the less loaded one of two taken by chance.",
    )
    rows = []
    found: dict[tuple[str, str], Result] = {}
    for state in ("equal", "s1 slow"):
        bench.lab.slow(NAMES[0], times=1.0 if state == "equal" else _TIMES)
        for algorithm in ALGORITHMS:
            bench.configure(balance=algorithm)
            result = make_traffic(bench.lab, Traffic(_RATE, duration_s), is_quiet=True)
            found[state, algorithm] = result
            total = sum(result.shares.values()) or 1
            rows.append(
                {
                    "servers": state,
                    "algorithm": algorithm,
                    **{name: f"{100 * result.shares.get(name, 0) / total:.0f} %" for name in NAMES},
                    **{f"p{percent}": _show(result.percentile(percent)) for percent in (50, 99)},
                    "failed": result.failed_count,
                }
            )
    bench.lab.heal(NAMES[0])
    paper.add_table("algorithms", rows)
    best = min(ALGORITHMS, key=lambda algorithm: found["s1 slow", algorithm].percentile(99))
    paper.say(
        f"With a slow s1, {best} has the lowest p99 here. roundrobin gives each server half, whatever it can do:",
        "requests queue at s1. leastconn and random see open requests: a slow server, where these pile up, gets fewer.",
        "random may take the same server twice, and then has no choice. docs/study.md compares all algorithms.",
    )


def come_to_both(bench: Bench) -> list[Browser]:
    """Return two users, the first with a session at s1, the second at s2."""
    users: dict[str, Browser] = {}
    for _ in range(20):
        user = bench.browser()
        users.setdefault(user.visit().server, user)
        if len(users) == len(NAMES):
            break
    return [users[name] for name in NAMES]


def _visit(users: list[Browser], count: int) -> dict[str, object]:
    """Return the answers of each server to two users, how long each user took, and the failures."""
    counts = dict.fromkeys(NAMES, 0)
    took_s, failed = [], 0
    for user in users:
        visits = [user.visit() for _ in range(count)]
        took_s.append(sum(visit.took_s for visit in visits))
        failed += sum(visit.status != 200 for visit in visits)
        for visit in visits:
            counts[visit.server] = counts.get(visit.server, 0) + 1
    times = {f"user {number + 1}": f"{each_s:.1f} s" for number, each_s in enumerate(took_s)}
    return {**counts, **times, "failed": failed}


def _show(value_ms: float) -> str:
    return f"{value_ms:.0f} ms" if math.isfinite(value_ms) else "∞"

"""The tasks of the lab about load balancing: each runs its experiments and prints what a student hands in."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from serf_haproxy import config
from serf_haproxy.lab.bench import NAMES, Bench, Browser, Visit, running_bench
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.lab.paper import Paper
from serf_haproxy.lab.tasks_slow import come_to_both, compare_algorithms, slow_down
from serf_haproxy.settings import variable

VISIT_COUNT = 1000  # of one user
_TEMPLATE = Path(config.__file__).parent / "templates" / "haproxy.cfg.j2"
_INSERT = "cookie {{ service.cookie }} insert indirect nocache httponly"
_PREFIX = "cookie {{ service.cookie }} prefix nocache"
_HAPROXYS, _APPLICATIONS = "SERVERID", "NODESESSID"


def run_task(lab: Lab, number: int, is_json: bool = False) -> int:
    """Do a task in a new lab, which is gone afterwards; return the exit code."""
    paper = do_task(lab, number, is_json)
    if is_json:
        print(json.dumps({"task": number, "tables": paper.tables, "text": paper.text}, indent=1, ensure_ascii=False))
    return 0


def do_task(lab: Lab, number: int, is_quiet: bool = False, visit_count: int = VISIT_COUNT) -> Paper:
    """Do a task; return its results.

    Args:
        lab: Where a new lab can be; there is none yet.
        number: 1 to 5.
        is_quiet: Whether to print nothing.
        visit_count: How often a user loads the page where answers are counted.
    """
    paper = Paper(is_quiet)
    tasks: dict[int, Callable[[Lab, Paper, int], None]] = {
        1: _go_without_cookie,
        2: _stick,
        3: _drain,
        4: _slow,
        5: _compare,
    }
    tasks[number](lab, paper, visit_count)
    return paper


def _go_without_cookie(lab: Lab, paper: Paper, visit_count: int) -> None:
    with running_bench(lab) as bench:
        paper.head("1.1 One browser, refreshed eight times")
        user = bench.browser()
        paper.add_table("refresh", [_row(number + 1, user.visit()) for number in range(8)])
        paper.say(
            "Each request meets the other server (roundrobin). That server does not know the id in the cookie, since",
            "sessions are in a server's memory: it begins a new one. So sessionViews stays 1 and the id changes.",
        )
        paper.head(f"1.2 One user, {visit_count} requests")
        paper.add_table("count", [_count(bench, 1, visit_count)])
        paper.head(f"1.3 s1 stops, then {visit_count} requests")
        lab.leave(NAMES[0])
        paper.add_table("stopped", [_count(bench, 1, visit_count)])
        paper.say("s1 has left: its Serf agent said so, and HAProxy sends all requests to s2. None fails.")


def _stick(lab: Lab, paper: Paper, visit_count: int) -> None:
    with running_bench(lab) as bench:
        bench.configure(cookie=_HAPROXYS)
        paper.head("2.1 HAProxy's own cookie: `cookie SERVERID insert`")
        _show_cookie(bench, paper, "insert", _HAPROXYS, visit_count)
        paper.say(
            "HAProxy adds a cookie of its own to the first answer, which names the server. It takes it out of each",
            "request (`indirect`), so that the application sees only its NODESESSID.",
        )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "haproxy.cfg.j2")
        path.write_text(_TEMPLATE.read_text().replace(_INSERT, _PREFIX))
        with running_bench(lab, {variable("template_path"): str(path)}) as bench:
            bench.configure(cookie=_APPLICATIONS)
            paper.head("2.2 The application's cookie: `cookie NODESESSID prefix` (a template of our own)")
            _show_cookie(bench, paper, "prefix", _APPLICATIONS, visit_count)
            paper.say(
                "There is one cookie only. HAProxy puts the server's name and ~ before the value that the application",
                "sets, and takes them off again in each request, so that the application sees the id that it gave.",
            )


def _show_cookie(bench: Bench, paper: Paper, kind: str, name: str, visit_count: int) -> None:
    user = bench.browser()
    first = user.visit()
    messages = _tell_messages(user, first, name)
    paper.add_table(f"refresh-{kind}", [_row(number + 1, user.visit()) for number in range(4)])
    paper.say("The session stays: the views are counted on. The sequence of messages:", "", *messages, "")
    rows = [_count(bench, 1, visit_count), _count(bench, 2, visit_count)]
    paper.add_table(f"count-{kind}", rows)


def _tell_messages(user: Browser, first: Visit, name: str) -> list[str]:
    """Return the sequence of messages of a first and a second request."""
    session = user.cookies["NODESESSID"].rpartition("~")[2]
    sent = "; ".join(f"{key}={value}" for key, value in user.cookies.items())
    server = first.server
    return [
        "browser                     HAProxy                       " + server,
        "   │ GET /                     │                            │",
        "   ├──────────────────────────►│ GET /   (by its algorithm) │",
        f"   │                           ├───────────────────────────►│ new session {session}",
        f"   │                           │◄───────────────────────────┤ Set-Cookie: NODESESSID={session}",
        *(f"   │◄──────────────────────────┤ Set-Cookie: {text.partition(';')[0]}" for text in user.received),
        "   │ GET /                     │                            │",
        f"   ├──────────────────────────►│ Cookie: {sent}",
        f"   │                           │ {name} names {server}",
        f"   │                           ├───────────────────────────►│ Cookie: NODESESSID={session}",
        "   │◄──────────────────────────┤◄───────────────────────────┤ sessionViews 2",
    ]


def _drain(lab: Lab, paper: Paper, _visit_count: int) -> None:
    with running_bench(lab) as bench:
        bench.configure(cookie=_HAPROXYS)
        with bench.without_daemon():
            _set_states(bench, paper)


def _set_states(bench: Bench, paper: Paper) -> None:
    user, _ = come_to_both(bench)
    paper.head("3. Drain and maintenance at the runtime socket")
    paper.say("The daemon is stopped meanwhile: what is done by hand at the socket it would put right.")
    rows = []
    for state in ("ready", "drain", "maint", "ready"):
        command = f"set server nodes/{NAMES[0]} state {state}"
        bench.set_state(NAMES[0], state)
        bench.wait_status(NAMES[0], *{"ready": ("UP",), "drain": ("DRAIN",), "maint": ("MAINT",)}[state])
        visit = user.visit()
        fresh = [bench.browser().visit().server for _ in range(4)]
        rows.append(
            {
                "command": command,
                "with session": visit.server,
                "sessionViews": visit.views,
                "fresh browsers": " ".join(fresh),
            }
        )
    paper.add_table("states", rows)
    paper.say(
        "DRAIN: who has a session at s1 keeps it, new browsers get s2.",
        "MAINT: no browser gets s1; the session is lost, since s2 does not know it, and its views begin at 1.",
        "READY: new browsers get s1 again. The first one stays at s2, where its new session is.",
        "Without the socket: `serf-haproxy lab tags s1 drain=true` drains s1 at every balancer.",
    )


def _slow(lab: Lab, paper: Paper, visit_count: int) -> None:
    with running_bench(lab) as bench:
        slow_down(bench, paper, visit_count)


def _compare(lab: Lab, paper: Paper, visit_count: int) -> None:
    with running_bench(lab) as bench:
        compare_algorithms(bench, paper, visit_count)


def _row(number: int, visit: Visit) -> dict[str, object]:
    return {"request": number, "server": visit.server, "sessionViews": visit.views, "id": visit.session}


def _count(bench: Bench, user_count: int, visit_count: int) -> dict[str, object]:
    counts = bench.count(user_count, visit_count)
    return {"users": user_count, "requests": user_count * visit_count, **counts}

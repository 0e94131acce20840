"""The plan: what the next pass would change, found out without changing anything."""

import enum
import os
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.config.additions import finds_refused
from serf_haproxy.config.commands import name_of, take_longer_than_reload
from serf_haproxy.config.diff import Changes, find_differences
from serf_haproxy.config.diff import explain as explain_difference
from serf_haproxy.config.parse import Layout, Line, Parser
from serf_haproxy.config.render import Config
from serf_haproxy.control.answers import ask_serf
from serf_haproxy.control.apply import find_changes
from serf_haproxy.control.fallback import want
from serf_haproxy.control.preview import Preview, preview, preview_vetted
from serf_haproxy.control.trial import try_config
from serf_haproxy.control.unpublished import find_unpublished
from serf_haproxy.haproxy.config_file import ConfigFile
from serf_haproxy.haproxy.socket import BRIEF, PROMPT
from serf_haproxy.policy.orders import explain
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.services import SUCCESSOR, Key
from serf_haproxy.settings import Settings


class How(enum.StrEnum):
    """How HAProxy comes to what it should run."""

    NONE = "none"  # it runs it already
    RUNTIME = "run time"  # its servers are changed, or only the file is
    RELOAD = "reload"
    START = "start"  # it does not run: the file is published for its start, or a reload is tried
    FROZEN = "frozen"  # it is there and does not answer: changes wait, then a reload is tried
    REFUSED = "refused"  # HAProxy refuses the configuration
    PAUSED = "paused"  # an order to pause holds it back


class Plan(NamedTuple):
    """What the next pass would change.

    Attributes:
        how: How.
        before: The text of the published configuration, "" where there is none.
        after: The text of the next one.
        servers: The servers that are new (+), gone (-), different (~), or that have drifted (!): the sign, the
            server's name, and what it is and will be.
        commands: What the runtime socket would be told; none where a reload does it all.
        words: HAProxy's words where it refuses the configuration, else "".
        faults: One line for each fault of the services file.
        pause: The order to pause in words, "" for none: all else is then what follows once it ends.
        changes_in_s: After how many seconds the decision may change without news; None for never.
        serf_fault: Why Serf does not answer, so that changes of the cluster may not be in the plan; "" where it does.
    """

    how: How
    before: str
    after: str
    servers: tuple[tuple[str, str, str], ...]
    commands: tuple[str, ...]
    words: str
    faults: tuple[str, ...]
    pause: str = ""
    changes_in_s: float | None = None
    serf_fault: str = ""


def make_plan(settings: Settings) -> Plan:
    """Return what the next pass would change that does not ask Serf.

    Raises:
        SystemFault: A file cannot be read, or HAProxy cannot be run.
        TemplateError: The template is wrong.
    """
    found = _preview(settings)
    snapshot = found.snapshot
    running, live = snapshot.running, snapshot.live
    path = found.edges.runtime.choose_path(running, live or "")
    named = settings.replace(runtime_socket=path) if path != settings.runtime_socket else settings
    wanted = want(named, snapshot, found.decision)
    goal = found.renderer.render(wanted.read_template(), wanted.servers, named, wanted.services)
    before = Parser().read_published(live or "")
    edges = found.edges
    unpublished = find_unpublished(goal.layout, before, running, edges.ahead, edges.runtime)
    known = before._replace(servers=before.servers | unpublished) if unpublished else before
    changes = find_changes(goal, known, running, found.record.read_left())
    how = How.FROZEN if found.silence else _find_how(goal, snapshot, changes)
    if how is How.RUNTIME and changes and finds_refused(changes.commands, goal.text, found.edges.runtime.read_age()[1]):
        how = How.RELOAD
    how = How.RELOAD if snapshot.orders.reload and running is not None else how
    pause = explain(snapshot.orders.pause) if snapshot.orders.pause else ""
    limits = BRIEF if running is None else PROMPT
    words = try_config(settings, limits).words if how is not How.NONE and goal.text != live else None
    return Plan(
        How.PAUSED if pause else How.REFUSED if words else how,
        live or "",
        goal.text,
        (*_compare(before, goal.layout), *(_list_drifts(goal, before, snapshot) if how is not How.NONE else ())),
        changes.commands if changes else (),
        words or "",
        snapshot.services.faults,
        pause,
        found.decision.changes_in_s,
        ask_serf(settings).fault,
    )


def _preview(settings: Settings) -> Preview:
    """Observe and decide as a pass does, which tries new and changed tables; the trial leaves nothing behind."""
    found = preview(settings)
    if found.snapshot.services.tables == found.edges.state.read_services():
        return found
    with tempfile.TemporaryDirectory(prefix="serf-haproxy-plan-") as directory:
        trial = ConfigFile(os.path.join(directory, "haproxy.cfg"), settings.haproxy_bin, settings.check_timeout_s)
        tried = found._replace(edges=found.edges._replace(config_file=trial))
        vetted = preview_vetted(settings, tried, is_listening_tried=True)
    return vetted._replace(edges=found.edges, snapshot=vetted.snapshot._replace(live=found.snapshot.live))


def _find_how(goal: Config, snapshot: Snapshot, changes: Changes | None) -> How:
    if snapshot.running is None:
        return How.START
    if changes is None or changes.fixed or (changes.commands and not snapshot.running.is_open):
        return How.RELOAD
    if take_longer_than_reload(changes.commands, max(len(goal.layout.servers), len(snapshot.running.servers or ()))):
        return How.RELOAD
    return How.RUNTIME if changes.commands or goal.text != snapshot.live else How.NONE


def _compare(before: Layout, after: Layout) -> tuple[tuple[str, str, str], ...]:
    old: Mapping[Key, Line | None] = {**before.servers, **before.fixed}
    new: Mapping[Key, Line | None] = {**after.servers, **after.fixed}
    changes = []
    for key in sorted(key for key in old.keys() | new.keys() if key[0] != SUCCESSOR):
        was, will = old.get(key), new.get(key)
        if key not in old:
            changes.append(("+", name_of(key), _describe(will)))
        elif key not in new:
            changes.append(("-", name_of(key), _describe(was)))
        elif was != will:
            changes.append(("~", name_of(key), f"{_describe(was)} -> {_describe(will)}"))
    return tuple(changes)


def _list_drifts(goal: Config, before: Layout, snapshot: Snapshot) -> tuple[tuple[str, str, str], ...]:
    """Return the servers whose lines are unchanged, and that HAProxy does not run like them."""
    servers = snapshot.running.servers if snapshot.running else None
    if servers is None:
        return ()
    return tuple(
        ("!", name_of(key), explain_difference(goal.layout, key, servers.get(key)).removeprefix(f"{name_of(key)} "))
        for key in find_differences(goal.layout, servers)
        if before.servers.get(key) == goal.layout.servers[key]
    )


def _describe(line: Line | None) -> str:
    return "" if line is None else f"{line.endpoint} weight {line.weight}"

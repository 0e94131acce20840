"""Ahead of a pass: what a few members come to by themselves is given to HAProxy at once.

The same functions work here on a few members that a pass applies to all: correct their node files, decide, render,
compare, command. Nothing is written but node files, and nothing is remembered: the pass that follows reads HAProxy
back, publishes the file, and puts right whatever was wrong.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from serf_haproxy.config.diff import diff
from serf_haproxy.config.fingerprint import description_of, rest_of
from serf_haproxy.config.parse import Layout, Line, Parser
from serf_haproxy.control.corrections import correct_files
from serf_haproxy.control.edges import Edges
from serf_haproxy.control.outcome import DIFFERS, Outcome
from serf_haproxy.control.rendering import Renderer
from serf_haproxy.errors import HaproxyFault, TemplateError
from serf_haproxy.policy.partial import Basis, Undecided, decide_some
from serf_haproxy.policy.snapshot import UP, Seen
from serf_haproxy.serf import nodes
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.listing import Members
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.serf.roster import Roster
from serf_haproxy.settings import Settings

log = logging.getLogger("serf-haproxy")

Ask = Callable[[Collection[str]], tuple[int, Members] | None]


class Ground(NamedTuple):
    """What the last pass leaves, on which a few members can be decided.

    Attributes:
        basis: Its decision.
        settings: The settings that it used.
        layout: The published configuration, which HAProxy runs.
        rest: Digest of everything in it but the servers.
        ids: The ids of its servers in each section.
        recorded: What Serf has said since: status and member.
    """

    basis: Basis
    settings: Settings
    layout: Layout
    rest: str
    ids: frozenset[tuple[str, int]]
    recorded: list[tuple[str, Member]]


def make_ground(outcome: Outcome, basis: Basis, settings: Settings, text: str, parser: Parser) -> Ground | None:
    """Return the ground that a pass leaves; None where HAProxy does not run exactly what was decided.

    Args:
        outcome: What the pass came to.
        basis: What it decided.
        settings: The settings by which it rendered.
        text: What is published.
        parser: Reads that.
    """
    rest = rest_of(description_of(text))
    if not outcome.digest or not rest or outcome.has_condition(DIFFERS) or outcome.refused:
        return None
    layout = parser.read_published(text)
    ids = frozenset((section, line.id) for (section, _), line in layout.servers.items())
    return Ground(basis, settings, layout, rest, ids, [])


def hasten(names: Collection[str], ask: Ask, ground: Ground, edges: Edges, renderer: Renderer) -> bool:
    """Bring HAProxy to what some members say; return whether that was possible, so that the pass need not be at once.

    Args:
        names: The members, of which a change was announced.
        ask: Asks Serf about them.
        ground: What the last pass left.
        edges: Where to act.
        renderer: Renders configurations.

    Raises:
        SystemFault: A node file cannot be read.
    """
    files = _hear(names, ask, ground, edges)
    if files is None:
        return False
    try:
        servers = decide_some(files, ground.basis)
        template, services = ground.basis.snapshot.template or "", ground.basis.snapshot.services.listed
        goal = renderer.make(template, servers, ground.settings, services).layout if servers else None
    except (Undecided, TemplateError):
        return False
    return goal is None or _change(goal, ground, edges)


def _hear(names: Collection[str], ask: Ask, ground: Ground, edges: Edges) -> Mapping[str, NodeFile] | None:
    """Return the corrected node files of members; None where Serf does not know all of them."""
    answer = ask(names)
    if answer is None:
        return None
    asked_ns, members = answer
    files, strays = nodes.load(edges.nodes_dir, names=set(names))
    if strays or len(members) < len(names):
        return None
    files, corrections, problems = correct_files(
        edges.nodes_dir, files, Roster(asked_ns, ground.basis.snapshot.rules.self_name, members)
    )
    ground.recorded.extend(corrections.record)
    return None if problems or len(files) < len(names) else files


def _change(goal: Layout, ground: Ground, edges: Edges) -> bool:
    """Give HAProxy the commands that lead to the servers of a configuration; return whether it took all of them."""
    before = {key: ground.layout.servers[key] for key in goal.servers if key in ground.layout.servers}
    if goal.rest != ground.rest:
        return False  # the template says more of a server than its line
    if any(
        (section, line.id) in ground.ids
        for (section, name), line in goal.servers.items()
        if (section, name) not in before
    ):
        return False
    changes = diff(goal, ground.layout._replace(servers=before), {key: _see(line) for key, line in before.items()})
    if changes.fixed or any(command.startswith("del ") for command in changes.commands):
        return False
    ground.basis.touched.update(goal.servers)
    description = edges.runtime.read_description() or ""
    if rest_of(description) != goal.rest:
        return False
    edges.ahead.note(description, changes.commands, goal, ground.layout)
    try:
        complaints = edges.runtime.change(changes.commands)
    except HaproxyFault as error:
        complaints = [str(error)]
    if complaints:
        log.info("%s", f"HAProxy did not obey ahead of a pass: {'; '.join(complaints[:3])}")
    return not complaints


def _see(line: Line) -> Seen:
    """Return a server as HAProxy has it when it is as its line says."""
    return Seen(line.endpoint, line.weight, False, False, False, UP, 0, 0, "", line.id)

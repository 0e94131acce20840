"""What a pass decides from: node files, corrected and completed, Serf's roster, and what HAProxy runs."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from serf_haproxy.config.parse import DOWN
from serf_haproxy.control.goal import decide, rules_of
from serf_haproxy.control.state import Record, read_flaps, read_record, read_unfit, write_flaps
from serf_haproxy.errors import SystemFault
from serf_haproxy.haproxy.runtime import Running, read_running
from serf_haproxy.policy import damping
from serf_haproxy.policy import decide as pool
from serf_haproxy.policy.admission import Rules
from serf_haproxy.serf import nodes
from serf_haproxy.serf.events import ALIVE, FAILED, Member
from serf_haproxy.serf.roster import Corrections, Roster, correct
from serf_haproxy.settings import Settings

Heard = tuple[str, Member]  # status and member


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a pass has read.

    Attributes:
        files: Node files by name, as they are after all corrections.
        strays: What else is in the node directory.
        roster: What Serf said; None where it was not asked or did not answer.
        corrections: What the roster put right.
        record: What the pass before left behind.
        self_name: The balancer's own node, "" while not known.
        running: What HAProxy runs; None where it does not answer.
        pool: What the node files come to.
        problems: One sentence for each node file that could not be put right.
    """

    files: dict[str, nodes.NodeFile]
    strays: list[nodes.Stray]
    roster: Roster | None
    corrections: Corrections
    record: Record
    self_name: str
    running: Running | None
    pool: pool.Pool
    problems: tuple[str, ...]


def read_inputs(settings: Settings, ask: Callable[[], Roster | None], is_resync: bool) -> Inputs:
    """Read everything, and let the roster correct the node files.

    Args:
        settings: The settings.
        ask: Asks Serf for its roster; None when it does not answer.
        is_resync: Whether to ask. It is asked all the same where the node files alone are not certain.

    Raises:
        SystemFault: The node directory cannot be read.
    """
    record = read_record(settings)
    files, strays = nodes.load(settings.nodes_dir)
    strays = [stray for stray in strays if not _remove_remnant(settings, stray)]
    running = read_running(settings)
    # A node file does not go by itself: whoever removed it told nobody, so Serf is asked.
    gone = {name for _, name in (running and running.servers) or ()} - files.keys()
    needs_roster = is_resync or gone or not all(file.member.tags_are_certain() for file in files.values())
    roster = ask() if needs_roster else None
    rules = rules_of(settings, roster.self_name if roster else record.self_name)
    corrections = correct(files, roster) if roster else Corrections((), ())
    files, problems = _write_down(settings, files, corrections.record, roster.asked_ns if roster else 0)
    strays = [stray for stray in strays if stray.name not in files]
    counts: dict[str, int] = {}
    servers = (running and running.servers) or {}
    for (_, name), seen in servers.items():
        if seen.connection_count:
            counts[name] = counts.get(name, 0) + seen.connection_count
    context = pool.Context(
        counts,
        flaps=_remember_flaps(settings, files, rules),
        unfit=read_unfit(record),
        serving=frozenset(name for (_, name), seen in servers.items() if rules.is_sticky and seen.is_serving),
        down=_find_down(running),
    )
    decided = decide(settings, files, rules, context)
    forgotten = set(corrections.absent).difference(server.name for server in decided.servers)
    for name in forgotten:
        nodes.forget(settings.nodes_dir, name)
        del files[name]
    corrections = corrections._replace(absent=tuple(forgotten))
    return Inputs(files, strays, roster, corrections, record, rules.self_name, running, decided, problems)


def _find_down(running: Running | None) -> frozenset[str] | None:
    """Return the names of the servers that HAProxy takes for down; None when it does not say."""
    if running is None or running.servers is None:
        return None
    return frozenset(name for (_, name), seen in running.servers.items() if seen.operation == DOWN)


def _write_down(
    settings: Settings, files: dict[str, nodes.NodeFile], heard: Sequence[Heard], at_ns: int
) -> tuple[dict[str, nodes.NodeFile], tuple[str, ...]]:
    """Write node files; return all that there are then, and why some could not be written.

    What could not be written counts all the same: a foreign directory in its place must hinder nobody else.
    """
    unwritten, problems = {}, []
    for status, member in heard:
        try:
            nodes.record(settings.nodes_dir, status, member, exactly=True)
        except SystemFault as error:
            unwritten[member.name] = nodes.NodeFile(status, member, at_ns)
            problems.append(str(error))
    written = {member.name for _, member in heard} - unwritten.keys()
    return files | nodes.load(settings.nodes_dir, names=written)[0] | unwritten, tuple(problems)


def _remove_remnant(settings: Settings, stray: nodes.Stray) -> bool:
    """Remove what a handler that died in the middle has left behind; return whether it was that, and is gone."""
    try:
        return nodes.is_remnant(stray) and nodes.forget(settings.nodes_dir, stray.name)
    except SystemFault:  # it only looks like one
        return False


def _remember_flaps(settings: Settings, files: dict[str, nodes.NodeFile], rules: Rules) -> dict[str, damping.Flap]:
    before = read_flaps(settings)
    if not before and all(file.status != FAILED for file in files.values()):
        return before
    admitted = ((name, file.status) for name, file in files.items() if rules.admit(file.member))
    alive = {name: status == ALIVE for name, status in admitted if status in (ALIVE, FAILED)}
    if 2 * sum(alive.values()) < len(alive):
        return before  # it is the gossip that failed, or this balancer's part of it: no node is to blame
    now = damping.update(before, alive, rules.flaps, time.time())
    if now != before:
        write_flaps(settings, now)
    return now

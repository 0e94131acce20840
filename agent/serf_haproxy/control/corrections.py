"""The step before a snapshot: Serf's roster corrects the node files."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.decision import Decision
from serf_haproxy.serf import nodes
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import NodeFile, Stray
from serf_haproxy.serf.roster import Corrections, Roster, correct


class Heard(NamedTuple):
    """What Serf has said so far.

    Attributes:
        files: Node files by name, after the roster's corrections.
        strays: Other files in the node directory.
        roster: What Serf said just now; None when it was not asked or did not answer.
        corrections: What the roster corrected.
        problems: One sentence for each node file that could not be written.
    """

    files: dict[str, NodeFile]
    strays: list[Stray]
    roster: Roster | None = None
    corrections: Corrections = Corrections((), ())
    problems: tuple[str, ...] = ()


def hear(
    nodes_dir: str,
    ask: Callable[[], Roster | None],
    served: Sequence[str],
    is_resync: bool,
    before: dict[str, NodeFile],
) -> Heard:
    """Read the node files, ask Serf where that is due, and correct them.

    Serf is asked here, under the lock of the pass, so that its answer is never older than the files.

    Args:
        nodes_dir: The node directory.
        ask: Asks Serf for its roster; returns None when Serf does not answer.
        served: Names of the nodes that have servers.
        is_resync: Whether to ask. Serf is asked anyway where the node files alone are ambiguous.
        before: The node files of the pass before, which are not read again when they have not changed.

    Raises:
        SystemFault: The node directory cannot be read.
    """
    files, strays = nodes.load(nodes_dir, before)
    strays = [stray for stray in strays if not _remove_remnant(nodes_dir, stray)]
    # A node file that is missing was removed externally.
    is_missing = any(name not in files for name in served)
    needs_roster = is_resync or is_missing or not all(file.member.tags_are_certain() for file in files.values())
    roster = ask() if needs_roster else None
    if roster is None:
        return Heard(files, strays)
    files, corrections, problems = correct_files(nodes_dir, files, roster)
    strays = [stray for stray in strays if stray.name not in files]
    return Heard(files, strays, roster, corrections, problems)


def correct_files(
    nodes_dir: str, files: dict[str, NodeFile], roster: Roster
) -> tuple[dict[str, NodeFile], Corrections, tuple[str, ...]]:
    """Write what a roster corrects; return the node files, what was corrected, and why some could not be written."""
    corrections = correct(files, roster)
    files, problems = _write_down(nodes_dir, files, corrections.record, roster.asked_ns)
    return files, corrections, problems


def add_early(heard: Heard, early: Sequence[tuple[str, Member]]) -> Heard:
    """Return what a pass heard, with the node files that were corrected ahead of it."""
    corrections = heard.corrections
    more = tuple(one for one in early if one not in corrections.record)
    return heard._replace(corrections=corrections._replace(record=corrections.record + more)) if more else heard


def forget_absent(nodes_dir: str, heard: Heard, decision: Decision) -> Heard:
    """Remove the node files of members that Serf does not know and that are not servers any more."""
    names = {server.name for server in decision.servers} if heard.corrections.absent else set()
    forgotten = tuple(name for name in heard.corrections.absent if name not in names)
    problems = []
    for name in forgotten:
        try:
            nodes.forget(nodes_dir, name)
        except SystemFault as error:
            problems.append(str(error))
    files = {name: file for name, file in heard.files.items() if name not in forgotten} if forgotten else heard.files
    corrections = heard.corrections._replace(absent=forgotten)
    return heard._replace(files=files, corrections=corrections, problems=(*heard.problems, *problems))


def _write_down(
    nodes_dir: str, files: dict[str, NodeFile], heard: Sequence[tuple[str, Member]], at_ns: int
) -> tuple[dict[str, NodeFile], tuple[str, ...]]:
    """Write node files; return all node files, and why some could not be written.

    An unwritten correction counts as well: one foreign directory in the way must not affect other nodes.
    """
    written, problems = {}, []
    for status, member in heard:
        try:
            written[member.name] = nodes.correct(nodes_dir, status, member)
        except SystemFault as error:
            written[member.name] = NodeFile(status, member, at_ns)
            problems.append(str(error))
    return files | written, tuple(problems)


def _remove_remnant(nodes_dir: str, stray: Stray) -> bool:
    """Remove the temporary file of a handler that died; return whether it was one, and is gone."""
    try:
        return nodes.is_remnant(stray) and nodes.forget(nodes_dir, stray.name)
    except SystemFault:  # it only looks like one
        return False

"""The roster: what the local Serf agent says of every member, and what that puts right in the node files.

The roster corrects the node files, and every decision follows from the node files alone, so that a directory listing
shows all there is to know.
"""

from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.serf.events import ALIVE, FAILED, Member
from serf_haproxy.serf.nodes import NodeFile

_FUTURE_S = 10.0  # a roster is hardly ever used later than this after it was asked for


class Roster(NamedTuple):
    """What the local Serf agent answered.

    Attributes:
        asked_ns: When it was asked, on the clock of the files' mtimes, nanoseconds since the epoch.
        self_name: The agent's own node name.
        members: Status and member, by name.
        refused: Members that cannot have a node file: a name fit to print, and the reason.
    """

    asked_ns: int
    self_name: str
    members: Mapping[str, tuple[str, Member]]
    refused: tuple[tuple[str, str], ...] = ()


class Corrections(NamedTuple):
    """What the roster puts right.

    Attributes:
        record: Node files to write. A member that the roster lacks, and that served, has failed as far as we know.
        absent: Other members that the roster lacks: their node files go with their servers.
    """

    record: tuple[tuple[str, Member], ...]
    absent: tuple[str, ...]


def correct(evidence: Mapping[str, NodeFile], roster: Roster) -> Corrections:
    """Compare node files with a roster; of each node the newer evidence counts.

    A member that the roster does not have has not left, so it is treated as one that failed: an agent that has just
    started knows nobody yet, and one that is cut off may never hear of the others again.
    """
    # A file from the future was written before the clock was set back: it is no newer word.
    newer_ns = range(roster.asked_ns, roster.asked_ns + int(_FUTURE_S * 1e9))
    record = [
        (status, member)
        for name, (status, member) in roster.members.items()
        if name not in evidence or (_differ(evidence[name], status, member) and evidence[name].mtime_ns not in newer_ns)
    ]
    record.sort(key=lambda one: one[1].name)
    absent = sorted(name for name in evidence.keys() - roster.members.keys() if evidence[name].mtime_ns not in newer_ns)
    failed = [(FAILED, evidence[name].member) for name in absent if evidence[name].status == ALIVE]
    return Corrections(tuple(record + failed), tuple(name for name in absent if evidence[name].status != ALIVE))


def _differ(heard: NodeFile, status: str, member: Member) -> bool:
    one = heard.member
    before = (heard.status, one.address, one.role, one.tags)
    return before != (status, member.address, member.role, member.tags)

"""The roster: what the local Serf agent says of every member, and what that corrects in the node files.

The roster corrects the node files, and every decision follows from the node files alone. So a listing of the node
directory shows everything that counts.
"""

from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.serf.events import ALIVE, FAILED, Member
from serf_haproxy.serf.nodes import NodeFile

_FUTURE_S = 10.0  # a roster is used at once; a file that is newer by more has its time from a wrong clock


class Roster(NamedTuple):
    """What the local Serf agent answered.

    Attributes:
        asked_ns: When it was asked, on the clock of the files' mtimes, nanoseconds since the epoch.
        self_name: The Serf agent's own node name.
        members: Status and member, by name.
        refused: Members that cannot have a node file: their printable name, and the reason.
    """

    asked_ns: int
    self_name: str
    members: Mapping[str, tuple[str, Member]]
    refused: tuple[tuple[str, str], ...] = ()


class Corrections(NamedTuple):
    """The differences between a roster and the node files.

    Attributes:
        record: Node files to write. A member that is missing from the roster and was alive is written as failed.
        absent: Other members that are missing from the roster: their node files go together with their servers.
    """

    record: tuple[tuple[str, Member], ...]
    absent: tuple[str, ...]


def correct(files: Mapping[str, NodeFile], roster: Roster) -> Corrections:
    """Compare node files with a roster; for each node the newer of the two counts.

    A node file that says the same as the roster has the roster's own `Member` from then on: each member is in memory
    once, and the next comparison is short.

    A member that is missing from the roster has not left, so it is treated as failed: a Serf agent that has just
    started knows no other member, and one that is cut off may never hear of the others again.
    """
    # A file from the future was written before the clock was set back: it is not newer.
    newer_ns = range(roster.asked_ns, roster.asked_ns + int(_FUTURE_S * 1e9))
    record = [
        (status, member)
        for name, (status, member) in roster.members.items()
        if name not in files or (_differ(files[name], status, member) and files[name].mtime_ns not in newer_ns)
    ]
    record.sort(key=lambda one: one[1].name)
    absent = sorted(name for name in files.keys() - roster.members.keys() if files[name].mtime_ns not in newer_ns)
    failed = [(FAILED, files[name].member) for name in absent if files[name].status == ALIVE]
    return Corrections(tuple(record + failed), tuple(name for name in absent if files[name].status != ALIVE))


def _differ(file: NodeFile, status: str, member: Member) -> bool:
    before = file.member
    if before is not member:
        if (before.address, before.role, before.tags) != (member.address, member.role, member.tags):
            return True
        file.member = member
    return file.status != status

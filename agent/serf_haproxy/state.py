"""What a pass leaves behind for `serf-haproxy status` and for the next pass, each in a file of its own.

last_pass.json   what the last pass came to
flaps.json       nodes that failed and came back, while that matters
served           the node files of HAProxy's servers, one line each: what a reboot takes from a node directory in memory
template.good    the last template of your own that HAProxy was seen to run
released         an operator's word: what was lost before this file's mtime is not held any more
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from serf_haproxy.errors import InputError
from serf_haproxy.events import Member, format_line, parse_line
from serf_haproxy.files import read_text, write_durably
from serf_haproxy.flaps import Flap
from serf_haproxy.settings import Settings


class Faults(NamedTuple):
    """Servers that HAProxy refused.

    Attributes:
        basis: Digest of the settings and the template for which this is true.
        at_s: When that was found, seconds since the epoch.
        servers: By name the fields of the server and HAProxy's words.
    """

    basis: str = ""
    at_s: float = 0.0
    servers: Mapping[str, tuple[tuple[object, ...], str]] = {}


@dataclasses.dataclass(frozen=True)
class Record:
    """What a pass leaves behind.

    Attributes:
        verdict: The outcome's verdict, "" before the first pass.
        reason: Its sentence.
        digest: Digest of the configuration that HAProxy was last seen to run, "" when unknown.
        at_s: When the pass ended, seconds since the epoch.
        took_s: How long it took, seconds.
        changed_at_s: When HAProxy last got another configuration, seconds since the epoch; 0 for never.
        self_name: The balancer's own node name, "" until Serf was reached once.
        from_roster: Node files that the roster wrote: name to mtime, nanoseconds since the epoch.
        refused: Members of the last roster that cannot have a node file: printable name to reason.
        strays: Files in the node directory that are no node files: name to reason.
        faults: Servers that HAProxy refused (`Faults`).
    """

    verdict: str = ""
    reason: str = "no pass yet"
    digest: str = ""
    at_s: float = 0.0
    took_s: float = 0.0
    changed_at_s: float = 0.0
    self_name: str = ""
    from_roster: dict[str, int] = dataclasses.field(default_factory=dict)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    strays: dict[str, str] = dataclasses.field(default_factory=dict)
    faults: list[Any] = dataclasses.field(default_factory=list)


_FIELDS = tuple(field.name for field in dataclasses.fields(Record))


def record_path(settings: Settings) -> str:
    """Return the path of the record."""
    return os.path.join(settings.state_dir, "last_pass.json")


def read_record(settings: Settings) -> Record:
    """Read the last record; one that is missing or damaged counts as none, since a pass needs none of it."""
    empty = dataclasses.asdict(Record())
    try:
        table: Any = json.loads(read_text(record_path(settings)) or "{}")
    except ValueError:
        return Record()
    if not isinstance(table, dict):
        return Record()
    return Record(**{name: value for name, value in table.items() if name in empty and _fits(value, empty[name])})


def write_record(settings: Settings, record: Record) -> None:
    """Replace the record durably.

    Raises:
        SystemFault: It cannot be written.
    """
    write_durably(record_path(settings), json.dumps({field: getattr(record, field) for field in _FIELDS}) + "\n")


def read_flaps(settings: Settings) -> dict[str, Flap]:
    """Read what is remembered of nodes that came and went; a damaged file counts as nothing."""
    try:
        table: Any = json.loads(read_text(os.path.join(settings.state_dir, "flaps.json")) or "{}")
        return {
            str(name): Flap(float(p), float(at_s), bool(up), bool(out)) for name, (p, at_s, up, out) in table.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}


def write_flaps(settings: Settings, flaps: Mapping[str, Flap]) -> None:
    """Replace what is remembered of nodes that came and went.

    Raises:
        SystemFault: It cannot be written.
    """
    write_durably(os.path.join(settings.state_dir, "flaps.json"), json.dumps(dict(sorted(flaps.items()))) + "\n")


def read_served(settings: Settings) -> dict[str, tuple[str, Member]]:
    """Read which nodes HAProxy had as its servers: status and member by name; a damaged line counts as nothing.

    Raises:
        SystemFault: The file is there and cannot be read.
    """
    served = {}
    for line in (read_text(_served_path(settings)) or "").splitlines(keepends=True):
        with contextlib.suppress(InputError):
            status, member = parse_line(line)
            served[member.name] = status, member
    return served


def write_served(settings: Settings, served: Mapping[str, tuple[str, Member]]) -> None:
    """Replace what `read_served` reads, where it differs.

    Raises:
        SystemFault: It cannot be read or written.
    """
    text = "".join(format_line(*served[name]) for name in sorted(served))
    if text != (read_text(_served_path(settings)) or ""):
        write_durably(_served_path(settings), text)


def _served_path(settings: Settings) -> str:
    return os.path.join(settings.state_dir, "served")


def read_faults(record: Record) -> Faults:
    """Return what a record says of refused servers; anything damaged counts as nothing."""
    try:
        basis, at_s, servers = record.faults
        known = {str(name): (tuple(fields), str(words)) for name, (fields, words) in servers.items()}
        return Faults(str(basis), float(at_s), known)
    except (ValueError, TypeError, AttributeError):
        return Faults()


def read_good_template(settings: Settings) -> str | None:
    """Return the last template that HAProxy was seen to run, None without one.

    Raises:
        SystemFault: It is there and cannot be read.
    """
    return read_text(os.path.join(settings.state_dir, "template.good"))


def write_good_template(settings: Settings, template: str) -> None:
    """Keep a template that HAProxy runs.

    Raises:
        SystemFault: It cannot be written.
    """
    write_durably(os.path.join(settings.state_dir, "template.good"), template)


def release(settings: Settings) -> None:
    """Let go of all servers that are held at this moment.

    Raises:
        SystemFault: The file cannot be written.
    """
    write_durably(os.path.join(settings.state_dir, "released"), "")


def read_released_ns(settings: Settings) -> int:
    """Return when `release` was last called, nanoseconds since the epoch on the clock of the files; 0 for never."""
    try:
        return os.stat(os.path.join(settings.state_dir, "released")).st_mtime_ns
    except OSError:
        return 0


def _fits(value: object, example: object) -> bool:
    number = (int, float)
    return type(value) is type(example) or (isinstance(value, number) and isinstance(example, number))

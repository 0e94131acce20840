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
import math
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from serf_haproxy.errors import InputError
from serf_haproxy.policy.damping import Flap
from serf_haproxy.policy.decide import Gone
from serf_haproxy.policy.server import Server, read_address
from serf_haproxy.serf.events import Member, name_fault, parse_line
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import read_text, write_durably

# What reading a file raises that a crash or a person has damaged: it has any JSON in it, or none.
_DAMAGE = (ValueError, TypeError, AttributeError, OverflowError, RecursionError)
_FUTURE_S = 5.0  # the coarse clock of the files runs a little behind, never ahead


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
        unfit: Servers whose members can be none any more (`pool.Gone`).
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
    unfit: list[Any] = dataclasses.field(default_factory=list)


_FIELDS = tuple(field.name for field in dataclasses.fields(Record))


def record_path(settings: Settings) -> str:
    """Return the path of the record."""
    return os.path.join(settings.state_dir, "last_pass.json")


def read_record(settings: Settings) -> Record:
    """Read the last record; one that is missing or damaged counts as none, and so does a damaged part of one."""
    empty = dataclasses.asdict(Record())
    try:
        table: Any = json.loads(read_text(record_path(settings)) or "{}")
        return Record(**{name: table[name] for name in table if name in empty and _fits(table[name], empty[name])})
    except _DAMAGE:
        return Record()


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
            name: Flap(_finite(penalty), _finite(at_s), bool(is_alive), bool(is_damped))
            for name, (penalty, at_s, is_alive, is_damped) in table.items()
        }
    except _DAMAGE:
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
            if not name_fault(member.name):
                served[member.name] = status, member
    return served


def write_served(settings: Settings, served: Iterable[str]) -> None:
    """Replace what `read_served` reads, where it differs.

    Args:
        settings: The settings.
        served: The content of each node file, sorted by name.

    Raises:
        SystemFault: It cannot be read or written.
    """
    text = "".join(served)
    if text != (read_text(_served_path(settings)) or ""):
        write_durably(_served_path(settings), text)


def _served_path(settings: Settings) -> str:
    return os.path.join(settings.state_dir, "served")


def read_faults(record: Record) -> Faults:
    """Return what a record says of refused servers; anything damaged counts as nothing."""
    try:
        basis, at_s, servers = record.faults
        known = {name: (tuple(_read_server(fields)), str(words)) for name, (fields, words) in servers.items()}
        return Faults(str(basis), _finite(at_s), known)
    except _DAMAGE:
        return Faults()


def read_unfit(record: Record) -> dict[str, Gone]:
    """Return what a record says of servers whose members can be none any more; anything damaged counts as nothing."""
    try:
        unfit = [Gone(_read_server(fields), int(at_ns)) for fields, at_ns in record.unfit]
        return {gone.server.name: gone for gone in unfit if 0 <= gone.at_ns < 2**63}
    except _DAMAGE:
        return {}


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
    """Return when `release` was last called, nanoseconds since the epoch on the clock of the files; 0 for never.

    A time that lies ahead was written before the clock was set back: it would let all go until then.
    """
    try:
        released_ns = os.stat(os.path.join(settings.state_dir, "released")).st_mtime_ns
    except OSError:
        return 0
    return released_ns if released_ns < time.time_ns() + int(_FUTURE_S * 1e9) else 0


def _fits(value: Any, example: object) -> bool:
    """Tell whether a part of the record is of the kind that it should be; what is in a list is seen when it is used."""
    if isinstance(example, (int, float)):
        return isinstance(value, (int, float)) and math.isfinite(value)
    is_flat = not isinstance(value, dict) or all(isinstance(each, (int, str)) for each in value.values())
    return type(value) is type(example) and is_flat


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _read_server(fields: Any) -> Server:
    name, address, port, weight = fields
    return Server(str(name), read_address(address), int(port), None if weight is None else int(weight))

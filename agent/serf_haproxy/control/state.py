"""The state directory: what a pass leaves behind for the next one and for `serf-haproxy status`.

last_pass.json   what the last pass came to
flaps.json       nodes that failed and came back, while that counts
known.json       the servers that were decided last, and those before whose members still have a node file
served           the node files of HAProxy's servers, one line each: a reboot takes a node directory in memory
services.json    the tables of the services file that were last in force
template.good    the last custom template that HAProxy was seen to run
released         an order of the previous release: servers that were lost before its mtime are not held any more
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from serf_haproxy.control.record import (
    DAMAGE,
    Lines,
    Record,
    format_known,
    format_record,
    parse_finite,
    parse_known,
    parse_record,
)
from serf_haproxy.errors import InputError
from serf_haproxy.policy.damping import Flap
from serf_haproxy.policy.snapshot import Known
from serf_haproxy.serf.events import Member, name_fault, parse_line
from serf_haproxy.services import Key, format_key, parse_key
from serf_haproxy.services.file import Table
from serf_haproxy.system.files import read_mode, read_text, remove_temporaries, set_aside, write_durably

_FUTURE_S = 5.0  # the coarse clock of the files runs a little behind, never ahead


class State:
    """The state directory; a file that cannot be written or read raises SystemFault.

    Args:
        path: The directory.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.record_path = os.path.join(path, "last_pass.json")
        self.pass_lock_path = os.path.join(path, "pass.lock")
        self.daemon_lock_path = os.path.join(path, "daemon.lock")
        self.former_lock_path = os.path.join(path, "resident.lock")  # a daemon of the previous release holds it
        self._flaps_path = os.path.join(path, "flaps.json")
        self._known_path = os.path.join(path, "known.json")
        # Most passes read again what they read before, and write most of it again.
        self._known: tuple[str, Mapping[Key, Known]] = ("", {})
        self._known_lines: Lines = {}
        self._served_path = os.path.join(path, "served")
        self._services_path = os.path.join(path, "services.json")
        self._services: tuple[str, dict[str, Table]] = ("", {})
        self._template_path = os.path.join(path, "template.good")
        self._released_path = os.path.join(path, "released")

    def clean_up(self) -> None:
        """Remove the temporary files of an interrupted pass; the caller holds the lock of the pass."""
        remove_temporaries(self.record_path, self._flaps_path, self._known_path, self._served_path)
        remove_temporaries(self._services_path, self._template_path)

    def set_aside(self) -> None:
        """Set aside what is in the place of a file and is none; what is in memory is written again.

        The caller holds the lock of the pass.

        Raises:
            SystemFault: A file cannot be written.
        """
        for path in (self.record_path, self._flaps_path, self._served_path, self._template_path):
            set_aside(path)
        for path, text in ((self._known_path, self._known[0]), (self._services_path, self._services[0])):
            if set_aside(path, has_copy=bool(text)) and text:
                write_durably(path, text)

    def read_record(self) -> Record:
        """Return the last record; a missing or damaged one counts as none, and so does a damaged part of it."""
        return parse_record(read_text(self.record_path) or "{}")

    def write_record(self, record: Record) -> None:
        """Replace the record."""
        write_durably(self.record_path, format_record(record))

    def read_flaps(self) -> dict[Key, Flap]:
        """Return the memory of nodes that failed; a damaged file counts as empty."""
        try:
            table: Any = json.loads(read_text(self._flaps_path) or "{}")
            return {
                parse_key(name): Flap(parse_finite(penalty), parse_finite(at_s), bool(is_alive), bool(is_damped))
                for name, (penalty, at_s, is_alive, is_damped) in table.items()
            }
        except DAMAGE:
            return {}

    def remember_flaps(self, flaps: Mapping[Key, Flap], before: Mapping[Key, Flap]) -> None:
        """Replace the memory of nodes that failed, where it is another one than before."""
        if flaps == before:
            return
        named = {format_key(key): flaps[key] for key in sorted(flaps)}
        write_durably(self._flaps_path, json.dumps(named) + "\n")

    def read_known(self) -> Mapping[Key, Known]:
        """Return what is remembered of servers; what is damaged is left out."""
        text = read_text(self._known_path) or ""
        if text != self._known[0]:
            self._known = text, parse_known(text)
        return self._known[1]

    def write_known(self, known: Mapping[Key, Known]) -> None:
        """Replace what is remembered of servers."""
        text, lines = format_known(known, self._known_lines)
        write_durably(self._known_path, text)
        self._known, self._known_lines = (text, known), lines

    def read_served(self) -> str:
        """Return the lines of the node files of all servers, "" without any."""
        return read_text(self._served_path) or ""

    def write_served(self, text: str) -> None:
        """Replace what `read_served` returns."""
        write_durably(self._served_path, text)

    def read_services(self) -> Mapping[str, Table]:
        """Return the tables of the services file that were last in force; a damaged file counts as empty."""
        text = read_text(self._services_path) or ""
        if text != self._services[0]:
            self._services = text, _parse_tables(text)
        return self._services[1]

    def write_services(self, tables: Mapping[str, Table]) -> None:
        """Replace what `read_services` returns."""
        write_durably(self._services_path, json.dumps(tables, indent=1) + "\n")

    def read_good_template(self) -> str | None:
        """Return the last custom template that HAProxy was seen to run, None without one."""
        return read_text(self._template_path)

    def keep_template(self, template: str, mode: int) -> None:
        """Keep a template that HAProxy runs, with the template's own permissions: it may contain secrets."""
        if (template, mode) != (self.read_good_template(), read_mode(self._template_path)):
            write_durably(self._template_path, template, mode, is_exact=True)

    def read_released_ns(self) -> int:
        """Return when the previous release was told to release all servers, nanoseconds since the epoch; 0 for never.

        A time in the future was written before the clock was set back: it would release everything until then.
        """
        try:
            released_ns = os.stat(self._released_path).st_mtime_ns
        except OSError:
            return 0
        return released_ns if released_ns < time.time_ns() + int(_FUTURE_S * 1e9) else 0


def _parse_tables(text: str) -> dict[str, Table]:
    """Return the tables in a JSON text; `services.file` checks what is in them."""
    try:
        tables: Any = json.loads(text)
        return {name: table for name, table in tables.items() if isinstance(table, dict)}
    except DAMAGE:
        return {}


def parse_served(text: str) -> dict[str, tuple[str, Member]]:
    """Return status and member by name from the lines of `State.read_served`; a damaged line is left out."""
    served = {}
    for line in text.splitlines(keepends=True):
        with contextlib.suppress(InputError):
            status, member = parse_line(line)
            if not name_fault(member.name):
                served[member.name] = status, member
    return served

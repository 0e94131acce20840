"""Certificates of authorities, by which HAProxy checks servers: it loads copies, never the files of the operator.

HAProxy reads such a file whenever it starts or reloads, and refuses its whole configuration when the file is gone or
wrong. A copy is named by its content: a file that has changed makes another configuration, which takes one reload.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serf_haproxy.errors import SystemFault
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.file import Services
from serf_haproxy.services.service import Service, make_default
from serf_haproxy.settings import Settings
from serf_haproxy.system.certificates import read_authorities
from serf_haproxy.system.files import write_durably

_DIGITS = 16
_COPY = re.compile(rf"authorities-[0-9a-f]{{{_DIGITS}}}(\.[0-9a-f]+\.tmp)?", re.ASCII)  # with those of a crash


class Found(NamedTuple):
    """What HAProxy can load for a file.

    Attributes:
        copy: The path of the copy, "" for none.
        fault: What is wrong with the file, "" for nothing.
    """

    copy: str
    fault: str


class Authorities:
    """The copies of the files that services name as `tls_ca_file`.

    Args:
        settings: The settings. The copies are in the directory of all copies that HAProxy loads, which it can read
            where it is another user.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory = settings.certificate_copies_dir
        self.paths: frozenset[str] = frozenset()  # the files that were asked for
        self._texts: dict[str, str] = {}  # what each copy should have
        self._unwritten: dict[str, str] = {}  # why a copy could not be written

    def find(self, path: str, kept: Mapping[str, str]) -> Found:
        """Return the copy of a file. While the file is missing or wrong it is the last good one.

        Args:
            path: The file.
            kept: The copies that were last in force, by file.
        """
        self.paths |= {path}
        try:
            pem = read_authorities(path)
        except ValueError as error:
            fault = str(error)
        else:
            copy = os.path.join(self._directory, f"authorities-{_digest(pem)}")
            self._texts[copy] = pem
            fault = self._unwritten.get(copy, "")
            if not fault:
                return Found(copy, "")
        before = kept.get(path, "")
        return Found(before if _is_whole(before) else "", fault)

    def name_copies(self, services: Services, kept: Mapping[str, str]) -> Services:
        """Return the services with the copies as their `tls_ca_file`; one without a copy is left out alone.

        Args:
            services: The services as the operator describes them.
            kept: The copies that were last in force, by file.
        """
        listed: list[Service] = []
        faults: list[str] = []
        tables = dict(services.tables)
        for service in services.listed:
            path = service.tls_ca_file
            found = self.find(path, kept) if path else Found("", "")
            if found.fault:
                then = "its last good content goes on" if found.copy else "it is left out"
                then = "it is as the settings say" if service.is_default and not found.copy else then
                where = f"{self._settings.services_file}: [{service.name}]"
                faults.append(f"{where} tls_ca_file = {path}: {found.fault}; {then}")
            if not path or found.copy:
                listed.append(dataclasses.replace(service, tls_ca_file=found.copy))
                continue
            tables.pop(service.name, None)
            if service.name == DEFAULT_SERVICE:
                listed.append(make_default(self._settings))
        return services._replace(listed=tuple(listed), faults=(*services.faults, *faults), tables=tables)

    def forget(self) -> None:
        """Forget what was found: `write` then writes only what is found from now on."""
        self.paths = frozenset()
        self._texts.clear()

    def write(self) -> bool:
        """Write the copies that were found; return whether another number of them than before cannot be written."""
        before, self._unwritten = self._unwritten, {}
        for copy, pem in self._texts.items():
            if _is_whole(copy):
                continue
            try:
                # Public data, and HAProxy may be another user: as readable as its configuration.
                os.makedirs(self._directory, 0o755, exist_ok=True)
                write_durably(copy, pem, 0o644, is_exact=True)
            except (OSError, SystemFault) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                remedy = f"give {self._directory} to this user"
                self._unwritten[copy] = f"its copy cannot be written ({reason}); {remedy}"
        return before != self._unwritten

    def remove_others(self, services: Services, configurations: Iterable[str | None]) -> None:
        """Remove the copies that neither a service nor a configuration names; the caller holds the lock of the pass."""
        named = "\n".join(
            (*(service.tls_ca_file for service in services.listed), *(one or "" for one in configurations))
        )
        with contextlib.suppress(OSError):
            for name in os.listdir(self._directory):
                path = os.path.join(self._directory, name)
                if _COPY.fullmatch(name) and path not in named:
                    os.unlink(path)


def list_copies(services: Services) -> dict[str, str]:
    """Return the copies that services name, by the operator's file."""
    return {
        str(services.tables[service.name]["tls_ca_file"]): service.tls_ca_file
        for service in services.listed
        if service.tls_ca_file and service.name in services.tables
    }


def _digest(pem: str) -> str:
    return hashlib.sha256(pem.encode("ascii")).hexdigest()[:_DIGITS]


def _is_whole(copy: str) -> bool:
    """Return whether a copy is there, with the content that its name says."""
    if not copy:
        return False
    try:
        return copy.endswith(f"authorities-{_digest(read_authorities(copy))}")
    except ValueError:
        return False

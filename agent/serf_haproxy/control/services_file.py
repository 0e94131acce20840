"""The services file on disk. Every pass reads it, as it reads the template."""

import functools
from collections.abc import Mapping

from serf_haproxy.control.authorities import Authorities
from serf_haproxy.control.secrets import find_wrong_secret
from serf_haproxy.control.withheld import Withheld, digest_of
from serf_haproxy.errors import SystemFault
from serf_haproxy.services.file import Services, Source, Table, read_from
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import WRITTEN_BYTES, read_text


class ServicesFile:
    """The operator's services file. It remembers what it came to, to save time; a new one returns the same.

    Args:
        settings: The settings, which say what a table does not.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._read = functools.lru_cache(maxsize=1)(self._interpret)
        self._good: Mapping[str, Table] = {}
        self._withheld: Withheld = {}
        self._copies: Mapping[str, str] = {}
        self._is_file_wrong = False
        self.authorities = Authorities(settings)

    def read(
        self,
        good: Mapping[str, Table],
        copies: Mapping[str, str] | None = None,
        withheld: Withheld | None = None,
    ) -> Services:
        """Return the services.

        Args:
            good: The tables that were last in force.
            copies: The copies of files of authorities that were last in force, by file.
            withheld: The tables that HAProxy cannot run, by name.
        """
        try:
            text, fault = read_text(self._settings.services_file, WRITTEN_BYTES), ""
        except SystemFault as error:
            text, fault = None, str(error)
        withheld, copies = withheld or {}, copies or {}
        if (good, withheld, copies) != (self._good, self._withheld, self._copies) or self._is_file_wrong:
            self._good, self._withheld, self._copies, self._is_file_wrong = good, withheld, copies, False
            self._read.cache_clear()
        return self.authorities.name_copies(self._read(text, fault), copies)

    def copy_authorities(self, good: Mapping[str, Table], copies: Mapping[str, str]) -> None:
        """Write the copies of the files of authorities that the services name; arguments are those of `read`.

        A copy that cannot be written is a fault of its service, which `read` returns from then on.
        """
        self.authorities.forget()
        self.read(good, copies, self._withheld)
        self._is_file_wrong = self.authorities.write() or self._is_file_wrong

    def _interpret(self, text: str | None, fault: str) -> Services:
        source = Source(self._settings.services_file, self._settings, self._good, self._inspect, self._refuse)
        return read_from(source, text, fault)

    def _inspect(self, path: str) -> str:
        """Return why HAProxy has no certificates for a file, "" where it has; the file may be put right later."""
        copy, fault = self.authorities.find(path, self._copies)
        self._is_file_wrong = self._is_file_wrong or bool(fault)
        return "" if copy else fault

    def _refuse(self, name: str, table: Table) -> str:
        """Return why a new or changed table cannot count, "" where that is not known; a secret may come later."""
        if fault := find_wrong_secret(name, table):
            self._is_file_wrong = True
            return fault
        refusal = self._withheld.get(name)
        return refusal.words if refusal and refusal.digest == digest_of(table) else ""

"""The certificates that HAProxy has: their copies and crt-list on disk, and those that the newest worker uses.

The directory of copies has:

    NAME.DIGEST.pem   the last good content of the operator's NAME.pem
    list              the crt-list with which HAProxy starts and reloads

Each file has mode 600, or 640 where the directory passes on its group (setgid) and that group may read the directory:
there HAProxy is another user.
"""

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterable
from typing import NamedTuple

from serf_haproxy.config.certificates import (
    format_list,
    is_copy,
    list_additions,
    list_removals,
    parse_list,
    sort_copies,
)
from serf_haproxy.errors import SystemFault
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.system.files import read_text, remove_temporaries, set_aside, write_durably
from serf_haproxy.system.processes import run

_SHARED = stat.S_ISGID | stat.S_IRGRP | stat.S_IXGRP
_TRANSACTION = re.compile(r"^\*(/\S+)$", re.MULTILINE)
_TRIAL = """\
defaults
    mode http
    timeout client 1s
frontend trial
    bind 127.0.0.1:1 ssl crt-list {path} strict-sni
"""


class Present(NamedTuple):
    """What is on disk.

    Attributes:
        copies: The copies that there are.
        listed: The copies in the crt-list.
    """

    copies: frozenset[str]
    listed: frozenset[str]

    @property
    def lost(self) -> frozenset[str]:
        """The copies in the crt-list that are not there."""
        return self.listed - self.copies


class CertificateCopies:
    """The copies and the crt-list.

    Args:
        list_path: The crt-list; the copies are beside it.
        haproxy_bin: The HAProxy program that tries certificates.
        timeout_s: Time limit of a trial.
    """

    def __init__(self, list_path: str, haproxy_bin: str, timeout_s: float) -> None:
        self.directory, self.list_path = os.path.dirname(list_path), list_path
        self._trial_path, self._trial_list_path = f"{list_path}.trial.cfg", f"{list_path}.trial"
        self._haproxy_bin = haproxy_bin
        self._timeout_s = timeout_s
        self._owner: tuple[int, int] | None = None  # the directory's mode and group as its files follow them

    def prepare(self) -> Present:
        """Make the directory and an empty crt-list where they are missing: HAProxy then starts without a certificate.

        Where the directory has got another mode or group since, its files get it too.

        Returns:
            What there is now.

        Raises:
            SystemFault: They cannot be made or read.
        """
        try:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            found = os.stat(self.directory)
        except OSError as error:
            reason = f"{error.strerror}; make it and give it to this user"
            raise SystemFault(f"cannot make {self.directory}: {reason}") from error
        set_aside(self.list_path)
        copies, listed = self._find(), read_text(self.list_path)
        is_other = (found.st_mode, found.st_gid) != self._owner
        for path in map(self.locate, copies if is_other else ()):
            if not self._has_right_mode(path):
                self._write(path, read_text(path) or "")
        if listed is None or (is_other and not self._has_right_mode(self.list_path)):
            self._write(self.list_path, listed or "")
        self._owner = found.st_mode, found.st_gid
        return Present(copies, parse_list(listed or ""))

    def write_list(self, copies: Iterable[str]) -> None:
        """Replace the crt-list."""
        self._write(self.list_path, format_list(self.directory, copies))

    def read(self, copy: str) -> str:
        """Return the content of a copy."""
        text = read_text(self.locate(copy))
        if text is None:
            raise SystemFault(f"{self.locate(copy)} is missing")
        return text

    def write(self, copy: str, pem: str) -> None:
        """Write a copy."""
        self._write(self.locate(copy), pem)

    def keep(self, copies: Collection[str]) -> None:
        """Remove all other copies, as far as possible."""
        for copy in self._find().difference(copies):
            with contextlib.suppress(OSError):
                os.unlink(self.locate(copy))

    def clean_up(self) -> None:
        """Remove the temporary files of an interrupted pass."""
        copies = map(self.locate, self._find())
        remove_temporaries(self.list_path, self._trial_path, self._trial_list_path, *copies)

    def locate(self, copy: str) -> str:
        """Return the path of a copy."""
        return f"{self.directory}/{copy}"

    def check(self, copies: Iterable[str]) -> str | None:
        """Have HAProxy load copies, without starting it.

        Returns:
            None when it takes all of them; otherwise its words.

        Raises:
            SystemFault: A file cannot be written, or HAProxy cannot be run or gives no result in time.
        """
        self._write(self._trial_list_path, format_list(self.directory, copies))
        self._write(self._trial_path, _TRIAL.format(path=self._trial_list_path))
        completed = run([self._haproxy_bin, "-c", "-f", self._trial_path], self._timeout_s)
        for path in (self._trial_list_path, self._trial_path):
            with contextlib.suppress(OSError):
                os.unlink(path)
        if completed.status == 0:
            return None
        alert = completed.output.partition("[ALERT]")[2].partition("\n[")[0]  # from 3.0 it has more lines
        words = alert.partition("'crt-list' : ")[2] or alert
        if not words.strip():
            raise SystemFault(f"{self._haproxy_bin} -c ended with exit status {completed.status} and no message")
        return " ".join(words.split())

    def _find(self) -> frozenset[str]:
        """Return the copies that there are."""
        try:
            return frozenset(name for name in os.listdir(self.directory) if is_copy(name))
        except OSError as error:
            raise SystemFault(f"cannot read {self.directory}: {error.strerror}") from error

    def _write(self, path: str, text: str) -> None:
        write_durably(path, text, self._find_mode(), is_exact=True)

    def _find_mode(self) -> int:
        is_shared = stat.S_IMODE(os.stat(self.directory).st_mode) & _SHARED == _SHARED
        return 0o640 if is_shared else 0o600

    def _has_right_mode(self, path: str) -> bool:
        """Return whether a file is there with the mode, and where that counts the group, that it should have."""
        try:
            found = os.stat(path)
        except OSError:
            return False
        mode = self._find_mode()
        is_own_group = mode == 0o600 or found.st_gid == os.stat(self.directory).st_gid
        return stat.S_IMODE(found.st_mode) == mode and is_own_group


class LoadedCertificates:
    """The certificates that the newest worker has.

    Args:
        runtime: The runtime socket.
        copies: The copies that it loads.
    """

    def __init__(self, runtime: Runtime, copies: CertificateCopies) -> None:
        self._runtime = runtime
        self._copies = copies

    def read(self) -> frozenset[str] | None:
        """Return the copies that are in use; None where no listener uses the crt-list, or HAProxy does not answer."""
        answer = self._runtime.ask_newest(f"show ssl crt-list {self._copies.list_path}") or ""
        return parse_list(answer) if f"# {self._copies.list_path}\n" in answer else None

    def change(self, added: Collection[str], removed: Collection[str]) -> list[str]:
        """Add and remove copies; return HAProxy's complaints.

        New ones come first, so that no host is without one, in the order of their files. Old ones go in the opposite
        order: of two for one host the first one goes last, so that the second one serves the host at no time.

        Raises:
            SystemFault: A copy cannot be read, or the socket does not answer.
        """
        self._abort()
        complaints: list[str] = []
        for copy in sort_copies(added):
            path = self._copies.locate(copy)
            for command in list_additions(self._copies.list_path, path, self._copies.read(copy)):
                complaints += self._runtime.change([command])
        for copy in reversed(sort_copies(removed)):
            complaints += self._runtime.change([list_removals(self._copies.list_path, self._copies.locate(copy))])
        return complaints

    def _abort(self) -> None:
        """End what an interrupted pass has begun: HAProxy takes one certificate at a time."""
        for path in _TRANSACTION.findall(self._runtime.ask_newest("show ssl cert") or ""):
            if os.path.dirname(path) == self._copies.directory:
                self._runtime.change([f"abort ssl cert {path}"])

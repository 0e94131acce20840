"""HAProxy's configuration file: check, publish, restore.

Beside the live file `haproxy.cfg` there may be:

    haproxy.cfg.candidate   the configuration that is being checked
    haproxy.cfg.good        the last one that HAProxy confirmed
    haproxy.cfg.rejected    the last one that HAProxy refused, followed by its words
    haproxy.cfg.before      the one that was there before our first
    haproxy.cfg.state       the server state file of a reload
"""

import contextlib
import os
import re
from collections.abc import Iterator

from serf_haproxy.config.fingerprint import is_marked
from serf_haproxy.config.state_file import NO_STATE
from serf_haproxy.errors import SystemFault
from serf_haproxy.system.files import read_text, rename_durably, write_durably
from serf_haproxy.system.processes import run

_NOISE = re.compile(r"\[NOTICE\]|^\s*$|Fatal errors found in configuration|Error\(s\) found in configuration")


class ConfigFile:
    """The live configuration and the files beside it.

    Args:
        path: The live configuration.
        haproxy_bin: The HAProxy program that checks candidates.
        check_timeout_s: Time limit of a check.
    """

    def __init__(self, path: str, haproxy_bin: str, check_timeout_s: float) -> None:
        self.path = path
        self.candidate_path = f"{path}.candidate"
        self.good_path = f"{path}.good"
        self.rejected_path = f"{path}.rejected"
        self.before_path = f"{path}.before"
        self.state_path = f"{path}.state"
        self.check_timeout_s = check_timeout_s
        self._haproxy_bin = haproxy_bin

    def read_live(self) -> str | None:
        """Return the text of the live configuration, None when there is none."""
        return read_text(self.path)

    def read_good(self) -> str | None:
        """Return the last configuration that HAProxy confirmed, None when none is kept."""
        return read_text(self.good_path)

    def check(self, text: str) -> str | None:
        """Write the candidate and have HAProxy check it as the master would load it.

        Returns:
            None when it is valid; otherwise HAProxy's words, and the candidate stays in its place.

        Raises:
            SystemFault: The candidate cannot be written, or HAProxy cannot be run or gives no result in time.
        """
        write_durably(self.candidate_path, text)
        completed = run([self._haproxy_bin, "-W", "-c", "-f", self.candidate_path], self.check_timeout_s)
        if completed.status == 0:
            return None
        lines = [line.strip() for line in completed.output.splitlines() if not _NOISE.search(line)]
        return "\n".join(lines) or f"haproxy -c ended with exit status {completed.status} and no message"

    def reject(self, words: str) -> None:
        """Keep the candidate as `.rejected`, with HAProxy's words as comments at its end."""
        text = read_text(self.candidate_path) or ""
        said = "".join(f"# haproxy: {line}\n" for line in words.splitlines())
        write_durably(self.rejected_path, f"{text}{said}")
        self.discard()

    def discard(self) -> None:
        """Remove the candidate."""
        with contextlib.suppress(OSError):  # the next candidate overwrites it
            os.unlink(self.candidate_path)

    def publish(self, is_live_confirmed: bool) -> None:
        """Rename the checked candidate over the live file.

        A confirmed live file is kept as `.good` first, and a first one that is not ours as `.before`.

        Raises:
            SystemFault: A file cannot be renamed; the live file is untouched.
        """
        live = self.read_live() or ""
        if is_live_confirmed:
            write_durably(self.good_path, live)
        elif live and not is_marked(live) and not os.path.exists(self.before_path):
            write_durably(self.before_path, live)
        try:
            rename_durably(self.candidate_path, self.path)
        except OSError as error:
            reason = f"{error.strerror}; the previous file is untouched"
            raise SystemFault(f"cannot publish {self.path}: {reason}") from error

    def restore(self) -> bool:
        """Put back the last confirmed configuration, or the one before our first; return whether there is one."""
        former = self.read_good() or read_text(self.before_path)
        if former is None:
            return False
        write_durably(self.path, former)
        return True

    @contextlib.contextmanager
    def handing_over(self, state: str) -> Iterator[None]:
        """Provide a server state file for the reload in a block; at a later start it would override the configuration.

        Raises:
            SystemFault: It cannot be written.
        """
        write_durably(self.state_path, state)
        try:
            yield
        finally:
            write_durably(self.state_path, NO_STATE)

    def tidy(self) -> None:
        """Remove what an interrupted pass left behind; the caller holds the lock of the pass."""
        for path in (self.path, self.candidate_path, self.good_path, self.rejected_path, self.state_path):
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.tmp")
        self.discard()
        if read_text(self.state_path) not in (None, NO_STATE):
            write_durably(self.state_path, NO_STATE)

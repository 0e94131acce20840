"""HAProxy's configuration file: check, publish, restore.

Beside the live file `haproxy.cfg` there may be:

    haproxy.cfg.candidate   the configuration that is being checked
    haproxy.cfg.good        the last one that HAProxy confirmed
    haproxy.cfg.rejected    the last one that HAProxy refused, followed by its words
    haproxy.cfg.before      the one that was there before our first
    haproxy.cfg.state       the server state file of a reload

All of them have the permissions of the live file, but none for users who may not read the custom template: what is
made from a template that contains secrets contains them too.
"""

import contextlib
import os
import re
from collections.abc import Iterator

from serf_haproxy.config.fingerprint import is_marked
from serf_haproxy.config.state_file import NO_STATE
from serf_haproxy.errors import SystemFault
from serf_haproxy.system.files import read_mode, read_text, remove_temporaries, rename_durably, set_aside, write_durably
from serf_haproxy.system.processes import run

_NEW_MODE = 0o644  # reduced by the umask
_NOISE = re.compile(r"\[NOTICE\]|^\s*$|Fatal errors found in configuration|Error\(s\) found in configuration")


class ConfigFile:
    """The live configuration and the files beside it.

    Args:
        path: The live configuration.
        haproxy_bin: The HAProxy program that checks candidates.
        check_timeout_s: Time limit of a check.
        template_path: The custom template, "" for none.
    """

    def __init__(self, path: str, haproxy_bin: str, check_timeout_s: float, template_path: str = "") -> None:
        self.path = path
        self.candidate_path = f"{path}.candidate"
        self.good_path = f"{path}.good"
        self.rejected_path = f"{path}.rejected"
        self.before_path = f"{path}.before"
        self.state_path = f"{path}.state"
        self.check_timeout_s = check_timeout_s
        self._haproxy_bin = haproxy_bin
        self._template_path = template_path

    def read_live(self) -> str | None:
        """Return the text of the live configuration, None when there is none."""
        return read_text(self.path)

    def read_good(self) -> str | None:
        """Return the last configuration that HAProxy confirmed, None when none is kept."""
        return read_text(self.good_path)

    def _find_mode(self) -> tuple[int, bool]:
        """Return the permissions for the live file and those beside it, and whether the umask does not reduce them."""
        live, template = read_mode(self.path), read_mode(self._template_path) if self._template_path else None
        mode = _NEW_MODE if live is None else live
        if template is not None:
            mode &= 0o700 | (0o070 if template & 0o040 else 0) | (0o007 if template & 0o004 else 0)
        return mode, live is not None

    def _write(self, path: str, text: str) -> None:
        """Write a file beside the live one, with its permissions."""
        write_durably(path, text, *self._find_mode())

    def _narrow(self, path: str) -> None:
        """Take from a file the permissions that the live file does not give: the previous release gave them."""
        before, (mode, _) = read_mode(path), self._find_mode()
        if before is not None and before & ~mode and not os.path.islink(path):
            with contextlib.suppress(OSError):
                os.chmod(path, before & mode)

    def check(self, text: str) -> str | None:
        """Write the candidate and have HAProxy check it as the master would load it.

        Returns:
            None when it is valid; otherwise HAProxy's words, and the candidate stays in its place.

        Raises:
            SystemFault: The candidate cannot be written, or HAProxy cannot be run or gives no result in time.
        """
        self._write(self.candidate_path, text)
        completed = run([self._haproxy_bin, "-W", "-c", "-f", self.candidate_path], self.check_timeout_s)
        if completed.status == 0:
            return None
        lines = [line.strip() for line in completed.output.splitlines() if not _NOISE.search(line)]
        return "\n".join(lines) or f"haproxy -c ended with exit status {completed.status} and no message"

    def accepts_live(self) -> bool:
        """Return whether HAProxy accepts the live configuration, which is not touched.

        Raises:
            SystemFault: HAProxy cannot be run, or gives no result in time.
        """
        return run([self._haproxy_bin, "-W", "-c", "-q", "-f", self.path], self.check_timeout_s).status == 0

    def reject(self, words: str) -> None:
        """Keep the candidate as `.rejected`, with HAProxy's words as comments at its end."""
        text = read_text(self.candidate_path) or ""
        said = "".join(f"# haproxy: {line}\n" for line in words.splitlines())
        self._write(self.rejected_path, f"{text}{said}")
        self.discard()

    def discard(self) -> None:
        """Remove the candidate."""
        if os.path.lexists(self.candidate_path):  # the attempt alone would wait for a disk that hangs
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
            self._write(self.good_path, live)
        elif live and not is_marked(live) and not os.path.exists(self.before_path):
            self._write(self.before_path, live)
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
        self._write(self.path, former)
        return True

    @contextlib.contextmanager
    def handing_over(self, state: str) -> Iterator[None]:
        """Provide a server state file for the reload in a block; at a later start it would override the configuration.

        Raises:
            SystemFault: It cannot be written.
        """
        self._write(self.state_path, state)
        try:
            yield
        finally:
            self._write(self.state_path, NO_STATE)

    def clean_up(self) -> None:
        """Remove the temporary files of an interrupted pass, and narrow what another release left open."""
        remove_temporaries(self.path, self.candidate_path, self.good_path, self.rejected_path, self.state_path)
        for path in (self.good_path, self.rejected_path, self.before_path):
            self._narrow(path)

    def set_aside(self) -> None:
        """Set aside what is in the place of a file beside the live one and is none; the caller holds the pass's lock.

        At the live file's place only the operator knows what it is: its path may be a wrong setting.
        """
        for path in (self.candidate_path, self.good_path, self.rejected_path, self.before_path, self.state_path):
            set_aside(path)

    def tidy(self) -> None:
        """Remove the candidate and the server state of an interrupted pass; the caller holds the lock of the pass."""
        self.discard()
        if read_text(self.state_path) not in (None, NO_STATE):
            self._write(self.state_path, NO_STATE)

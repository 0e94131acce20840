"""The configuration file and the supervised master: check, publish, reload, confirm, restore.

Beside the live file `haproxy.cfg` stand, each only when it has something to say:

    haproxy.cfg.candidate   being checked
    haproxy.cfg.good        the last one that HAProxy confirmed
    haproxy.cfg.rejected    the last one that HAProxy refused, followed by its words
    haproxy.cfg.before      the one that somebody else had written there before our first
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator

from serf_haproxy.config.render import is_marked
from serf_haproxy.errors import HaproxyFault, SystemFault
from serf_haproxy.haproxy.runtime import Master, Running, read_description, read_master
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import read_text, rename_durably, write_durably
from serf_haproxy.system.processes import Completed, ask, run

_POLL_S = 0.01
_NO_STATE = "1\n"  # the version of the format and not one server; HAProxy warns of a file without it
_ABSENT_S = 2.0  # a supervised HAProxy that was killed is back within this time
_NOISE = re.compile(r"\[NOTICE\]|^\s*$|Fatal errors found in configuration|Error\(s\) found in configuration")


def candidate_path(settings: Settings) -> str:
    """Return the path of the candidate."""
    return f"{settings.config_path}.candidate"


def before_path(settings: Settings) -> str:
    """Return the path of what was there before our first configuration."""
    return f"{settings.config_path}.before"


def read_live(settings: Settings) -> str | None:
    """Return the text of the live configuration, None when there is none."""
    return read_text(settings.config_path)


def read_good(settings: Settings) -> str | None:
    """Return the text of the last configuration that HAProxy confirmed, None when none is kept."""
    return read_text(f"{settings.config_path}.good")


def check(settings: Settings, text: str) -> str | None:
    """Write the candidate beside the live file and have HAProxy check it, as the master would load it.

    Returns:
        None when it is valid, else HAProxy's words, with the candidate still in its place.

    Raises:
        SystemFault: The candidate cannot be written, or HAProxy cannot be run or gives no result in time.
    """
    path = candidate_path(settings)
    write_durably(path, text)
    completed = run([settings.haproxy_bin, "-W", "-c", "-f", path], settings.check_timeout_s)
    if completed.status == 0:
        return None
    lines = [line.strip() for line in completed.output.splitlines() if not _NOISE.search(line)]
    return "\n".join(lines) or f"haproxy -c ended with exit status {completed.status} and no word"


def reject(settings: Settings, words: str) -> None:
    """Keep the candidate as `.rejected`, with HAProxy's words as comments at its end."""
    text = read_text(candidate_path(settings)) or ""
    said = "".join(f"# haproxy: {line}\n" for line in words.splitlines())
    write_durably(f"{settings.config_path}.rejected", f"{text}{said}")
    discard(settings)


def discard(settings: Settings) -> None:
    """Remove the candidate."""
    with contextlib.suppress(OSError):  # the next candidate overwrites it
        os.unlink(candidate_path(settings))


def publish(settings: Settings, live_is_confirmed: bool) -> None:
    """Rename the checked candidate over the live file.

    A confirmed live file is kept as `.good` first, and the first one that is not ours as `.before`.

    Raises:
        SystemFault: A file cannot be renamed; the live file is untouched.
    """
    live = read_live(settings) or ""
    if live_is_confirmed:
        write_durably(f"{settings.config_path}.good", live)
    elif live and not is_marked(live) and not os.path.exists(before_path(settings)):
        write_durably(before_path(settings), live)
    try:
        rename_durably(candidate_path(settings), settings.config_path)
    except OSError as error:
        reason = f"{error.strerror}; the file before is untouched"
        raise SystemFault(f"cannot publish {settings.config_path}: {reason}") from error


def restore(settings: Settings) -> bool:
    """Put the last confirmed configuration back, or what was there before ours; return whether there is one."""
    former = read_good(settings) or read_text(before_path(settings))
    if former is None:
        return False
    write_durably(settings.config_path, former)
    return True


def reload(settings: Settings) -> str | None:
    """Have the supervised master load the live file, and wait until it has tried.

    The master's own command is never lost, a SIGUSR2 during a reload is; so the signal is only sent, by s6, where
    no master socket answers.

    Returns:
        None when the master reports success, or when only `confirm` can tell: after the signal, and where the master
        has died and another one has started with the live file. Else its words.

    Raises:
        HaproxyFault: There is nobody to reload, or no answer within the time limit.
    """
    deadline = time.monotonic() + settings.reload_timeout_s
    try:
        before = _poll_master(settings, time.monotonic() + _ABSENT_S)
    except HaproxyFault:
        _signal(settings)
        return None
    answer = _ask_master(settings, "reload", deadline)
    if answer.startswith("Success=1"):
        return None
    if answer.startswith("Success=0"):
        return _words(answer)
    # HAProxy before 2.7 answers nothing: its counters tell.
    while (after := _poll_master(settings, deadline)).reload_count <= before.reload_count:
        if after.pid != before.pid:
            return None
        if time.monotonic() > deadline:
            raise HaproxyFault(f"{settings.master_socket}: no reload in {settings.reload_timeout_s:g} s")
        time.sleep(_POLL_S)
    return f"the master reports {after.failed_count} failed reload(s)" if after.failed_count else None


def confirm(settings: Settings, description: str, timeout_s: float | None = None) -> bool:
    """Wait until the newest worker reports a description; return whether it does within the time limit."""
    deadline = time.monotonic() + (settings.reload_timeout_s if timeout_s is None else timeout_s)
    while read_description(settings) != description:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


@contextlib.contextmanager
def handed_over(settings: Settings, state: str) -> Iterator[None]:
    """Have a server state file for the reload in a block; at a later start it would override the configuration.

    Raises:
        SystemFault: It cannot be written.
    """
    write_durably(settings.server_state_path, state)
    try:
        yield
    finally:
        write_durably(settings.server_state_path, _NO_STATE)


def tidy(settings: Settings) -> None:
    """Remove what a pass that was cut has left behind; the caller holds the lock of the pass."""
    live = settings.config_path
    for path in (live, candidate_path(settings), f"{live}.good", f"{live}.rejected", settings.server_state_path):
        with contextlib.suppress(OSError):
            os.unlink(f"{path}.tmp")
    with contextlib.suppress(OSError):
        os.unlink(candidate_path(settings))
    if read_text(settings.server_state_path) not in (None, _NO_STATE):
        write_durably(settings.server_state_path, _NO_STATE)


def name_lost_socket(settings: Settings, running: Running | None) -> Settings:
    """Name the runtime socket otherwise while its file is missing.

    A reload hands the old listener on, and a file that somebody removed never comes back; under another name for the
    same place HAProxy makes it anew, and with the pass after that it has its proper name again.
    """
    path = settings.runtime_socket
    if running is None or running.is_open or os.path.exists(path):
        return settings
    directory, name = os.path.split(path)
    other = f"{directory}/./{name}"
    live = read_live(settings) or ""
    return settings.replace(runtime_socket=other) if path in live or other in live else settings


def confirm_start(settings: Settings, description: str) -> bool:
    """Wait a moment for a HAProxy that was down to come back with a description; return whether it has."""
    return confirm(settings, description, _ABSENT_S)


def _signal(settings: Settings) -> None:
    """Send SIGUSR2 through s6, but only to a HAProxy that is ready: an earlier one would be killed by it."""
    status = _run_s6(settings, "s6-svstat", "-o", "up,ready", settings.service_dir)
    if status.output.split() != ["true", "true"]:
        where = f"no answer on {settings.master_socket}, and {settings.service_dir} is not a ready s6 service"
        raise HaproxyFault(f"HAProxy does not run: {where}")
    sent = _run_s6(settings, "s6-svc", "-2", settings.service_dir)
    if sent.status:
        raise HaproxyFault(f"s6-svc -2 {settings.service_dir} failed: {sent.output.strip()}")


def _run_s6(settings: Settings, *argv: str) -> Completed:
    try:
        return run(argv, settings.reload_timeout_s)
    except SystemFault as error:
        why = f"HAProxy cannot be reloaded: no answer on {settings.master_socket}, and {error}"
        raise HaproxyFault(why) from error


def _ask_master(settings: Settings, command: str, deadline: float) -> str:
    """Ask the master, again while it re-executes itself and its socket refuses."""
    while True:
        try:
            return ask(settings.master_socket, command, max(0.1, deadline - time.monotonic()))
        except HaproxyFault:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def _poll_master(settings: Settings, deadline: float) -> Master:
    while True:
        try:
            return read_master(settings)
        except HaproxyFault:
            if time.monotonic() > deadline or not os.path.exists(settings.master_socket):
                raise
            time.sleep(_POLL_S)


def _words(answer: str) -> str:
    lines = [line.strip() for line in answer.splitlines()[1:] if "ALERT" in line]
    return "; ".join(lines) or "the master reports a failed reload"

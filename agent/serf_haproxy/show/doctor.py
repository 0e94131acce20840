"""The doctor: what a balancer needs, looked at once, each with a remedy where it is not so."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from serf_haproxy.control.answers import DOWN, FROZEN, UP, Answer
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.report import Report, read_report
from serf_haproxy.control.trial import try_config
from serf_haproxy.errors import HaproxyFault, SerfHaproxyError, SettingsError
from serf_haproxy.haproxy.socket import BRIEF, PROMPT, Limits
from serf_haproxy.settings import Loaded, Settings, describe_unknown, load_with_origins, variable
from serf_haproxy.show.levels import Level, list_findings
from serf_haproxy.system.processes import run

_VERSION_S = 5.0
_FREE_BYTES, _FREE_SHARE = 16 * 2**20, 0.02
_FUTURE_S = 5.0
_FILE_COUNT = 4096  # fewer are a default, not a choice


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
        is_good: Whether it is as it should be.
        what: What was found.
        remedy: What to do, "" where nothing is to do.
    """

    is_good: bool
    what: str
    remedy: str = ""


def examine(environ: Mapping[str, str]) -> Iterator[Check]:
    """Yield what is found, one thing after another; no fault stops the rest but wrong settings.

    Args:
        environ: The environment.
    """
    try:
        loaded = load_with_origins(environ)
    except SettingsError as error:
        for line in str(error).split("\n"):
            yield Check(False, f"setting {line}", "correct it")
        return
    yield from _look_at_settings(loaded, environ)
    settings = loaded.settings
    yield from _look_at_paths(settings)
    yield from _survive(lambda: _look_at_program(settings))
    limits = PROMPT
    try:
        report = read_report(settings)
        yield from _look_at_report(report)
        limits = PROMPT if report.haproxy.state == UP else BRIEF
    except SerfHaproxyError as error:
        yield _tell(error)
    yield from _survive(lambda: _look_at_configuration(settings, limits))
    yield from _look_at_limits(settings, limits)


def _survive(look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from look()
    except SerfHaproxyError as error:
        yield _tell(error)


def _tell(error: SerfHaproxyError) -> Check:
    return Check(False, str(error), "see the line itself")


def _look_at_settings(loaded: Loaded, environ: Mapping[str, str]) -> Iterator[Check]:
    set_count = sum(origin != "default" for origin in loaded.origins.values())
    yield Check(True, f"settings are valid: {set_count} are set; settings file: {loaded.path or 'none'}")
    for line in describe_unknown(environ):
        yield Check(False, line, "remove or correct the variable")


def _look_at_paths(settings: Settings) -> Iterator[Check]:
    places = {
        "nodes_dir": settings.nodes_dir,
        "state_dir": settings.state_dir,
        "config_path": os.path.dirname(settings.config_path),
    }
    for name, path in places.items():
        if not os.path.isdir(path):
            yield Check(False, f"{path} is no directory", f"make it, or change {variable(name)}; `boot` makes it, too")
        elif not os.access(path, os.W_OK | os.X_OK):
            yield Check(False, f"{path} cannot be written by this user", "run the command as the daemon's user")
        else:
            yield _look_at_disk(path)
    fifo = settings.wake_fifo
    try:
        is_fifo = stat.S_ISFIFO(os.stat(fifo).st_mode)
    except OSError:
        is_fifo = False
    remedy = "" if is_fifo else f"start the daemon, which makes it; handlers need the same {variable('wake_fifo')}"
    yield Check(is_fifo, f"{fifo} {'is' if is_fifo else 'is not'} the FIFO by which handlers wake the daemon", remedy)


def _look_at_disk(path: str) -> Check:
    found = os.statvfs(path)
    free_bytes = found.f_bavail * found.f_frsize
    is_good = free_bytes > _FREE_BYTES and free_bytes > _FREE_SHARE * found.f_blocks * found.f_frsize
    text = f"{path} can be written; {free_bytes / 2**20:.0f} MiB are free"
    return Check(is_good, text, "" if is_good else "make room on its disk")


def _look_at_program(settings: Settings) -> Iterator[Check]:
    said = run([settings.haproxy_bin, "-v"], _VERSION_S)
    first = (said.output.splitlines() or ["it says nothing"])[0]
    is_good = said.status == 0 and first.startswith("HAProxy version")
    yield Check(is_good, f"{settings.haproxy_bin}: {first}", "" if is_good else f"change {variable('haproxy_bin')}")


def _look_at_report(report: Report) -> Iterator[Check]:
    yield _look_at_answer("Serf", report.serf)
    yield _look_at_answer(f"HAProxy {report.haproxy.version}".rstrip(), report.haproxy)
    running = report.snapshot.running
    if running is not None:
        remedy = "" if running.is_open else f"give this user the runtime socket, or change {variable('runtime_socket')}"
        yield Check(
            running.is_open, f"servers can be changed at run time: {'yes' if running.is_open else 'no'}", remedy
        )
    if report.is_daemon_running:
        yield Check(True, "the daemon runs")
    ahead_s = max([report.record.at_s, *(file.mtime_ns / 1e9 for file in report.snapshot.files.values())]) - report.at_s
    if ahead_s > _FUTURE_S:
        yield Check(False, f"files are {ahead_s:.0f} s ahead of this clock", "set the clock, and keep it by NTP")
    else:
        yield Check(True, "no file is ahead of this clock")
    for finding in list_findings(report):
        what, _, remedy = finding.text.rpartition("; ")
        is_told = finding.subject in ("Serf", "HAProxy") or finding.level is Level.OK
        if not is_told:
            yield Check(
                False, f"{finding.subject}: {what or finding.text}", remedy if what else "`serf-haproxy status`"
            )


def _look_at_answer(name: str, answer: Answer) -> Check:
    if answer.state == UP:
        return Check(True, f"{name} answers")
    remedy = {DOWN: "start it, as this machine's service or in the s6 tree", FROZEN: "look at its log, and restart it"}
    return Check(False, answer.fault, remedy.get(answer.state, "run the command as the daemon's user"))


def _look_at_configuration(settings: Settings, limits: Limits) -> Iterator[Check]:
    trial = try_config(settings, limits)
    for fault in trial.faults:
        yield Check(False, fault, "correct it")
    if trial.words is None:
        yield Check(True, f"HAProxy accepts the configuration that follows now ({len(trial.services)} services)")
    else:
        yield Check(False, f"HAProxy refuses: {trial.words.splitlines()[0]}", "`serf-haproxy render` prints the rest")


def _look_at_limits(settings: Settings, limits: Limits) -> Iterator[Check]:
    try:
        pid = make_edges(settings, limits).master.read_account().pid
        with open(f"/proc/{pid}/limits") as file:
            found = re.search(r"^Max open files +\w+ +(\w+)", file.read(), re.MULTILINE)
    except (HaproxyFault, OSError):  # it does not run, which is said already, or this user may not look
        return
    most = int(found[1]) if found and found[1].isdecimal() else settings.file_limit
    is_good = most >= min(_FILE_COUNT, settings.file_limit)
    what = f"HAProxy may open {most} files: two for each connection, of which {variable('maxconn')} allows"
    remedy = "raise the limit of open files of HAProxy's service"
    yield Check(is_good, f"{what} {settings.maxconn}", "" if is_good else remedy)

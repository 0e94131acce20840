"""The doctor: what a balancer needs, looked at once, each with a remedy where it is not so."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping

from serf_haproxy.control.answers import DOWN, FROZEN, UP, Answer, ask_page
from serf_haproxy.control.authorities import list_copies
from serf_haproxy.control.report import Report, read_report
from serf_haproxy.control.trial import try_config
from serf_haproxy.errors import SerfHaproxyError, SettingsError
from serf_haproxy.haproxy.socket import BRIEF, PROMPT, Limits
from serf_haproxy.services import format_key
from serf_haproxy.settings import Loaded, Settings, describe_unknown, load_with_origins, variable
from serf_haproxy.show.check import Check
from serf_haproxy.show.findings import list_findings
from serf_haproxy.show.levels import Level, judge_node
from serf_haproxy.show.machine import look_at_disk, look_at_limits, look_at_programs, look_at_rights, look_at_run
from serf_haproxy.show.neighbours import look_at_balancers
from serf_haproxy.show.page import look_at_page
from serf_haproxy.show.words import format_span
from serf_haproxy.system.certificates import find_first_end

_FUTURE_S = 5.0
_SHOWN_COUNT = 5
_TOLD = ("Serf", "HAProxy", "services file", "web process")  # by other lines
_RENEW_S = 14 * 86400  # a certificate that ends sooner should have been renewed: certbot does so 30 days before


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
    yield from look_at_rights(settings, loaded.path)
    yield from _survive(lambda: look_at_programs(settings))
    limits, page = PROMPT, None
    try:
        report = read_report(settings)
        yield from _look_at_report(report)
        yield from _survive(lambda: look_at_run(settings, report.haproxy.version))
        yield from _survive(lambda: look_at_balancers(report))
        yield from _look_at_certificates(report)
        page = report.page
        limits = PROMPT if report.haproxy.state == UP else BRIEF
    except SerfHaproxyError as error:
        yield _tell(error)
    yield from _survive(lambda: _look_at_configuration(settings, limits))
    yield from look_at_page(settings, page or ask_page(settings))
    yield from look_at_limits(settings, limits)


def _survive(look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from look()
    except SerfHaproxyError as error:
        yield _tell(error)


def _tell(error: SerfHaproxyError) -> Check:
    what, _, remedy = str(error).rpartition("; ")
    return Check(False, what or remedy, remedy if what else "look at the daemon's log")


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
            yield look_at_disk(path)
    fifo = settings.wake_fifo
    try:
        is_fifo = stat.S_ISFIFO(os.stat(fifo).st_mode)
    except OSError:
        is_fifo = False
    remedy = "" if is_fifo else f"start the daemon, which makes it; handlers need the same {variable('wake_fifo')}"
    yield Check(is_fifo, f"{fifo} {'is' if is_fifo else 'is not'} the FIFO by which handlers wake the daemon", remedy)


def _look_at_report(report: Report) -> Iterator[Check]:
    yield _look_at_answer("Serf", report.serf)
    yield _look_at_answer(f"HAProxy {report.haproxy.version}".rstrip(), report.haproxy)
    running = report.snapshot.running
    if running is not None:
        remedy = "" if running.is_open else f"give this user the runtime socket, or change {variable('runtime_socket')}"
        yield Check(
            running.is_open, f"servers can be changed at run time: {'yes' if running.is_open else 'no'}", remedy
        )
    if report.daemon.state == UP:
        yield Check(True, "the daemon runs")
    ahead_s = max([report.record.at_s, *(file.mtime_ns / 1e9 for file in report.snapshot.files.values())]) - report.at_s
    if ahead_s > _FUTURE_S:
        yield Check(False, f"files are {ahead_s:.0f} s ahead of this clock", "set the clock, and keep it by NTP")
    else:
        yield Check(True, "no file is ahead of this clock")
    for finding in list_findings(report):
        if finding.subject not in _TOLD and finding.level is not Level.OK:
            yield Check(False, f"{finding.subject}: {finding.what}", finding.remedy)
    entries = report.decision.entries.items()
    if bad := [format_key(key) for key, entry in entries if judge_node(report, key, entry) is not Level.OK]:
        more = f" and {len(bad) - _SHOWN_COUNT} more" if bad[_SHOWN_COUNT:] else ""
        names = " ".join(bad[:_SHOWN_COUNT])
        yield Check(False, f"nodes that are not as they should be: {names}{more}", "`serf-haproxy status --problems`")


def _look_at_answer(name: str, answer: Answer) -> Check:
    if answer.state == UP:
        return Check(True, f"{name} answers")
    remedy = {DOWN: "start it, as this machine's service or in the s6 tree", FROZEN: "look at its log, and restart it"}
    return Check(False, answer.fault, remedy.get(answer.state, "run the command as the daemon's user"))


def _look_at_certificates(report: Report) -> Iterator[Check]:
    """Look when certificates end: those of the directory, and those of authorities by which servers are checked."""
    ends = {f"certificate {name}": float(end_s) for name, end_s in report.record.certificate_ends.items()}
    for path, copy in list_copies(report.snapshot.services).items():
        end_s = find_first_end(copy)
        ends |= {} if end_s is None else {f"an authority in {path}": end_s}
    for name, end_s in ends.items():
        if (left_s := end_s - report.at_s) < _RENEW_S:
            when = f"ended {format_span(-left_s)} ago" if left_s < 0 else f"ends in {format_span(left_s)}"
            yield Check(False, f"{name} {when}", "renew it, and see why that was not done by itself")
    if ends and min(ends.values()) - report.at_s >= _RENEW_S:
        name = min(ends, key=lambda each: ends[each])
        yield Check(True, f"{name} ends in {format_span(ends[name] - report.at_s)}, and no other one sooner")


def _look_at_configuration(settings: Settings, limits: Limits) -> Iterator[Check]:
    trial = try_config(settings, limits)
    for fault in trial.faults:
        yield Check(False, fault, "correct it")
    if trial.words is None:
        count = len(trial.services)
        what = f"HAProxy accepts the configuration that follows now ({count} service{'' if count == 1 else 's'})"
        yield Check(True, what)
    else:
        yield Check(False, f"HAProxy refuses: {trial.words.splitlines()[0]}", "`serf-haproxy render` prints the rest")

"""When HAProxy or Jinja2 refuses a configuration: leave out what is at fault, or step down to another template.

A server that HAProxy refuses is found by bisection and left out alone. What HAProxy refused is remembered for some
minutes, so that not every pass searches again. A template that is refused is replaced by the next one of the ladder:
the present template, the last good one, the built-in one.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple, cast

from serf_haproxy.config.fingerprint import rest_of
from serf_haproxy.config.render import Config
from serf_haproxy.control.apply import apply
from serf_haproxy.control.attempt import Attempt
from serf_haproxy.control.edges import Edges
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.control.rendering import Renderer, Servers, read_template
from serf_haproxy.errors import TemplateError
from serf_haproxy.policy.decision import Decision
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.services import format_key
from serf_haproxy.services.service import Service
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import read_mode

_BUILT_IN = "the built-in template"
_CHECK_COUNT = 48  # enough for four bad servers among a thousand; with more of them the template is to blame


class Wanted(NamedTuple):
    """What HAProxy should run.

    Attributes:
        settings: The settings.
        servers: The servers, sorted by service and name, without those that HAProxy is known to refuse.
        read_template: Returns the present template's text, or raises TemplateError.
        refused_count: How many servers HAProxy is known to refuse.
        services: The services, sorted by name; empty: the default one.
    """

    settings: Settings
    servers: Servers
    read_template: Callable[[], str]
    refused_count: int = 0
    services: tuple[Service, ...] = ()


def want(settings: Settings, snapshot: Snapshot, decision: Decision) -> Wanted:
    """Return what HAProxy should run after a decision."""

    def read_present() -> str:
        if snapshot.template is None:
            raise TemplateError(snapshot.template_fault)
        return snapshot.template

    refused_count = sum(key in decision.entries for key in snapshot.refused)
    return Wanted(settings, decision.servers, read_present, refused_count, snapshot.services.listed)


class Rung(NamedTuple):
    """One step of the ladder.

    Attributes:
        name: What it is made with.
        render: Renders it for some servers; returns None when there is no such template, or raises TemplateError.
    """

    name: str
    render: Callable[[Servers], Config | None]


def list_rungs(wanted: Wanted, edges: Edges, renderer: Renderer) -> list[Rung]:
    """Return the ladder, best rung first. Nothing is read before a rung is rendered."""
    settings, services = wanted.settings, wanted.services

    def render_present(servers: Servers) -> Config:
        return renderer.render(wanted.read_template(), servers, settings, services)

    def render_good(servers: Servers) -> Config | None:
        good = edges.state.read_good_template()
        return None if good is None else renderer.render(good, servers, settings, services)

    def render_built_in(servers: Servers) -> Config:
        built_in = settings.replace(template_path="")
        return renderer.render(read_template(built_in), servers, built_in, services)

    rungs = [Rung("the present template", render_present)]
    if settings.template_path:
        rungs += [Rung("the last good template", render_good), Rung(_BUILT_IN, render_built_in)]
    return rungs


def apply_best(wanted: Wanted, attempt: Attempt, renderer: Renderer) -> Outcome:
    """Bring HAProxy to the best configuration that it accepts.

    Returns:
        The outcome; REJECTED whenever a person has to correct the template.

    Raises:
        SystemFault: As for `apply`.
    """
    present, *lower = list_rungs(wanted, attempt.edges, renderer)
    problems: tuple[str, ...] = ()
    try:
        goal = cast(Config, present.render(wanted.servers))
        problems = goal.problems
        attempt.on_step("rendered")
        outcome = apply(attempt, goal)
        if outcome.verdict is Verdict.REJECTED:
            outcome = _leave_out_refused(attempt, present, wanted) or outcome
    except TemplateError as error:
        goal, outcome = None, Outcome(Verdict.REJECTED, f"the template is wrong: {error}", "")
    outcome = dataclasses.replace(outcome, problems=outcome.problems + problems) if problems else outcome
    if not wanted.settings.template_path:
        return outcome
    if outcome.verdict is Verdict.REJECTED:
        return _step_down(attempt, lower, wanted.servers, goal, outcome)
    # Without a digest it waits for a reload, and HAProxy has not even checked it.
    if outcome.is_in_force and outcome.digest and not outcome.refused and not wanted.refused_count:
        mode = read_mode(wanted.settings.template_path) or 0o600
        attempt.edges.state.keep_template(wanted.read_template(), mode)
    return outcome


def sift(servers: Servers, is_accepted: Callable[[Servers], bool]) -> tuple[Servers, Servers] | None:
    """Separate servers that are accepted together from those that are not.

    Returns:
        The accepted and the refused servers; None when even no server at all is refused, or so many are that the search
        was given up.
    """
    if not is_accepted(()):
        return None
    good: Servers = ()
    bad: Servers = ()
    groups = [servers]
    for _ in range(_CHECK_COUNT):
        if not groups:
            return _sort(good), _sort(bad)
        group = groups.pop()
        if is_accepted(_sort(good + group)):
            good += group
        elif len(group) == 1:
            bad += group
        else:
            groups += [group[len(group) // 2 :], group[: len(group) // 2]]
    return None


def _leave_out_refused(attempt: Attempt, rung: Rung, wanted: Wanted) -> Outcome | None:
    """Apply a configuration without the servers that HAProxy refuses; None when they are not what it refuses."""
    config_file, servers = attempt.edges.config_file, wanted.servers
    messages: dict[Servers, str] = {}
    deadline = time.monotonic() + config_file.check_timeout_s

    def render(some: Servers) -> Config:
        return cast(Config, rung.render(some))

    def is_accepted(some: Servers) -> bool:
        if time.monotonic() > deadline:
            return False
        message = config_file.check(render(some).text)
        messages[some] = message or ""
        return message is None

    sifted = sift(servers, is_accepted)
    config_file.discard()
    if sifted is None or not sifted[1] or time.monotonic() > deadline:
        return None
    good, bad = sifted
    # Where most servers are refused, the servers are not at fault.
    if 2 * (len(bad) + wanted.refused_count) > len(servers) + wanted.refused_count:
        return None
    said = {server: next((text for some, text in messages.items() if text and server in some), "") for server in bad}
    refused = {server.key: (server, " ".join(text.split())[:300]) for server, text in said.items()}
    quarantined = "is quarantined: HAProxy refuses it"
    problems = tuple(f"node {format_key(server.key)} {quarantined}: {text}" for server, text in refused.values())
    outcome = _apply_again(attempt, render(good))
    return dataclasses.replace(outcome, problems=problems, refused=refused)


def _step_down(
    attempt: Attempt, rungs: list[Rung], servers: Servers, present: Config | None, refused: Outcome
) -> Outcome:
    """Let servers follow a lower rung while the present template is refused."""
    for rung in rungs:
        with contextlib.suppress(TemplateError):  # for example, other settings than it was written for
            goal = rung.render(servers)
            if goal is None or (present and goal.text == present.text):
                continue
            if rung.name == _BUILT_IN and not _is_running(attempt, goal):
                continue
            outcome = _apply_again(attempt, goal)
            if outcome.verdict is Verdict.REJECTED:
                return refused
            meanwhile = f"meanwhile servers follow {rung.name}: {outcome.verdict} {outcome.reason}"
            return dataclasses.replace(outcome, verdict=Verdict.REJECTED, reason=f"{refused.reason}; {meanwhile}")
    return refused


def _is_running(attempt: Attempt, goal: Config) -> bool:
    """Return whether HAProxy runs a configuration but for its servers, as it does after `boot`."""
    return attempt.running is not None and rest_of(attempt.running.description) == goal.layout.rest


def _apply_again(attempt: Attempt, goal: Config) -> Outcome:
    """Apply another configuration after an attempt that may have changed servers at run time."""
    return apply(attempt._replace(running=attempt.edges.runtime.read_running()), goal)


def _sort(servers: Servers) -> tuple[Server, ...]:
    return tuple(sorted(servers, key=lambda server: server.key))

"""When HAProxy or Jinja2 refuses a configuration: leave out what is at fault, or step down to another template.

A server that HAProxy refuses is found by bisection and left out alone. What HAProxy refused is remembered for some
minutes, so that not every pass searches again. A template that is refused is replaced by the next one of the ladder:
the present template, the last good one, the built-in one.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from serf_haproxy.config.fingerprint import rest_of
from serf_haproxy.config.render import Config
from serf_haproxy.control.apply import Attempt, apply
from serf_haproxy.control.edges import Edges
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.control.rendering import Renderer, Servers, read_template
from serf_haproxy.errors import InputError, SystemFault, TemplateError
from serf_haproxy.policy.server import Server
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import read_mode

_BUILT_IN = "the built-in template"
_CHECK_COUNT = 48  # enough for four bad servers among a thousand; with more of them the template is to blame
_IN_FORCE = (Verdict.UNCHANGED, Verdict.APPLIED, Verdict.RELOADED)


class Rung(NamedTuple):
    """One step of the ladder.

    Attributes:
        name: What it is made with.
        render: Renders it for some servers, or raises TemplateError.
    """

    name: str
    render: Callable[[Servers], Config]

    def bind(self, servers: Servers) -> Callable[[], str]:
        """Return a function that renders the text for these servers."""
        return lambda: self.render(servers).text


def list_rungs(settings: Settings, edges: Edges, renderer: Renderer) -> Iterator[Rung]:
    """Yield the ladder, best rung first."""

    def make_rung(name: str, settings: Settings, read: Callable[[], str]) -> Rung:
        return Rung(name, lambda servers: renderer.render(read(), servers, settings))

    yield make_rung("the present template", settings, lambda: read_template(settings))
    if not settings.template_path:
        return
    present = None
    with contextlib.suppress(TemplateError):
        present = read_template(settings)
    good = edges.state.read_good_template()
    if good is not None and good != present:
        yield make_rung("the last good template", settings, lambda: good)
    built_in = settings.replace(template_path="")
    yield make_rung(_BUILT_IN, built_in, lambda: read_template(built_in))


def apply_best(settings: Settings, attempt: Attempt, renderer: Renderer, servers: Servers) -> Outcome:
    """Bring HAProxy to the best configuration that it accepts.

    Args:
        settings: The settings.
        attempt: What applying needs.
        renderer: Renders configurations.
        servers: The servers that should run, without those that HAProxy is known to refuse.

    Returns:
        The outcome; REJECTED whenever a person has to correct the template.

    Raises:
        SystemFault: As for `apply`.
    """
    present, *lower = list_rungs(settings, attempt.edges, renderer)
    try:
        goal = present.render(servers)
        attempt.on_step("rendered")
        outcome = apply(attempt, goal)
        if outcome.verdict is Verdict.REJECTED:
            outcome = _leave_out_refused(attempt, present, servers) or outcome
    except TemplateError as error:
        outcome = Outcome(Verdict.REJECTED, f"the template is wrong: {error}", "")
    if not settings.template_path:
        return outcome
    state = attempt.edges.state
    if outcome.verdict is Verdict.REJECTED:
        return _step_down(attempt, lower, servers, outcome)
    if outcome.verdict in _IN_FORCE and not outcome.refused:
        state.keep_template(read_template(settings), read_mode(settings.template_path) or 0o600)
    return outcome


def boot(settings: Settings, edges: Edges, renderer: Renderer, servers: Servers) -> str:
    """Publish the best configuration that HAProxy accepts, for its start.

    Returns:
        One sentence: which one that is, and why none before it was.

    Raises:
        SystemFault: HAProxy accepts none, or the live file cannot be written.
    """
    rungs = list(list_rungs(settings, edges, renderer))
    choices: list[tuple[str, Callable[[], str | None]]] = [
        ("the last one that HAProxy confirmed", edges.config_file.read_good),
        *((f"one made with {rung.name}", rung.bind(servers)) for rung in rungs),
        ("one without servers", rungs[-1].bind(())),
    ]
    faults: list[str] = []
    for name, make in choices:
        try:
            text = make()
            if text is None:
                continue
            words = edges.config_file.check(text)
        except (InputError, SystemFault) as error:
            words = str(error)
        if words is None:
            edges.config_file.publish(is_live_confirmed=False)
            return f"HAProxy starts with {name}" + "".join(f"; not with {fault}" for fault in faults)
        faults.append(f"{name}: {' '.join(words.split())[:300]}")
    raise SystemFault(f"HAProxy accepts no configuration: {'; '.join(faults)}")


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


def _leave_out_refused(attempt: Attempt, rung: Rung, servers: Servers) -> Outcome | None:
    """Apply a configuration without the servers that HAProxy refuses; None when they are not what it refuses."""
    config_file = attempt.edges.config_file
    words: dict[Servers, str] = {}
    deadline = time.monotonic() + config_file.check_timeout_s

    def is_accepted(some: Servers) -> bool:
        if time.monotonic() > deadline:
            return False
        said = config_file.check(rung.render(some).text)
        words[some] = said or ""
        return said is None

    sifted = sift(servers, is_accepted)
    config_file.discard()
    # Where most servers are refused, the servers are not at fault.
    if sifted is None or not 0 < 2 * len(sifted[1]) <= len(servers) or time.monotonic() > deadline:
        return None
    good, bad = sifted
    said = {server: next((said for some, said in words.items() if said and server in some), "") for server in bad}
    refused = {server.key: (server, " ".join(text.split())[:300]) for server, text in said.items()}
    quarantined = "is quarantined: HAProxy refuses it"
    problems = tuple(f"node {server.name} {quarantined}: {text}" for server, text in refused.values())
    outcome = _apply_again(attempt, rung.render(good))
    return dataclasses.replace(outcome, problems=problems, refused=refused)


def _step_down(attempt: Attempt, rungs: list[Rung], servers: Servers, refused: Outcome) -> Outcome:
    """Let servers follow a lower rung while the present template is refused."""
    for rung in rungs:
        with contextlib.suppress(TemplateError):  # for example, other settings than it was written for
            goal = rung.render(servers)
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

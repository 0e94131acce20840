"""When HAProxy or Jinja2 refuses a configuration: publish all of it but what is at fault.

A refused server is found by halving and left out alone; a refused template is replaced by the last one that was
confirmed. What HAProxy refused is remembered for some minutes, so that not every pass searches again.
"""

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable
from typing import NamedTuple

from serf_haproxy.config.render import Rendered, rest_of
from serf_haproxy.control.apply import make_transition
from serf_haproxy.control.goal import compute, read_template
from serf_haproxy.control.outcome import NO_PAUSE, Outcome, Pause, Verdict
from serf_haproxy.control.state import Faults, read_good_template, write_good_template
from serf_haproxy.errors import TemplateError
from serf_haproxy.haproxy import config_file
from serf_haproxy.haproxy.runtime import Running, read_running
from serf_haproxy.policy.server import Server
from serf_haproxy.settings import Settings

_CHECKS = 48  # enough for four bad servers among a thousand; with more of them the template is to blame
_IN_FORCE = (Verdict.UNCHANGED, Verdict.APPLIED, Verdict.RELOADED)

Servers = tuple[Server, ...]


class Attempt(NamedTuple):
    """All that it takes to bring HAProxy to a configuration, but template and servers.

    Attributes:
        settings: The settings.
        running: What runs; None when HAProxy does not answer.
        on_step: Told the name of each step that has ended.
        pause: For how long there must not be a reload.
    """

    settings: Settings
    running: Running | None
    on_step: Callable[[str], object]
    pause: Pause = NO_PAUSE

    def make(self, template: str, servers: Servers, faults: Faults) -> tuple[Outcome, Faults]:
        """Try all servers but those known to be refused, then all but those found to be."""
        settings = self.settings
        basis = hashlib.sha256(f"{settings!r}\n{template}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
        if faults.basis != basis or not 0 <= time.time() - faults.at_s < settings.retry_max_s:
            faults = Faults(basis, time.time(), {})
        known = {server: faults.servers[server.name][1] for server in servers if _is_known(server, faults)}
        goal = compute(settings, tuple(server for server in servers if server not in known), template)
        self.on_step("rendered")
        outcome = make_transition(settings, goal, self.running, self.on_step, self.pause)
        if outcome.verdict is Verdict.REJECTED:
            sifted = _search(settings, template, servers)
            if sifted is None:
                return outcome, Faults()
            good, known = sifted
            outcome = self.go_on(compute(settings, good, template))
            faults = faults._replace(at_s=time.time())
        kept = {server.name: (tuple(server), words) for server, words in known.items()}
        problems = (f"node {name} is quarantined: HAProxy refuses it: {words}" for name, (_, words) in kept.items())
        return dataclasses.replace(outcome, problems=tuple(problems)), faults._replace(servers=kept)

    def follow(self, former: Rendered, name: str, refused: Outcome) -> Outcome:
        """Let servers follow a former template while the present one is refused."""
        outcome = self.go_on(former)
        if outcome.verdict is Verdict.REJECTED:
            return refused
        meanwhile = f"meanwhile servers follow {name}: {outcome.verdict} {outcome.reason}"
        return dataclasses.replace(outcome, verdict=Verdict.REJECTED, reason=f"{refused.reason}; {meanwhile}")

    def go_on(self, goal: Rendered) -> Outcome:
        """Make a transition from what an earlier one has left."""
        return make_transition(self.settings, goal, read_running(self.settings), self.on_step, self.pause)


def make_best_transition(attempt: Attempt, servers: Servers, faults: Faults) -> tuple[Outcome, Faults]:
    """Bring HAProxy to a configuration with as many of the servers as it takes.

    Args:
        attempt: What else it takes.
        servers: What should run, sorted by name.
        faults: What the last pass found.

    Returns:
        The outcome, REJECTED whenever a person has to mend the template, and the faults for the next pass.

    Raises:
        SystemFault: As for `make_transition`.
    """
    settings = attempt.settings
    try:
        template = read_template(settings)
        outcome, faults = attempt.make(template, servers, faults)
    except TemplateError as error:
        template, outcome = "", Outcome(Verdict.REJECTED, f"the template is wrong: {error}", "")
    if not settings.template_path:
        return outcome, faults
    good = read_good_template(settings)
    if outcome.verdict in _IN_FORCE and not faults.servers and template != good:
        write_good_template(settings, template)
    former = _find_former(attempt, servers, good) if outcome.verdict is Verdict.REJECTED and good != template else None
    return (attempt.follow(*former, outcome) if former else outcome), faults


def _find_former(attempt: Attempt, servers: Servers, good: str | None) -> tuple[Rendered, str] | None:
    """Render with the last good template, else with the built-in one where HAProxy runs that, as after `boot`."""
    settings = attempt.settings
    with contextlib.suppress(TemplateError):  # other settings than it was written for
        if good is not None:
            return compute(settings, servers, good), "the last good template"
    built_in = compute(settings.replace(template_path=""), servers)
    is_running = attempt.running and rest_of(attempt.running.description) == built_in.layout.rest
    return (built_in, "the built-in template") if is_running else None


def sift(servers: Servers, is_accepted: Callable[[Servers], bool]) -> tuple[Servers, Servers] | None:
    """Part servers into those that are accepted together and those that are not.

    Returns:
        Both parts; None when not even no server is accepted, or so many are not that the search was given up.
    """
    if not is_accepted(()):
        return None
    good: Servers = ()
    bad: Servers = ()
    groups = [servers]
    for _ in range(_CHECKS):
        if not groups:
            return tuple(sorted(good)), tuple(sorted(bad))
        group = groups.pop()
        if is_accepted(tuple(sorted(good + group))):
            good += group
        elif len(group) == 1:
            bad += group
        else:
            groups += [group[len(group) // 2 :], group[: len(group) // 2]]
    return None


def _is_known(server: Server, faults: Faults) -> bool:
    return server.name in faults.servers and tuple(faults.servers[server.name][0]) == tuple(server)


def _search(settings: Settings, template: str, servers: Servers) -> tuple[Servers, dict[Server, str]] | None:
    """Find the servers that HAProxy refuses, and its words on each, in the time of one check."""
    words: dict[Servers, str] = {}
    deadline = time.monotonic() + settings.check_timeout_s

    def is_accepted(some: Servers) -> bool:
        if time.monotonic() > deadline:
            return False
        said = config_file.check(settings, compute(settings, some, template).text)
        words[some] = said or ""
        return said is None

    sifted = sift(servers, is_accepted)
    config_file.discard(settings)
    # Where most servers are refused, it is not they that are wrong.
    if sifted is None or not 0 < 2 * len(sifted[1]) <= len(servers) or time.monotonic() > deadline:
        return None
    said = {server: next((said for some, said in words.items() if said and server in some), "") for server in sifted[1]}
    return sifted[0], {server: " ".join(text.split())[:300] for server, text in said.items()}

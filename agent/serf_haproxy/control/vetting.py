"""New and changed tables of the services file are tried before they count: one that HAProxy cannot run stops no other.

Two things are tried: whether this machine lets a program listen where a service wants to, since a listener that fails
makes the whole reload fail; and whether `haproxy -c` accepts the tables. What it refuses is found by bisection. The
trial has one made-up server for each service, so that a wrong server is not taken for a fault of its table.
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterable

from serf_haproxy.config.fingerprint import description_of, rest_of
from serf_haproxy.control.observe import Given, observe, read_services
from serf_haproxy.control.record import Record
from serf_haproxy.control.rendering import Renderer
from serf_haproxy.control.withheld import (
    Refusal,
    Withheld,
    digest_of,
    find_basis,
    list_withheld,
    read_withheld,
    select_withheld,
)
from serf_haproxy.errors import SystemFault, TemplateError
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.services.service import Service
from serf_haproxy.system.listening import find_listen_fault
from serf_haproxy.system.network import split_endpoint

_CHECK_COUNT = 48  # as for servers: enough for some wrong tables among hundreds
_WORDS_LENGTH = 300
_LISTENING = re.compile(r"^\s*(?:bind|peer\s+\S+)\s+(\S+)", re.MULTILINE)
_ENDPOINT = re.compile(r"^(?:ipv[46]@)?([^@/]*):([0-9]+)(?:-([0-9]+))?$")
_ANY = {"", "*", "0.0.0.0", "::"}  # noqa: S104 - read, not opened
# HAProxy's lines begin with a process id and name the candidate, which is gone when they are read.
_PLACE = re.compile(r"^\[ALERT\]\s*(?:\([0-9]+\)\s*:\s*)?(?:config\s*:\s*)?(?:parsing \[[^]]*\]\s*:\s*)?")

Names = tuple[str, ...]


class Vetting:
    """Tries tables. It remembers what HAProxy last accepted, to save time; a new one finds the same."""

    def __init__(self) -> None:
        self._accepted: object = None

    def vet(
        self, given: Given, snapshot: Snapshot, renderer: Renderer, *, is_listening_tried: bool = True
    ) -> tuple[Record, Snapshot]:
        """Return the record and the snapshot without those tables that HAProxy cannot run.

        Args:
            given: What the pass had before it observed.
            snapshot: What it observed.
            renderer: Renders what is tried.
            is_listening_tried: Whether to try the listeners; they say nothing on a machine that is not the balancer.

        Raises:
            SystemFault: As for `observe`.
        """
        settings, edges, record, *_ = given
        now_s = time.time()
        withheld = select_withheld(settings, snapshot.template or "", record, now_s)
        good = edges.state.read_services()
        tables = snapshot.services.tables
        changed = tuple(name for name in tables if tables[name] != good.get(name))
        found = _try_listeners(snapshot, changed) if is_listening_tried else {}
        rest = tuple(name for name in changed if name not in found)
        refused: dict[str, str] = {}
        with contextlib.suppress(SystemFault):  # the check of the whole configuration meets it again, and tells it
            refused = self._find_refused(_Trial(given, snapshot, renderer, withheld), rest, found)
        basis, before = find_basis(settings, snapshot.template or ""), read_withheld(record)
        new = {
            name: _refuse(digest_of(tables[name]), words, now_s, before.get(name), basis if name in refused else "")
            for name, words in (found | refused).items()
        }
        withheld |= new
        record = dataclasses.replace(record, withheld=list_withheld(withheld))
        return record, observe(given._replace(record=record), withheld) if new else snapshot

    def _find_refused(self, trial: "_Trial", changed: Names, others: Iterable[str]) -> dict[str, str]:
        """Return those of the changed tables that HAProxy refuses, with its words."""
        if not changed or trial.template is None:
            return {}
        key = trial.read(others), trial.template, trial.settings
        if key == self._accepted:
            return {}

        def check(names: Names) -> str | None:
            return trial.check((*others, *(name for name in changed if name not in names)))

        try:
            refused = find_refused(changed, check, trial.settings.check_timeout_s)
        finally:
            trial.edges.config_file.discard()
        if not refused:
            self._accepted = key
        return refused


def find_refused(changed: Names, check: Callable[[Names], str | None], timeout_s: float) -> dict[str, str]:
    """Return the tables that HAProxy refuses, and why.

    Args:
        changed: The tables that may be at fault.
        check: Has HAProxy check a configuration with only these of them; returns why not, None for accepted.
        timeout_s: How long to search.

    Returns:
        None of them where HAProxy accepts all, or refuses even the configuration without them. Where the search takes
        too long, what is left of them counts as refused.
    """
    deadline = time.monotonic() + timeout_s
    words = check(changed)
    if words is None or check(()) is not None:
        return {}
    accepted: Names = ()
    refused: dict[str, str] = {}
    groups = _halve(changed) if len(changed) > 1 else []
    if not groups:
        return {changed[0]: words}
    for _ in range(_CHECK_COUNT):
        if not groups or time.monotonic() > deadline:
            break
        group = groups.pop()
        said = check(accepted + group)
        if said is None:
            accepted += group
        elif len(group) == 1:
            refused[group[0]] = said
        else:
            groups += _halve(group)
    return refused | {name: words for group in groups for name in group}


def _halve(names: Names) -> list[Names]:
    half = len(names) // 2
    return [names[half:], names[:half]]


class _Trial:
    """Configurations with some of the tables, and what HAProxy says of them."""

    def __init__(self, given: Given, snapshot: Snapshot, renderer: Renderer, withheld: Withheld) -> None:
        self.settings, self.edges, self.template = given.settings, given.edges, snapshot.template
        self._given, self._renderer, self._withheld = given, renderer, withheld
        self._tables = snapshot.services.tables

    def read(self, without: Iterable[str]) -> tuple[Service, ...]:
        """Return the services where these tables are withheld too."""
        further = {name: Refusal(digest_of(self._tables[name]), "tried without it", 0.0, 0) for name in without}
        return read_services(self._given, {**self._withheld, **further}).listed

    def check(self, without: Iterable[str]) -> str | None:
        """Return what is wrong with a configuration without these tables, None when HAProxy accepts it."""
        services = self.read(without)
        servers = tuple(Server("serf-haproxy-trial", "127.0.0.1", 9, None, service.name) for service in services)
        try:
            text = self._renderer.render(self.template or "", servers, self.settings, services).text
        except TemplateError as error:
            return f"the template cannot be rendered with it: {error}"
        words = self.edges.config_file.check(text)
        return words and f"HAProxy refuses it: {_shorten(words)}"


def _try_listeners(snapshot: Snapshot, changed: Names) -> dict[str, str]:
    """Return the changed tables where HAProxy could not listen, with the reason.

    A listener that HAProxy has already is not tried: a reload hands it over, even where its address is gone.
    """
    running, live = snapshot.running, snapshot.live or ""
    is_known = running is None or rest_of(running.description) == rest_of(description_of(live))
    present = [endpoint for words in _LISTENING.findall(live) for endpoint in words.split(",")]
    faults = {}
    for service in snapshot.services.listed:
        if service.name not in changed or not service.bind or (is_known and service.bind in present):
            continue
        is_own = not is_known or any(_share_port(service.bind, endpoint) for endpoint in present)
        if fault := find_listen_fault(service.bind, is_own):
            again = "tried again with pauses that grow"
            faults[service.name] = f"bind = {service.bind}: HAProxy cannot listen there: {fault} ({again})"
    return faults


def _share_port(bind: str, endpoint: str) -> bool:
    """Return whether an endpoint of HAProxy's, which may have a range of ports, takes the port of another one."""
    found = _ENDPOINT.search(endpoint)
    if not found:
        return False
    host, port = split_endpoint(bind)
    hosts = {host, found[1].strip("[]")}
    return int(found[2]) <= int(port) <= int(found[3] or found[2]) and (len(hosts) == 1 or bool(hosts & _ANY))


def _refuse(digest: str, words: str, now_s: float, before: Refusal | None, basis: str) -> Refusal:
    """Return a refusal; the pause grows while the same table is refused again and again."""
    is_same = before is not None and before.digest == digest
    return Refusal(digest, words, now_s, before.tries + 1 if before and is_same else 1, basis)


def _shorten(words: str) -> str:
    """Return HAProxy's alerts as one line."""
    lines = [line for line in words.splitlines() if "[ALERT]" in line] or words.splitlines()
    said = "; ".join(_PLACE.sub("", line.strip()) for line in lines)
    return " ".join(said.split())[:_WORDS_LENGTH]

"""The record of a pass: what `state/last_pass.json` holds. Reading it trusts nothing in it."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from serf_haproxy.control.outcome import Condition
from serf_haproxy.policy.address import read_address
from serf_haproxy.policy.claim import WEIGHT_MAX
from serf_haproxy.policy.pace import EXPONENT_MAX, Checks, Pace
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Gone, Known
from serf_haproxy.serf.events import name_fault
from serf_haproxy.services import NAME, VERSION, Key

_NO_MORE = Server("", "", 0, None)[4:]

# What reading a damaged file raises: it has any JSON in it, or none.
DAMAGE = (ValueError, TypeError, AttributeError, OverflowError, RecursionError)


Lines = dict[Key, tuple[Known, str]]  # servers, each with its line of JSON


class Faults(NamedTuple):
    """Servers that HAProxy refused.

    Attributes:
        basis: Digest of the settings and the template for which this is true.
        at_s: When that was found, seconds since the epoch.
        servers: Each server with HAProxy's words.
    """

    basis: str = ""
    at_s: float = 0.0
    servers: Mapping[Key, tuple[Server, str]] = {}


@dataclasses.dataclass(frozen=True)
class Record:
    """What a pass leaves behind.

    Attributes:
        verdict: The outcome's verdict, "" before the first pass.
        reason: Its sentence.
        conditions: Name and reason of each condition.
        digest: Digest of the configuration that HAProxy was last seen to run, "" when unknown.
        at_s: When the pass ended, seconds since the epoch.
        took_s: How long it took, seconds.
        changed_at_s: When HAProxy last got another configuration, seconds since the epoch; 0 for never.
        self_name: The balancer's own node name, "" until Serf was reached once.
        from_roster: Node files that the roster wrote: name to mtime, nanoseconds since the epoch.
        refused: Members of the last roster that cannot have a node file: printable name to reason.
        strays: Files in the node directory that are not node files: name to reason.
        faults: Servers that HAProxy refused (`Faults`).
        unfit: Servers whose members cannot be servers any more (`policy.snapshot.Gone`).
        checks: How often servers are checked (`policy.pace.Checks`).
        frozen_at_s: Since when HAProxy's worker is frozen, seconds since the epoch; 0 when it is not.
        left: Servers whose difference a reload has not ended: "service/name" to the difference's signature.
        self_address: The last known address of the balancer's own node, "" for none.
        peers: The endpoints of the balancers that share tables with this one, by name.
        certificate_faults: One line for each fault of a certificate.
        certificate_ends: When each good certificate of the operator's directory ends, seconds since the epoch.
        withheld: Tables of the services file that HAProxy cannot run (`control.withheld`).
        measured: The sections with measured weights, and whether a split shares their requests.
        authorities: The copies of files of authorities that were last in force, by the operator's file.
        announced: Services that members announce: name to when one last did, seconds since the epoch.
        announced_at_s: When these names last changed, seconds since the epoch.
        settings: The settings that are not the defaults, as text, by name.
        heard_at_s: When Serf last answered a pass, seconds since the epoch; 0 for never.
    """

    verdict: str = ""
    reason: str = "no pass yet"
    conditions: list[Any] = dataclasses.field(default_factory=list)
    digest: str = ""
    at_s: float = 0.0
    took_s: float = 0.0
    changed_at_s: float = 0.0
    self_name: str = ""
    from_roster: dict[str, int] = dataclasses.field(default_factory=dict)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    strays: dict[str, str] = dataclasses.field(default_factory=dict)
    faults: list[Any] = dataclasses.field(default_factory=list)
    unfit: list[Any] = dataclasses.field(default_factory=list)
    checks: list[Any] = dataclasses.field(default_factory=list)
    frozen_at_s: float = 0.0
    self_address: str = ""
    left: dict[str, str] = dataclasses.field(default_factory=dict)
    peers: dict[str, str] = dataclasses.field(default_factory=dict)
    certificate_faults: list[Any] = dataclasses.field(default_factory=list)
    certificate_ends: dict[str, int] = dataclasses.field(default_factory=dict)
    withheld: list[Any] = dataclasses.field(default_factory=list)
    authorities: dict[str, str] = dataclasses.field(default_factory=dict)
    announced: dict[str, int] = dataclasses.field(default_factory=dict)
    announced_at_s: float = 0.0
    measured: dict[str, bool] = dataclasses.field(default_factory=dict)
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    heard_at_s: float = 0.0

    def frozen_for_s(self, now_s: float) -> float:
        """Return for how long HAProxy's worker has been frozen; a clock that was set back begins the time anew."""
        return max(0.0, now_s - self.frozen_at_s) if self.frozen_at_s else 0.0

    def has_condition(self, name: str) -> bool:
        """Return whether the pass ended with a condition of this name."""
        return any(condition.name == name for condition in self.read_conditions())

    def read_conditions(self) -> tuple[Condition, ...]:
        """Return the conditions with which the pass ended; a damaged entry is left out."""
        pairs = (one for one in self.conditions if isinstance(one, list) and len(one) == 2)
        return tuple(Condition(str(name), str(reason)) for name, reason in pairs)

    def read_faults(self) -> Faults:
        """Return the refused servers; a damaged record has none."""
        try:
            basis, at_s, entries = self.faults
            servers = {server.key: (server, str(words)) for server, words in map(_read_fault, entries)}
            return Faults(str(basis), parse_finite(at_s), servers)
        except DAMAGE:
            return Faults()

    def read_left(self) -> dict[Key, str]:
        """Return the servers whose difference is left alone, with its signature."""
        keys = {key: key.partition("/") for key in self.left}
        return {(section, name): str(self.left[key]) for key, (section, _, name) in keys.items()}

    def read_announced(self) -> dict[str, float]:
        """Return the services that members announce, and when one last did; a damaged entry is left out."""
        return {name: at_s for name, at_s in self.announced.items() if NAME.fullmatch(name) and isinstance(at_s, int)}

    def read_unfit(self) -> dict[Key, Gone]:
        """Return the servers whose members cannot be servers any more; a damaged entry is left out."""
        unfit = {}
        for entry in self.unfit:
            with contextlib.suppress(*DAMAGE):
                fields, at_ns = entry
                gone = Gone(_read_server(fields), int(at_ns))
                if 0 <= gone.at_ns < 2**63:
                    unfit[gone.server.key] = gone
        return unfit

    def read_checks(self) -> Checks:
        """Return how often servers are checked; a damaged record does not say."""
        try:
            interval_s, since_ns, entries = self.checks
            paces = {
                (str(service), str(name)): Pace(min(EXPONENT_MAX, max(0, int(exponent))), int(down_ns))
                for service, name, exponent, down_ns in entries
            }
            is_sane = int(interval_s) in (2**exponent for exponent in range(EXPONENT_MAX + 1))
            return Checks(int(interval_s), int(since_ns), paces) if is_sane else Checks()
        except DAMAGE:
            return Checks()


def list_checks(checks: Checks) -> list[Any]:
    """Return the checks as the record keeps them."""
    return [checks.interval_s, checks.since_ns, [[*key, *pace] for key, pace in checks.paces.items()]]


_FIELDS = tuple(field.name for field in dataclasses.fields(Record))


def parse_record(text: str) -> Record:
    """Return the record in a JSON text; a damaged text counts as none, and a damaged part of it as absent."""
    empty = dataclasses.asdict(Record())
    try:
        table: Any = json.loads(text)
        return Record(**{name: table[name] for name in table if name in empty and _fits(table[name], empty[name])})
    except DAMAGE:
        return Record()


def format_record(record: Record) -> str:
    """Return a record as one line of JSON."""
    return json.dumps({field: getattr(record, field) for field in _FIELDS}) + "\n"


def parse_known(text: str) -> dict[Key, Known]:
    """Return the servers in a JSON text; a damaged text has none, and a damaged server is left out."""
    known = {}
    try:
        entries = list(json.loads(text))
    except DAMAGE:
        return {}
    for entry in entries:
        with contextlib.suppress(*DAMAGE):
            fields, was_up, is_served = entry
            server = _read_server(fields)
            is_valid = not name_fault(server.name) and 0 < server.port < 2**16
            if is_valid and (server.weight is None or 0 <= server.weight <= WEIGHT_MAX):
                known[server.key] = Known(server, bool(was_up), bool(is_served))
    return known


def format_known(known: Mapping[Key, Known], before: Lines) -> tuple[str, Lines]:
    """Return servers as JSON, one on each line, and these lines.

    Args:
        known: The servers.
        before: The lines of the call before: that of a server that has not changed is not made again.
    """
    lines = {}
    for key in sorted(known):
        line = before.get(key)
        lines[key] = line if line and line[0] is known[key] else (known[key], json.dumps(known[key]))
    return "[" + ",\n".join([text for _, text in lines.values()]) + "]\n", lines


def parse_finite(value: Any) -> float:
    """Return a finite number; raise ValueError or TypeError for anything else."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _fits(value: Any, example: object) -> bool:
    """Return whether a part of the record has the type that it should; a list's content is checked at its use."""
    if isinstance(example, (int, float)):
        return isinstance(value, (int, float)) and math.isfinite(value)
    is_flat = not isinstance(value, dict) or all(isinstance(each, (int, str)) for each in value.values())
    return type(value) is type(example) and is_flat


def _read_server(fields: Any) -> Server:
    name, address, port, weight, *more = fields  # older releases wrote fewer fields
    service, _, _, version, is_backup = (*more, *_NO_MORE[len(more) :])[: len(_NO_MORE)]
    return Server(
        str(name),
        read_address(address).text,
        int(port),
        None if weight is None else int(weight),
        str(service),
        version=version if VERSION.fullmatch(version) else "",
        is_backup=is_backup is True,
    )


def _read_fault(entry: Any) -> tuple[Server, str]:
    fields, words = entry
    return _read_server(fields), str(words)

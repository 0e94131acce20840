"""The outcome of a pass."""

import dataclasses
import enum
import time
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.config.drift import Drift
from serf_haproxy.errors import EXIT_INPUT, EXIT_SYSTEM
from serf_haproxy.policy.server import Server
from serf_haproxy.services import Key

_LOOK_S, _LOOK_MAX_S = 0.25, 10.0


class Verdict(enum.StrEnum):
    """The verdict on a pass."""

    UNCHANGED = "UNCHANGED"  # HAProxy runs what it should
    APPLIED = "APPLIED"  # HAProxy runs the new configuration, without a reload
    RELOADED = "RELOADED"  # HAProxy runs the new configuration, after a reload
    REJECTED = "REJECTED"  # the template or HAProxy refused it; nothing was touched
    UNCONFIRMED = "UNCONFIRMED"  # HAProxy did not confirm it
    PAUSED = "PAUSED"  # an operator has ordered that nothing be changed

    @property
    def exit_code(self) -> int:
        """The exit code of `serf-haproxy once`."""
        return {Verdict.REJECTED: EXIT_INPUT, Verdict.UNCONFIRMED: EXIT_SYSTEM}.get(self, 0)


class Condition(NamedTuple):
    """A state that lasts beyond the pass, beside its verdict.

    Attributes:
        name: "held": servers were lost together and stay under HAProxy's health checks. "last": no server of a node
            that is to serve is up, so servers that leave, drain or are lost go on. "alone": Serf knows no other member
            that is alive, although it has known one that did not leave. "frozen": HAProxy's worker does not answer, so
            a reload waits. "differs": servers are not as they should be, a reload has not changed that, and they are
            left alone. "split": no server of a version that has a share gets requests. "paused": by an order passes
            change nothing.
        reason: One sentence.
    """

    name: str
    reason: str


HELD, LAST, ALONE, FROZEN, DIFFERS, SPLIT = "held", "last", "alone", "frozen", "differs", "split"
PAUSED = "paused"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a pass.

    Attributes:
        verdict: One of `Verdict`.
        reason: One sentence saying why.
        digest: Digest of the configuration that HAProxy runs, "" when unknown.
        conditions: What lasts beside the verdict.
        refused: Servers that HAProxy refused in this pass, with its words.
        has_roster: Whether Serf answered.
        corrected_count: Node files that the roster corrected.
        has_reloaded: Whether the master was told to reload, with or without success.
        is_costly: Whether another try may do harm: a reload that fails can stop the listeners for seconds.
        rest: After a failed reload, the digest of everything but the servers in what was to run.
        problems: One sentence for each node, and each stray file, that was left out.
        left: Servers whose difference a reload has not ended, with its signature; None when the pass did not find out.
        again_s: After how many seconds another pass is due without news; None for never.
        certificate_faults: One line for each fault of a certificate.
        certificate_ends: When each good certificate of the operator's directory ends, seconds since the epoch.
        drifts: Servers that were not as they had been left, and were put right.
    """

    verdict: Verdict
    reason: str
    digest: str
    conditions: tuple[Condition, ...] = ()
    refused: Mapping[Key, tuple[Server, str]] = dataclasses.field(default_factory=dict)
    has_roster: bool = False
    corrected_count: int = 0
    has_reloaded: bool = False
    is_costly: bool = False
    rest: str = ""
    problems: tuple[str, ...] = ()
    again_s: float | None = None
    left: Mapping[Key, str] | None = None
    certificate_faults: tuple[str, ...] = ()
    certificate_ends: Mapping[str, int] = dataclasses.field(default_factory=dict)
    drifts: tuple[Drift, ...] = ()

    @property
    def is_in_force(self) -> bool:
        """Whether HAProxy runs what it should."""
        return self.verdict in (Verdict.UNCHANGED, Verdict.APPLIED, Verdict.RELOADED)

    def has_condition(self, name: str) -> bool:
        """Return whether one of the conditions has this name."""
        return any(condition.name == name for condition in self.conditions)


class Pause(NamedTuple):
    """How long there must not be another reload; servers change at run time meanwhile.

    Attributes:
        until_s: When it ends, on the monotonic clock; 0 for no pause.
        failure: The outcome of the last reload when that failed; None where the pause only keeps reloads few.
    """

    until_s: float = 0.0
    failure: Outcome | None = None

    @property
    def left_s(self) -> float:
        """How long it still lasts, seconds: a pass may take longer than was left as it began."""
        return max(0.0, self.until_s - time.monotonic())

    def concerns(self, rest: str) -> bool:
        """Return whether a configuration has to wait: after a failure only the one that failed."""
        return self.left_s > 0 and (self.failure is None or self.failure.rest == rest)


NO_PAUSE = Pause()


class Patience(NamedTuple):
    """How long a reload waits for a frozen worker: it would cost the connections that wait for that worker.

    Attributes:
        waited_s: Seconds since a pass first found the worker frozen; 0 when the pass before did not.
        limit_s: The longest wait, seconds; then the worker is replaced.
    """

    waited_s: float = 0.0
    limit_s: float = 0.0


def look_again_s(waited_s: float) -> float:
    """Return after how many seconds to look again for something awaited for this long.

    The pause grows with the wait, because each look is a whole pass.
    """
    return min(_LOOK_MAX_S, max(_LOOK_S, waited_s / 4))

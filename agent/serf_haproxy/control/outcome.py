"""What a pass comes to."""

import dataclasses
import enum
from typing import NamedTuple

from serf_haproxy.errors import EXIT_INPUT, EXIT_SYSTEM

_LOOK_S, _LOOK_MAX_S = 0.25, 10.0


class Verdict(enum.StrEnum):
    """What a pass came to."""

    UNCHANGED = "UNCHANGED"  # HAProxy runs what it should
    APPLIED = "APPLIED"  # HAProxy runs the new configuration, without a reload
    RELOADED = "RELOADED"  # HAProxy runs the new configuration, after a reload
    REJECTED = "REJECTED"  # the template or HAProxy refused it; nothing was touched
    UNCONFIRMED = "UNCONFIRMED"  # HAProxy did not come to run it
    HELD = "HELD"  # HAProxy runs what it should, and too many servers were lost at once to let them go

    @property
    def exit_code(self) -> int:
        """The exit code of `serf-haproxy once`."""
        return {Verdict.REJECTED: EXIT_INPUT, Verdict.UNCONFIRMED: EXIT_SYSTEM}.get(self, 0)


def look_again_s(waited_s: float) -> float:
    """Return after how many seconds to look again whether what has been waited for so long has come.

    A short wait is noticed at once, a long one is not looked at all the time: each look is a whole pass.
    """
    return min(_LOOK_MAX_S, max(_LOOK_S, waited_s / 4))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a pass came to.

    Attributes:
        verdict: One of `Verdict`.
        reason: One sentence saying why.
        digest: Digest of the configuration that HAProxy runs, "" when unknown.
        corrected_count: Node files that the roster put right.
        has_reloaded: Whether the master was told to reload, whatever came of it.
        is_costly: Whether another try may hurt: a reload that fails can pause the listeners for seconds.
        rest: Of a reload that failed, the digest of all but the servers in what was to run.
        problems: One sentence for each node, and each stray file, that was left out.
        again_s: After how many seconds another pass is due without any news; None for never.
    """

    verdict: Verdict
    reason: str
    digest: str
    corrected_count: int = 0
    has_reloaded: bool = False
    is_costly: bool = False
    rest: str = ""
    problems: tuple[str, ...] = ()
    again_s: float | None = None


class Pause(NamedTuple):
    """For how long there must not be another reload; servers change at run time meanwhile.

    Attributes:
        left_s: Seconds; 0 for no pause.
        failure: What came of the last reload when that failed; None where reloads are only kept few.
    """

    left_s: float = 0.0
    failure: Outcome | None = None

    def concerns(self, rest: str) -> bool:
        """Tell whether a configuration has to wait: after a failure only what failed, not what somebody has mended."""
        return self.left_s > 0 and (self.failure is None or self.failure.rest == rest)


NO_PAUSE = Pause()

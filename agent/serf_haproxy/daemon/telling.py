"""What the daemon logs of its passes: a change once, and a problem when it begins."""

import logging

from serf_haproxy.control.outcome import Outcome, Verdict

log = logging.getLogger("serf-haproxy")

_LEVELS = {
    Verdict.UNCHANGED: logging.DEBUG,
    Verdict.PAUSED: logging.DEBUG,
    Verdict.APPLIED: logging.INFO,
    Verdict.RELOADED: logging.INFO,
    Verdict.UNCONFIRMED: logging.ERROR,
    Verdict.REJECTED: logging.ERROR,
}
_SHOWN_COUNT = 10
_DRIFT_REMEDY = "it is put right; HAProxy's sockets are no place for orders, 'serf-haproxy maint' is"


class Teller:
    """Logs outcomes, and remembers which problems it has told."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def log(self, outcome: Outcome) -> None:
        """Log the outcome of a pass."""
        level = _LEVELS[outcome.verdict]
        if level == logging.INFO:
            log.info("%s", f"{outcome.verdict} {outcome.reason}")
        for drift in outcome.drifts[:_SHOWN_COUNT]:
            log.warning("%s", f"DRIFT {drift}; {_DRIFT_REMEDY}")
        problems = dict.fromkeys(outcome.problems, max(level, logging.WARNING))
        problems |= {f"{one.name.upper()} {one.reason}": logging.WARNING for one in outcome.conditions}
        if level > logging.INFO and all(one.reason != outcome.reason for one in outcome.conditions):
            problems[f"{outcome.verdict} {outcome.reason}"] = level
        self.tell(problems)

    def tell(self, problems: dict[str, int]) -> None:
        """Log the problems, each with its level, that the pass before did not have."""
        for problem in sorted(problems.keys() - self._told):
            log.log(problems[problem], "%s", problem)
        self._told = set(problems)

"""What the doctor asks the other balancers: whether they are ready, by an answer that they sign, and their clocks."""

from collections.abc import Iterator, Sequence

from serf_haproxy.control.asking import ask_balancers
from serf_haproxy.control.order_secrets import OrderSecrets
from serf_haproxy.control.report import Report
from serf_haproxy.errors import SerfFault
from serf_haproxy.policy.answer_wire import Question, decode
from serf_haproxy.policy.peers import list_others
from serf_haproxy.policy.proof import Secret
from serf_haproxy.serf.answers import READY, STALE_S
from serf_haproxy.serf.events import ALIVE
from serf_haproxy.show.check import Check, judge
from serf_haproxy.show.machine import is_clock_kept
from serf_haproxy.system.moments import time_ms

_AHEAD_MS = 2000  # of a clock that is right: what NTP leaves, and more
_YEAR_MS = 366 * 86_400_000
_MOST = 16
_NTP = "keep the clocks of all balancers right by NTP: orders and answers that are five minutes off do not count"


def look_at_balancers(report: Report) -> Iterator[Check]:
    """Ask each other balancer; look at the clock."""
    self_name, roles = report.record.self_name, report.settings.balancer_roles
    others = list_others(report.snapshot.files, roles, self_name)
    names = sorted(name for name, file in others.items() if file.status == ALIVE)[:_MOST]
    secrets = OrderSecrets(report.settings).read()
    yield from _look_at_clock(bool(others))
    if not names or not self_name or report.serf.fault:
        return
    try:
        answers = ask_balancers(report.settings, READY, "", names)
    except SerfFault as error:
        yield Check(False, f"other balancers cannot be asked: {error}", "look at the Serf agent's log")
        return
    for name in names:
        yield _judge(name, answers.get(name), secrets)


def _judge(name: str, answer: bytes | None, secrets: Sequence[Secret]) -> Check:
    if answer is None:
        remedy = "look at its Serf agent: is handlers/order_event registered there?"
        return Check(False, f"balancer {name} does not answer to the query {READY}", remedy)
    now_ms = time_ms()
    try:
        said = decode(answer, Question(READY, "", name), secrets, now_ms, fresh_ms=_YEAR_MS)
    except ValueError as error:
        remedy = "give all balancers one secret for orders, and look at the daemon there"
        return Check(False, f"balancer {name} answers, and {error}", remedy)
    signed = "signed" if secrets else "not signed, since there is no secret for orders"
    behind_ms = now_ms - said.sent_ms
    if behind_ms < -_AHEAD_MS or behind_ms > STALE_S * 1000 + _AHEAD_MS:
        word = "ahead of" if behind_ms < 0 else "behind"
        return Check(False, f"the clock of {name} is about {abs(behind_ms) / 1e3:.0f} s {word} this one", _NTP)
    what = f"balancer {name} says {said.text}, {signed}; its clock differs by less than {STALE_S:.0f} s"
    return judge(said.text == "ready", what, f"`serf-haproxy doctor` there, at {name}")


def _look_at_clock(has_others: bool) -> Iterator[Check]:
    is_kept = is_clock_kept()
    if is_kept:
        yield Check(True, "the clock is kept right, as the kernel knows")
    elif is_kept is False and not has_others:
        yield Check(True, "the kernel knows of no NTP that keeps the clock; other balancers would need it")
    elif is_kept is False:
        # The host of a virtual machine may keep it all the same: the clocks of the others tell, below.
        yield Check(True, "the kernel knows of no NTP that keeps the clock; see the clocks of other balancers")

"""What the law is given, and what it remembers. Pure."""

import math
from typing import NamedTuple

from serf_haproxy.autoscale.course import Course
from serf_haproxy.autoscale.slots import Slot
from serf_haproxy.autoscale.starts import Starts


class Reading(NamedTuple):
    """What is seen of one service.

    Attributes:
        now_s: A clock that only goes forward, such as `time.monotonic`.
        demand: Requests in flight or queued, at all balancers that answered; None if none did.
        slots: All slots, in the order in which they are to be filled, with those that exist beyond `max`. A slot keeps
            its `since_s` as long as it keeps its state.
        blind: Why the demand is not known whole, or must not be relied on; empty if it is.
        week_min: The minute of the week in the operator's time zone, 0 for Monday 0:00; None where it is not known.
        work_s: How long a server works at a request, on average; None where it is not known.
        start_s: How long a server takes from its start until it is in service; None where it is not known.
    """

    now_s: float
    demand: int | None
    slots: tuple[Slot, ...] = ()
    blind: str = ""
    week_min: int | None = None
    work_s: float | None = None
    start_s: float | None = None


class Flow(NamedTuple):
    """What comes, as it is known from the demand of two moments.

    Attributes:
        at_s: The later one.
        demand: The demand then.
        places: How many requests the servers in service could work at then.
        offered: The places at servers that the requests which come need, with none in a queue; None where that is not
            known.
    """

    at_s: float = -math.inf
    demand: int = 0
    places: int = 0
    offered: float | None = None


class Memory(NamedTuple):
    """What the law remembers of a service. A new one is always safe: nothing is taken away for a whole window.

    Attributes:
        now_s: When the last decision was made.
        course: The demand of the last minutes.
        starts: Starts that failed.
        changed_s: When servers were last added or taken away.
        have: How many servers were in service or starting; None before the first decision.
        flow: What comes.
    """

    now_s: float = -math.inf
    course: Course = Course()
    starts: Starts = Starts()
    changed_s: float = -math.inf
    have: int | None = None
    flow: Flow = Flow()

"""A queue: which places the requests need that come meanwhile, and how many servers end it in time. Pure.

A request in a queue needs a server as much as one in flight does, but not at the same moment. So with the mean time of
a request at a server, less than a place for each is enough, where requests are short.
"""

import math

from serf_haproxy.autoscale.reading import Flow, Reading
from serf_haproxy.autoscale.scaling import Scaling
from serf_haproxy.autoscale.slots import Tally

_END_S = 1.0  # a queue is to be gone so long after the start of the servers that it needs
_END_PART = 0.15  # or after so much of the time that they take to start, if that is longer
_CALM_S = 2.0  # what comes less is believed in such a time
_SPAN_S, _GAP_S = 1.0, 5.0


def follow(scaling: Scaling, reading: Reading, tally: Tally, flow: Flow) -> Flow:
    """Return what comes, once a second: other balancers say their part of the demand no more often.

    Servers that are all busy finish so many requests as they have places, in the time of one; those that have joined
    meanwhile may have done so just now. What the demand grows by has come beside that. A demand that falls and has no
    queue any more falls to what comes, so that is less.
    """
    span_s = reading.now_s - flow.at_s
    if reading.demand is None or span_s < _SPAN_S:
        return flow
    places = tally.serving * scaling.server_maxconn
    if not reading.work_s or span_s > _GAP_S:
        return Flow(reading.now_s, reading.demand, places)
    busy = min((reading.demand + flow.demand) / 2, places, flow.places)
    offered = max(0.0, busy + reading.work_s * (reading.demand - flow.demand) / span_s)
    if flow.offered is not None and offered < flow.offered:
        offered = flow.offered + (offered - flow.offered) * -math.expm1(-span_s / _CALM_S)
    if reading.demand <= min(flow.demand, places):
        offered = min(offered, reading.demand)
    return Flow(reading.now_s, reading.demand, places, offered)


def is_long(demand: float, places: int) -> bool:
    """Return whether more requests wait than chance explains; a shorter queue is soon over."""
    return demand > places + math.sqrt(places)


def count_enders(scaling: Scaling, reading: Reading, tally: Tally, flow: Flow) -> float:
    """Return how many servers end the queue in time, with what comes meanwhile; infinity where that is not known."""
    work_s, start_s, offered = reading.work_s, reading.start_s, flow.offered
    if reading.demand is None or work_s is None or start_s is None or offered is None:
        return math.inf
    busy = min(reading.demand, tally.serving * scaling.server_maxconn)
    risen = reading.demand - flow.demand
    if risen > 0:  # since what comes was known
        offered = max(offered, busy + work_s * risen / max(_SPAN_S, reading.now_s - flow.at_s))
    ages_s = sum(min(start_s, reading.now_s - since_s) for since_s in tally.starting_s)
    # When a server that is started now is there, those that start already have worked for as long as they are older.
    grown = ((offered - busy) * start_s - scaling.server_maxconn * ages_s) / work_s
    queue = max(0.0, reading.demand - busy + grown)
    end_s = max(_END_S, _END_PART * start_s)
    places = offered + queue * work_s / end_s
    return math.ceil(max(offered / scaling.capacity, places / scaling.server_maxconn) - 1e-9)

"""Metrics of the services that scale, from what the autoscaler says."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from serf_haproxy.control.scaled import DECISIONS, RESULTS, Scaled

_GAUGES: tuple[tuple[str, str, Callable[[Scaled], float]], ...] = (
    ("demand", "Requests in flight or queued, at all balancers.", lambda one: one.demand),
    ("demand_mean", "The mean of that in the last minute.", lambda one: one.mean),
    (
        "capacity",
        "The demand that the slots in service are meant for.",
        lambda one: one.count_slots()["serving"] * one.capacity,
    ),
    ("servers_wanted", "How many servers should be in service.", lambda one: one.wanted),
    ("servers_least", "The fewest servers now: min, or more in a peak.", lambda one: one.floor),
    ("servers_most", "The most servers.", lambda one: one.max),
    ("blind", "Whether the demand is not known whole, so that no server is taken away.", lambda one: bool(one.blind)),
    ("deciding", "Whether this balancer decides.", lambda one: one.is_deciding),
    ("timestamp_seconds", "When the autoscaler said this.", lambda one: one.at_s),
)


def list_scaling(prefix: str, scaled: Mapping[str, Scaled]) -> Iterator[Metric]:
    """Yield the metrics, with the service as label; without a sample where no service scales.

    Args:
        prefix: What their names begin with.
        scaled: What the autoscaler says, by service.
    """
    for name, doc, find in _GAUGES:
        gauge = GaugeMetricFamily(f"{prefix}scale_{name}", doc, labels=("service",))
        for service, one in scaled.items():
            gauge.add_metric((service,), float(find(one)))
        yield gauge
    slots = GaugeMetricFamily(f"{prefix}scale_slots", "Slots, by what is in them.", labels=("service", "state"))
    doc = "What the autoscaler decided, and what came of it."
    decisions = CounterMetricFamily(f"{prefix}scale_decisions", doc, labels=("service", "what"))
    for service, one in scaled.items():
        for state, count in one.count_slots().items():
            slots.add_metric((service, state), float(count))
        for what in (*DECISIONS, *RESULTS):
            decisions.add_metric((service, what), float(one.counts.get(what, 0)))
    yield slots
    yield decisions

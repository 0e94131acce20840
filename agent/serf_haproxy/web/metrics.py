"""Metrics in Prometheus's format. Labels are services, states and a few fixed words, and the names of certificates.

Docs: docs/reference/metrics.md. What HAProxy knows of each server stays with HAProxy's own exporter.
"""

import platform
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serf_haproxy import __version__
from serf_haproxy.control.outcome import ALONE, DIFFERS, FROZEN, HELD, LAST, PAUSED, SPLIT, Verdict
from serf_haproxy.policy.decision import State
from serf_haproxy.policy.orders import DRAIN, MAINT, PAUSE, STOP
from serf_haproxy.serf.events import STATUSES
from serf_haproxy.web.news import ERROR, News
from serf_haproxy.web.reading import Reading, count_up
from serf_haproxy.web.scale_metrics import list_scaling
from serf_haproxy.web.story import Found

CONTENT_TYPE = CONTENT_TYPE_LATEST

_PREFIX = "serf_haproxy_"
_PASS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_APPLIED_S = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60)
_CONDITIONS = (HELD, LAST, ALONE, FROZEN, DIFFERS, SPLIT, PAUSED)


class Metrics:
    """Counters of what the daemon told, and gauges of the last reading."""

    def __init__(self) -> None:
        disable_created_metrics()
        self._registry = registry = CollectorRegistry(auto_describe=False)
        self._present = _Present()
        registry.register(self._present)

        def counter(name: str, doc: str, *labels: str) -> Counter:
            return Counter(_PREFIX + name, doc, labels, registry=registry)

        self._passes = counter("passes", "Passes, by what they came to.", "outcome")
        for verdict in (*Verdict, ERROR):
            self._passes.labels(verdict.lower())
        self._pass_s = Histogram(
            _PREFIX + "pass_duration_seconds", "How long passes took.", buckets=_PASS_S, registry=registry
        )
        self._applied_s = Histogram(
            _PREFIX + "event_applied_seconds",
            "From a node file that was written to the end of the pass that changed HAProxy.",
            buckets=_APPLIED_S,
            registry=registry,
        )
        self._reloads = counter("reloads", "Reloads of HAProxy, by result.", "result")
        for result in ("ok", "failed"):
            self._reloads.labels(result)
        self._commands = counter("runtime_commands", "Commands given to HAProxy's runtime socket.")
        self._corrections = counter("corrections", "Node files that Serf's roster corrected.")
        self._drifts = counter("drifts", "Servers that were changed by hand at HAProxy's socket, and put right.")
        self._events = counter("events", "Node files that Serf's events changed, by what Serf said.", "status")
        for status in STATUSES:
            self._events.labels(status)
        self._lost = counter("web_lost_passes", "Passes that this process was too slow to hear of.")

    def count_pass(self, news: News) -> None:
        """Count a pass."""
        self._present.hear(news)
        self._lost.inc(max(0, news.lost_count))
        if news.is_repeated:
            return
        self._passes.labels(news.verdict.lower()).inc()
        if news.verdict != ERROR:
            self._pass_s.observe(max(0.0, news.ended_s - news.began_s))
        if news.has_reloaded:
            self._reloads.labels("ok" if news.is_in_force else "failed").inc()
        self._commands.inc(max(0, news.command_count))
        self._corrections.inc(max(0, news.corrected_count))
        self._drifts.inc(max(0, news.drift_count))

    def count_found(self, found: Found, reading: Reading) -> None:
        """Count what is new in a reading."""
        self._present.reading = reading
        for status in found.statuses:
            self._events.labels(status).inc()
        for latency_s in found.latencies_s:
            self._applied_s.observe(max(0.0, latency_s))

    def format(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)


class _Present(Collector):
    """Makes gauges of the last reading and of the last news when it is asked."""

    def __init__(self) -> None:
        self.reading: Reading | None = None
        self._news: News | None = None
        self._good_s = 0.0

    def hear(self, news: News) -> None:
        self._news = news
        if news.is_in_force:
            self._good_s = news.ended_s

    def collect(self) -> Iterator[Metric]:
        python = platform.python_version()
        yield _gauge("build_info", "1, with versions as labels.", {(__version__, python): 1}, "version", "python")
        if self._news is not None:
            yield _gauge("serf_up", "Whether the daemon is connected to the Serf agent.", self._news.is_serf_up)
            doc = "Whether the settings could be read when they were last asked for."
            yield _gauge("settings_good", doc, self._news.are_settings_good)
            yield _gauge("last_pass_timestamp_seconds", "When the last pass ended.", self._news.ended_s)
            doc = "When a pass last found or brought HAProxy to run what it should; 0 for never."
            yield _gauge("last_good_pass_timestamp_seconds", doc, self._good_s)
        if self.reading is not None:
            yield from _list_gauges(self.reading)


def _list_gauges(reading: Reading) -> Iterator[Metric]:
    report, document = reading.report, reading.document
    services = [service.name for service in report.snapshot.services.listed]
    yield _gauge("haproxy_up", "Whether HAProxy answers on its sockets.", report.servers is not None)
    yield _gauge("report_timestamp_seconds", "When this was read.", reading.at_s)
    members = Tally(file.status for file in report.snapshot.files.values())
    yield _tally("members", "Members of the Serf cluster, by what Serf says.", STATUSES, members, "status")
    states = Tally((key[0], entry.state.value) for key, entry in report.decision.entries.items())
    pairs = [(service, state.value) for service in services for state in State]
    yield _gauge(
        "nodes", "Nodes in each service, by state.", {pair: states[pair] for pair in pairs}, "service", "state"
    )
    decided = Tally(server.service for server in report.decision.servers)
    yield _tally("servers", "Servers that HAProxy should have.", services, decided, "service")
    if report.servers is not None:
        counts = {(service,): count_up(reading, service) or 0 for service in services}
        yield _gauge("servers_up", "Those of them that HAProxy sees up.", counts, "service")
    conditions = Tally(one["name"] for one in document["conditions"])
    names = dict.fromkeys((*_CONDITIONS, *conditions))
    yield _tally("condition", "1 while a condition lasts.", names, conditions, "name")
    given = report.snapshot.orders.list_lasting()
    orders = Tally(order.mode if order.verb == MAINT else order.verb for order in given)
    yield _tally("orders", "Operators' orders that have effect.", (DRAIN, STOP, PAUSE), orders, "order")
    yield _gauge("refused_members", "Members that cannot have a node file.", len(report.record.refused))
    yield _gauge("services_faults", "Faults of the services file.", len(document["service_faults"]))
    yield _gauge("certificate_faults", "Faults of certificates.", len(document["certificate_faults"]))
    ends = {(name,): end_s for name, end_s in report.record.certificate_ends.items()}
    doc = "When each good certificate of the directory ends."
    yield _gauge("certificate_end_timestamp_seconds", doc, ends, "certificate")
    yield from list_scaling(_PREFIX, report.scaled)
    if (old := report.old_workers) is not None:
        yield _gauge("old_workers", "Workers that a reload has replaced and that still run.", old.worker_count)
        yield _gauge("old_workers_memory_bytes", "Their resident memory together.", old.memory_bytes)
        yield _gauge("old_workers_oldest_seconds", "The age of the oldest.", old.oldest_s)


def _tally(name: str, doc: str, words: Iterable[str], counts: Tally[str], label: str) -> Metric:
    return _gauge(name, doc, {(word,): counts[word] for word in words}, label)


def _gauge(name: str, doc: str, value: float | Mapping[Any, float], *labels: str) -> Metric:
    if not isinstance(value, Mapping):
        return GaugeMetricFamily(_PREFIX + name, doc, value=float(value))
    family = GaugeMetricFamily(_PREFIX + name, doc, labels=labels)
    for key, each in value.items():
        family.add_metric(list(key), float(each))
    return family

"""The fleet in numbers, for Prometheus: what the database holds, and what this process did since it started."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from datetime import UTC, datetime

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ofa_deploy import __version__
from ofa_deploy.fleet.status import device_statuses
from ofa_deploy.store import Store

prometheus.disable_created_metrics()  # a time beside every counter, which nobody asks for

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
RESULTS = {"result": "new", "replayed": "replayed", "stale": "stale"}  # an event of a request: the label of its result
CLAIMS = {200: "work", 204: "nothing"}
CLAIM, RESULT = "/api/claim", "/api/runs/{run}/result"
ENDED = ("done", "expired", "returned", "cancelled")


class Metrics:
    """Counters of one server process, and the registry in which they and the database's numbers are read."""

    def __init__(self, store: Store) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.registry.register(_Database(store))
        here = self.registry
        build = prometheus.Gauge("ofa_build_info", "The running version.", ["version"], registry=here)
        build.labels(__version__).set(1)
        self._requests = prometheus.Counter(
            "ofa_http_requests", "Requests that were answered.", ["method", "route", "status"], registry=here
        )
        self._durations = prometheus.Histogram(
            "ofa_http_request_seconds", "From a request to the end of its answer.", ["route"], registry=here
        )
        self._claims = prometheus.Counter(
            "ofa_claims", "Agents' requests for work, by what they were given.", ["outcome"], registry=here
        )
        self.claim_seconds = prometheus.Histogram(
            "ofa_claim_seconds", "What it took to look for work once; long polls look often.", registry=here
        )
        self._results = prometheus.Counter(
            "ofa_results", "Results that agents sent: stored, sent again, or too late.", ["outcome"], registry=here
        )
        for counter, labels in ((self._claims, CLAIMS.values()), (self._results, RESULTS.values())):
            for label in labels:  # a counter that starts at 0 shows its first increase
                counter.labels(label)

    def observe(self, method: str, route: str, status: int, seconds: float, event: str | None) -> None:
        """Count an answered request."""
        self._requests.labels(method if method in METHODS else "other", route, status).inc()
        self._durations.labels(route).observe(seconds)
        if route == CLAIM and status in CLAIMS:
            self._claims.labels(CLAIMS[status]).inc()
        if route == RESULT and event in RESULTS:
            self._results.labels(RESULTS[event]).inc()

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return prometheus.generate_latest(self.registry)


class _Database(Collector):
    """Reads the database whenever the metrics are asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not read the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Devices, items and runs."""
        yield from self._devices()
        items = GaugeMetricFamily("ofa_items", "Items ever queued, by state.", labels=["state"])
        for state, count in self._store.overview.items_by_state().items():
            items.add_metric([state], count)
        yield items
        found = self._store.overview.runs_by_state()
        runs = CounterMetricFamily("ofa_runs", "Runs that ended, by how.", labels=["outcome"])
        for state in ENDED:
            runs.add_metric([state], found.get(state, 0))
        yield runs
        yield GaugeMetricFamily("ofa_runs_running", "Runs that are under way.", found.get("running", 0))

    def _devices(self) -> Iterator[Metric]:
        now, kinds = datetime.now(UTC), Tally[tuple[bool, bool]]()
        seen = GaugeMetricFamily("ofa_device_seen_seconds", "Since a device was last heard of.", labels=["device"])
        for status in device_statuses(self._store.overview.devices(), now):
            kinds[status.online, bool(status.simulated)] += 1
            if status.seen_s is not None:
                seen.add_metric([status.name], status.seen_s)
        devices = GaugeMetricFamily("ofa_devices", "Devices that are known.", labels=["online", "simulated"])
        for online, simulated in ((a, b) for a in (True, False) for b in (True, False)):
            devices.add_metric([str(online).lower(), str(simulated).lower()], kinds[online, simulated])
        yield devices
        yield seen

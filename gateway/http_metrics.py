"""HTTP requests, counted: by method, route template and status.

Decides: names and labels. Leaves: when a request counts to shell.py.
"""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from chassis.telemetry import MethodStats, Metrics


class HttpMetrics(Collector):
    """Counts and seconds of each route, as the chassis counts RPCs (plain numbers, rendered when asked for)."""

    def __init__(self, metrics: Metrics) -> None:
        self._routes: dict[tuple[str, str], MethodStats] = {}
        metrics.registry.register(self)

    def record(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request ended; status 0: the client went away before an answer."""
        stats = self._routes.get((method, route))
        if stats is None:
            stats = self._routes[method, route] = MethodStats()
        stats.record(str(status), seconds)

    def collect(self) -> Iterable[Metric]:
        """The metrics, for the registry."""
        requests = CounterMetricFamily("millrace_http_requests", "Requests.", labels=["method", "route", "status"])
        seconds = HistogramMetricFamily("millrace_http_seconds", "Time to answer.", labels=["method", "route"])
        for (method, route), stats in self._routes.items():
            for status, count in stats.by_status.items():
                requests.add_metric([method, route, status], count)
            cumulative, buckets = 0, []
            for bound, count in zip((*map(str, stats.BUCKETS_S), "+Inf"), stats.by_bucket, strict=True):
                cumulative += count
                buckets.append((bound, cumulative))
            seconds.add_metric([method, route], buckets, stats.total_s)
        return [requests, seconds]

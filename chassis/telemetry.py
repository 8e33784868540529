"""What a process tells about itself: log lines, metrics, traces.

Decides: how log lines look (JSON unless a terminal reads them), that each carries its service and none a secret; the
RPC metrics; that OpenTelemetry is imported only where an endpoint is set (it costs 20 MB and 0.3 s).
Leaves: what is worth a line to the modules; serving the metrics to `metrics_http`; spans of runs to the executor, which
makes them from the journal: no span stands on a hot path.
"""

import logging
import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

EventDict = MutableMapping[str, object]
EXPORT_TIMEOUT_S = 5.0
"""How long a collector may take for one batch of spans, in seconds."""

_SECRET_WORDS = ("password", "secret", "token", "authorization", "cookie", "api_key", "internal_key", "credential")
_NEVER_LOGGED = frozenset({"body", "payload", "metadata", "headers", "request", "response"})


def bind_service(name: str) -> None:
    """Log lines of this task and of all that it starts carry `service=name` from now on."""
    structlog.contextvars.bind_contextvars(service=name)


def without_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Blanks values whose names tell that they are secret, and whole bodies, whoever logged them."""
    for key in event:
        lower = key.lower()
        if lower in _NEVER_LOGGED or any(word in lower for word in _SECRET_WORDS):
            event[key] = "[not logged]"
    return event


def configure_logging(level: str = "info", *, process: str = "millrace") -> None:
    """Sets up structlog and the standard library's logging (of libraries) to write the same lines to stderr."""
    as_json = not sys.stderr.isatty()

    def with_service(_logger: object, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", process)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        with_service,
        without_secrets,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        last: list[structlog.typing.Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    else:
        # The default formatter prints the locals of every frame, passwords and secrets among them.
        last = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,  # module loggers must follow a later configuration (tests, the CLI)
    )
    handler = logging.StreamHandler(sys.stderr)
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last], foreign_pre_chain=shared
    )
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


class MethodStats:
    """Counts and seconds of one RPC. Plain numbers: a prometheus histogram's observe costs six times as much."""

    BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

    def __init__(self) -> None:
        self.by_status: dict[str, int] = defaultdict(int)
        self.by_bucket = [0] * (len(self.BUCKETS_S) + 1)
        self.total_s = 0.0

    def record(self, status: str, seconds: float) -> None:
        """One call ended."""
        self.by_status[status] += 1
        self.by_bucket[bisect_left(self.BUCKETS_S, seconds)] += 1
        self.total_s += seconds


class Metrics(Collector):
    """The metrics of one process: what services make (`counter`, `gauge`, `histogram`), and all RPCs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._rpcs: dict[str, MethodStats] = {}
        self._made: dict[str, Counter | Gauge | Histogram] = {}
        self.registry.register(self)

    def counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
        """The counter of that name, made at the first call."""
        return cast(Counter, self._once(name, lambda: Counter(name, help_text, labels, registry=self.registry)))

    def gauge(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
        """The gauge of that name, made at the first call."""
        return cast(Gauge, self._once(name, lambda: Gauge(name, help_text, labels, registry=self.registry)))

    def histogram(
        self, name: str, help_text: str, labels: Sequence[str] = (), buckets: Sequence[float] = MethodStats.BUCKETS_S
    ) -> Histogram:
        """The histogram of that name (seconds unless said otherwise), made at the first call."""
        return cast(
            Histogram,
            self._once(name, lambda: Histogram(name, help_text, labels, buckets=buckets, registry=self.registry)),
        )

    def _once(self, name: str, make: "Callable[[], Counter | Gauge | Histogram]") -> "Counter | Gauge | Histogram":
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def rpc(self, path: str) -> Callable[[str, float], None]:
        """Takes the status and seconds of each call of an RPC that this process answers."""
        return self._rpcs.setdefault(path, MethodStats()).record

    def collect(self) -> Iterable[Metric]:
        """The RPC metrics, for the registry."""
        calls = CounterMetricFamily("millrace_rpc", "RPCs answered.", labels=["rpc", "status"])
        seconds = HistogramMetricFamily("millrace_rpc_seconds", "Time to answer an RPC.", labels=["rpc"])
        for path, stats in self._rpcs.items():
            for status, count in stats.by_status.items():
                calls.add_metric([path, status], count)
            cumulative, buckets = 0, []
            for bound, count in zip((*map(str, stats.BUCKETS_S), "+Inf"), stats.by_bucket, strict=True):
                cumulative += count
                buckets.append((bound, cumulative))
            seconds.add_metric([path], buckets, stats.total_s)
        return [calls, seconds]

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class SpanExport(NamedTuple):
    """Where finished spans go: hand each to `processor.on_end`, made with `resource`."""

    resource: "Resource"
    processor: "BatchSpanProcessor"


def span_export(endpoint: str, service: str) -> SpanExport | None:
    """Sends spans to a collector (OTLP over gRPC), in batches, from a thread of its own; None without an endpoint.

    Call `processor.shutdown` (blocking) at the end. A collector that is away costs spans, never more.
    """
    if not endpoint:
        return None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=EXPORT_TIMEOUT_S)
    return SpanExport(Resource.create({"service.name": f"millrace-{service}"}), BatchSpanProcessor(exporter))

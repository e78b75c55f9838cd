"""Figures for Prometheus.

Owns their names. Everything is counted as plain integers where it happens and collected here when
somebody asks, so that counting costs nothing worth noticing. The only importer of
prometheus_client; its registry is ours alone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from restorefs.counters import FuseCounters, Seconds
from restorefs.errors import errno_name
from restorefs.session.pool import Pool

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ApiFigures:
    """What the API counts of itself, by call and status."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds: dict[str, float] = {}
        self.sent_bytes = 0

    def count(self, method: str, call: str, status: int, seconds: float) -> None:
        self.requests[method, call, status] += 1
        self.seconds[call] = self.seconds.get(call, 0.0) + seconds

    def count_bytes(self, count: int) -> None:
        """Count bytes of files that were sent."""
        self.sent_bytes += count


class Metrics(Collector):
    """All figures."""

    def __init__(
        self,
        pool: Pool,
        api: ApiFigures,
        fuse: FuseCounters,
        operations: Mapping[int, str],
    ) -> None:
        """operations: the names of the kernel's opcodes."""
        self._pool = pool
        self._api = api
        self._fuse = fuse
        self._operations = operations
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self) -> bytes:
        """Return what Prometheus scrapes."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        yield from self._disks()
        yield from self._kernel()
        yield from self._calls()

    def _disks(self) -> Iterable[Metric]:
        pool = self._pool
        attached = tuple(pool.attached)
        yield GaugeMetricFamily(
            "restorefs_attached_disks", "Disks that are attached now.", len(attached)
        )
        yield GaugeMetricFamily(
            "restorefs_attach_slots", "Disks that may be attached.", pool.settings.max_attached
        )
        yield GaugeMetricFamily(
            "restorefs_failed_disks", "Disks whose last attach or read failed.", len(pool.failures)
        )
        yield _histogram(
            "restorefs_attach_seconds", "Time that attaching took.", pool.attach_seconds
        )
        failures = CounterMetricFamily(
            "restorefs_attach_failures", "Attaches that failed, by errno.", labels=["errno"]
        )
        for code, count in pool.attach_failures.items():
            failures.add_metric([errno_name(code)], count)
        yield failures
        cache = CounterMetricFamily(
            "restorefs_cache_lookups", "Lookups in the block cache.", labels=["result"]
        )
        cache.add_metric(["hit"], pool.cache.hits)
        cache.add_metric(["miss"], pool.cache.misses)
        yield cache
        yield CounterMetricFamily(
            "restorefs_disk_read_bytes",
            "Bytes read from images.",
            pool.bytes_read_before + sum(disk.device.bytes_read for disk in attached),
        )

    def _kernel(self) -> Iterable[Metric]:
        fuse = self._fuse
        requests = CounterMetricFamily(
            "restorefs_fuse_requests", "The kernel's requests.", labels=["operation"]
        )
        seconds = CounterMetricFamily(
            "restorefs_fuse_request_seconds",
            "Time from a request to its answer.",
            labels=["operation"],
        )
        counts: Counter[str] = Counter()
        took_ns: Counter[str] = Counter()
        for opcode, count in enumerate(fuse.requests):
            if count:
                name = self._operations.get(opcode, "other").lower()
                counts[name] += count
                took_ns[name] += fuse.nanoseconds[opcode]
        for name, count in counts.items():
            requests.add_metric([name], count)
            seconds.add_metric([name], took_ns[name] / 1e9)
        yield requests
        yield seconds
        errors = CounterMetricFamily(
            "restorefs_fuse_errors", "Errors that the kernel was told.", labels=["errno"]
        )
        for code, count in enumerate(fuse.errors):
            if count:
                errors.add_metric([errno_name(code)], count)
        yield errors
        yield CounterMetricFamily(
            "restorefs_fuse_read_bytes", "Bytes of files that the kernel got.", fuse.read_bytes
        )

    def _calls(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "restorefs_api_requests", "Calls.", labels=["method", "call", "status"]
        )
        for (method, call, status), count in self._api.requests.items():
            requests.add_metric([method, call, str(status)], count)
        yield requests
        seconds = CounterMetricFamily(
            "restorefs_api_request_seconds", "Time that calls took.", labels=["call"]
        )
        for call, took in self._api.seconds.items():
            seconds.add_metric([call], took)
        yield seconds
        yield CounterMetricFamily(
            "restorefs_api_sent_bytes", "Bytes of files that were sent.", self._api.sent_bytes
        )


def _histogram(name: str, about: str, seconds: Seconds) -> Metric:
    buckets, sofar = [], 0
    for bound, count in zip((*map(str, seconds.bounds), "+Inf"), seconds.counts, strict=True):
        sofar += count
        buckets.append((bound, sofar))
    return HistogramMetricFamily(name, about, buckets=buckets, sum_value=seconds.total)

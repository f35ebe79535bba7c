"""Metrics of the service in Prometheus' format, in a separate registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]  # start times of counters are of no use here

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counts and times, without names, addresses or texts of clients."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.sessions = Gauge("mirasol_sessions", "Sessions that exist.", registry=registry)
        self.begun = Counter("mirasol_sessions_begun", "Sessions begun.", registry=registry)
        self.upload_bytes = Counter("mirasol_upload_bytes", "Bytes of uploads written.", registry=registry)
        self.refused = Counter("mirasol_refused", "Requests refused, by reason.", ["reason"], registry=registry)
        self.requests = Counter("mirasol_requests", "HTTP responses.", ["method", "status"], registry=registry)
        self.chunk = Histogram(
            "mirasol_chunk_seconds", "Taking in a chunk, waiting included.", buckets=SECONDS, registry=registry
        )
        self.answer = Histogram("mirasol_answer_seconds", "A whole answer.", buckets=SECONDS, registry=registry)
        self.behind = Gauge("mirasol_behind_seconds", "How late the last chunk of any upload was.", registry=registry)
        self.release = Gauge(
            "mirasol_release", "1 for the release that new sessions use.", ["release"], registry=registry
        )
        self.switches = Counter("mirasol_release_switches", "Switches to another release.", registry=registry)
        self.failed_switches = Counter(
            "mirasol_release_switches_failed", "Releases that could not be loaded, tries.", registry=registry
        )

    def text(self) -> bytes:
        """The metrics as Prometheus reads them."""
        return generate_latest(self._registry)

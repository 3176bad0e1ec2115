"""What `/metrics` shows, in the text format of Prometheus."""

import time
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

if TYPE_CHECKING:
    from bitfold.service.models import Swap

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class Metrics:
    """The counters of one server. All but `swapped` are called in its thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        of = self._registry
        self._requests = Counter(
            "bitfold_requests", "Requests answered", ["path", "status"], registry=of
        )
        self._counted: dict[tuple[str, int], Counter] = {}
        self._rows = Counter("bitfold_rows", "Rows scored and answered", registry=of)
        self._seconds = Histogram(
            "bitfold_request_seconds", "From the whole request to its answer, of requests with"
            " scores", buckets=_SECONDS, registry=of,
        )  # fmt: skip
        self._batches = Histogram(
            "bitfold_batch_rows", "Rows scored together", buckets=_ROWS, registry=of
        )
        self.waiting = Gauge("bitfold_waiting_rows", "Rows that wait for the model", registry=of)
        self.open = Gauge("bitfold_open_requests", "Requests that have no answer yet", registry=of)
        self._model = Gauge(
            "bitfold_model_info", "The run that answers, by its digest", ["run"], registry=of
        )
        self._loaded = Gauge(
            "bitfold_model_loaded_timestamp_seconds", "When the model began to answer", registry=of
        )
        self._load_seconds = Gauge(
            "bitfold_model_load_seconds", "How long it took to load and warm the model", registry=of
        )
        self._swaps = Counter(
            "bitfold_swaps", "Models that took the place of another, or were refused",
            ["result"], registry=of,
        )  # fmt: skip
        for result in ("done", "unchanged", "refused"):
            self._swaps.labels(result)
        self.batched = self._batches.observe

    def answered(self, path: str, status: int) -> None:
        """A request has its answer."""
        key = path, status
        counter = self._counted.get(key)
        if counter is None:
            counter = self._counted[key] = self._requests.labels(path, str(status))
        counter.inc()

    def scored(self, rows: int, seconds: float) -> None:
        """A request has its scores."""
        self._rows.inc(rows)
        self._seconds.observe(seconds)

    def swapped(self, found: "Swap | Exception", *, first: bool = False) -> None:
        """A model took the place of another, or was refused."""
        if isinstance(found, Exception):
            self._swaps.labels("refused").inc()
            return
        if not first:
            self._swaps.labels("done" if found.changed else "unchanged").inc()
        if found.changed:
            self._model.clear()
            self._model.labels(found.after).set(1)
            self._loaded.set(time.time())
            self._load_seconds.set(found.seconds)

    def text(self) -> bytes:
        """All of it."""
        found: bytes = generate_latest(self._registry)
        return found

"""Observers for OpenTelemetry and Prometheus: ``pip install 'naiad[telemetry]'``.

::

    from naiad.client import Client
    from naiad.client.telemetry import OpenTelemetry, Prometheus

    with Client("grpc://localhost:8001", observers=[OpenTelemetry(), Prometheus()]) as triton:
        ...

Neither package is imported before its class is made.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import grpc

from naiad.client._observe import CallInfo, Observation
from naiad.client.errors import ClientError, InvalidInput
from naiad.client.result import Timing

if TYPE_CHECKING:
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, TracerProvider
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["OpenTelemetry", "Prometheus"]

SERVICE: Final = "inference.GRPCInferenceService"
# The release of the semantic conventions whose names the spans use; a collector can translate them to another's.
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
LATENCY_BUCKETS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


class OpenTelemetry:
    """One span for each call, over all its attempts; Triton's own spans become its children.

    The span is of the kind CLIENT and has the names of OpenTelemetry's conventions for gRPC, ``naiad.model`` and
    ``naiad.model.version``, sizes in bytes, and where the time went in seconds. Each failed attempt is an event with
    the server's address and its status, each further attempt another. The parent is the span that is current where
    the call is made. The headers that carry the trace (W3C's ``traceparent``, unless the propagator is another) go to
    the server with every attempt: Triton continues the trace when it runs with ``--trace-config mode=opentelemetry``.

    Errors are named by class and status. Their messages stay out of the spans: a model's own may repeat what it was
    sent, and spans are kept, and read by others.

    Args:
        tracer_provider: the application's global one by default.
        propagator: the application's global one by default.
        error_messages: put the messages of errors into the spans, too.

    Raises:
        ImportError: ``opentelemetry-api`` is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        propagator: TextMapPropagator | None = None,
        *,
        error_messages: bool = False,
    ) -> None:
        try:
            from opentelemetry import propagate, trace
        except ImportError as exc:
            raise _missing("OpenTelemetry", "opentelemetry-api") from exc
        self._trace = trace
        self._tracer = trace.get_tracer("naiad.client", None, tracer_provider, SCHEMA_URL)
        self._propagator: TextMapPropagator = propagator or propagate.get_global_textmap()
        self._error_messages = error_messages

    def call(self, info: CallInfo) -> Observation:
        """Begin the span of a call."""
        attributes: dict[str, str | int | float] = {
            "rpc.system.name": "grpc",
            "rpc.method": f"{SERVICE}/{info.method}",
            "rpc.system": "grpc",  # this and rpc.service: what collectors knew before release 1.39
            "rpc.service": SERVICE,
            "naiad.timeout_s": info.timeout_s,
            "naiad.request.size_bytes": info.request_bytes,
        }
        for name, value in (
            ("naiad.model", info.model),
            ("naiad.model.version", info.version),
            ("naiad.request.id", info.request_id),
        ):
            if value is not None:
                attributes[name] = value
        span = self._tracer.start_span(
            f"{SERVICE}/{info.method}", kind=self._trace.SpanKind.CLIENT, attributes=attributes
        )
        headers: dict[str, str] = {}
        self._propagator.inject(headers, self._trace.set_span_in_context(span))
        return _CallSpan(
            span, {name.lower(): value for name, value in headers.items()}, error_messages=self._error_messages
        )


class _CallSpan:
    """The span of one call, and the headers that make it a parent."""

    __slots__ = ("_endpoint", "_error_messages", "_headers", "_span")

    def __init__(self, span: Span, headers: Mapping[str, str], *, error_messages: bool) -> None:
        self._span = span
        self._headers = headers
        self._error_messages = error_messages
        self._endpoint = ""

    def attempt(self, endpoint: str, number: int) -> Mapping[str, str]:
        """Note where the attempt goes; return the trace's headers."""
        self._endpoint = endpoint
        if number > 1 and self._span.is_recording():
            self._span.add_event("attempt", {"naiad.attempt": number, **_server(endpoint)})
        return self._headers

    def attempt_failed(self, error: ClientError) -> None:
        """Note why."""
        if self._span.is_recording():
            server = _server(error.endpoint or self._endpoint)
            message = {"error.message": str(error)} if self._error_messages else {}
            self._span.add_event("attempt failed", {"error.type": _error_type(error), **message, **server})

    def done(self, timing: Timing, response_bytes: int, error: BaseException | None) -> None:
        """End the span."""
        if self._span.is_recording():
            endpoint = timing.endpoint or self._endpoint  # with hedging, not always where the last attempt went
            self._span.set_attributes(_outcome(timing, endpoint, response_bytes, error))
            if error is not None:
                from opentelemetry.trace import StatusCode

                self._span.set_status(StatusCode.ERROR, str(error) if self._error_messages else None)
        self._span.end()


def _outcome(
    timing: Timing, endpoint: str, response_bytes: int, error: BaseException | None
) -> dict[str, str | int | float]:
    attributes: dict[str, str | int | float] = {
        "naiad.num_attempts": timing.num_attempts,
        "naiad.encode_s": timing.encode_s,
        "naiad.waiting_s": timing.waiting_s,
        "naiad.rpc_s": timing.rpc_s,
        "naiad.decode_s": timing.decode_s,
        "naiad.response.size_bytes": response_bytes,
    }
    if endpoint:
        attributes |= _server(endpoint)
    status = _status(error)
    if status is not None:
        attributes["rpc.response.status_code"] = status
        attributes["rpc.grpc.status_code"] = _status_number(status)
    if error is not None:
        attributes["error.type"] = _error_type(error)
    return attributes


class Prometheus:
    """Counts calls, attempts and bytes, and measures latencies, all by model and method.

    * ``naiad_client_requests_total`` (``model``, ``method``, ``status``): calls that ended, with the gRPC status that
      the caller got;
    * ``naiad_client_request_seconds`` (``model``, ``method``): their latencies, over all attempts;
    * ``naiad_client_in_flight`` (``model``, ``method``): calls that have not ended;
    * ``naiad_client_attempts_total`` (``model``, ``method``, ``server``), of which ``naiad_client_retries_total``
      were not the first of their call, and ``naiad_client_failed_attempts_total`` (also ``status``) failed;
    * ``naiad_client_sent_bytes_total`` (first attempts only), ``naiad_client_received_bytes_total`` (``model``,
      ``method``).

    ``model`` is empty where a call concerns none. An error without a gRPC status has its class as ``status``. Any
    number of these may share a registry.

    Args:
        registry: ``prometheus_client.REGISTRY`` by default.
        buckets: upper bounds of the latencies, in seconds.

    Raises:
        ImportError: ``prometheus-client`` is not installed.
        InvalidInput: the registry has these metrics already, with other buckets.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, buckets: Sequence[float] = LATENCY_BUCKETS_S
    ) -> None:
        try:
            import prometheus_client
        except ImportError as exc:
            raise _missing("Prometheus", "prometheus-client") from exc
        self._metrics = _metrics(prometheus_client.REGISTRY if registry is None else registry, tuple(buckets))
        self._of_calls: dict[tuple[str, str], _CallMetrics] = {}

    def call(self, info: CallInfo) -> Observation:
        """Begin to count a call."""
        key = info.model or "", info.method
        metrics = self._of_calls.get(key)
        if metrics is None:
            metrics = self._of_calls.setdefault(key, _CallMetrics.of(self._metrics, *key))
        metrics.in_flight.inc()
        metrics.sent_bytes.inc(info.request_bytes)
        return _CallCounts(self._metrics, metrics, key)


class _CallCounts:
    """What one call adds to the metrics."""

    __slots__ = ("_labels", "_metrics", "_mine")

    def __init__(self, metrics: _Metrics, mine: _CallMetrics, labels: tuple[str, str]) -> None:
        self._metrics = metrics
        self._mine = mine
        self._labels = labels

    def attempt(self, endpoint: str, number: int) -> Mapping[str, str]:
        """Count the attempt; no headers."""
        attempts = self._mine.attempts.get(endpoint)
        if attempts is None:
            attempts = self._mine.attempts[endpoint] = self._metrics.attempts.labels(*self._labels, endpoint)
        attempts.inc()
        if number > 1:
            self._metrics.retries.labels(*self._labels, endpoint).inc()
        return {}

    def attempt_failed(self, error: ClientError) -> None:
        """Count the failure."""
        self._metrics.failed_attempts.labels(*self._labels, error.endpoint or "", _label(error)).inc()

    def done(self, timing: Timing, response_bytes: int, error: BaseException | None) -> None:
        """Count the call."""
        self._mine.in_flight.dec()
        self._mine.received_bytes.inc(response_bytes)
        self._mine.seconds.observe(timing.total_s)
        if error is None:
            self._mine.succeeded.inc()
        else:
            self._metrics.requests.labels(*self._labels, _label(error)).inc()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Metrics:
    """The collectors of one registry."""

    buckets: tuple[float, ...]
    requests: Counter
    seconds: Histogram
    in_flight: Gauge
    attempts: Counter
    retries: Counter
    failed_attempts: Counter
    sent_bytes: Counter
    received_bytes: Counter


@dataclass(frozen=True, slots=True)
class _CallMetrics:
    """Those of one model and method: looking them up for every call would take longer than counting."""

    succeeded: Counter
    seconds: Histogram
    in_flight: Gauge
    sent_bytes: Counter
    received_bytes: Counter
    attempts: dict[str, Counter] = field(default_factory=dict)
    """By server."""

    @classmethod
    def of(cls, metrics: _Metrics, model: str, method: str) -> _CallMetrics:
        return cls(
            metrics.requests.labels(model, method, "OK"),
            metrics.seconds.labels(model, method),
            metrics.in_flight.labels(model, method),
            metrics.sent_bytes.labels(model, method),
            metrics.received_bytes.labels(model, method),
        )


_registered: MutableMapping[CollectorRegistry, _Metrics] = WeakKeyDictionary()
_registering = threading.Lock()


def _metrics(registry: CollectorRegistry, buckets: tuple[float, ...]) -> _Metrics:
    """Return the collectors of a registry, which takes each only once."""
    with _registering:
        metrics = _registered.get(registry)
        if metrics is None:
            metrics = _registered[registry] = _new_metrics(registry, buckets)
    if metrics.buckets != buckets:
        raise InvalidInput(
            f"the registry has naiad_client_request_seconds already, with the buckets {metrics.buckets}, "
            f"found {buckets}: give the same ones, or another registry"
        )
    return metrics


def _new_metrics(registry: CollectorRegistry, buckets: tuple[float, ...]) -> _Metrics:
    from prometheus_client import Counter, Gauge, Histogram

    def counter(name: str, text: str, *labels: str) -> Counter:
        return Counter(f"naiad_client_{name}", text, ("model", "method", *labels), registry=registry)

    of_call = ("model", "method")
    return _Metrics(
        buckets=buckets,
        requests=counter("requests", "Calls that ended.", "status"),
        seconds=Histogram(
            "naiad_client_request_seconds",
            "Latency of a call over all its attempts.",
            of_call,
            registry=registry,
            buckets=buckets,
        ),
        in_flight=Gauge(
            "naiad_client_in_flight",
            "Calls that have not ended.",
            of_call,
            registry=registry,
            multiprocess_mode="livesum",
        ),
        attempts=counter("attempts", "Requests that left for a server.", "server"),
        retries=counter("retries", "Attempts that were not the first of their call.", "server"),
        failed_attempts=counter("failed_attempts", "Attempts that failed.", "server", "status"),
        sent_bytes=counter("sent_bytes", "Size of the requests, without retries."),
        received_bytes=counter("received_bytes", "Size of the answers."),
    )


def _status(error: BaseException | None) -> str | None:
    """Return the name of the gRPC status, where there is one."""
    if error is None:
        return "OK"
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED"
    return error.status if isinstance(error, ClientError) else None


@lru_cache
def _status_number(status: str) -> int:
    number: int = grpc.StatusCode[status].value[0]
    return number


def _error_type(error: BaseException) -> str:
    return _status(error) or f"{type(error).__module__}.{type(error).__qualname__}"


def _label(error: BaseException) -> str:
    return _status(error) or type(error).__name__


@lru_cache(maxsize=256)
def _server(endpoint: str) -> dict[str, str | int]:
    """Split an address; one without a port, such as that of a socket, stays whole."""
    target = endpoint.partition("://")[2] or endpoint
    host, _, port = target.rpartition(":")
    if host and port.isdigit():
        return {"server.address": host.strip("[]"), "server.port": int(port)}
    return {"server.address": target}


def _missing(name: str, package: str) -> ImportError:
    return ImportError(
        f"naiad.client.telemetry.{name} needs the package '{package}', which is not installed: "
        "pip install 'naiad[telemetry]'",
        name=package,
    )

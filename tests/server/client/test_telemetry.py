"""Spans and metrics of calls to the real Triton."""

import asyncio
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from launcher_helpers import eventually
from naiad.client import (
    AsyncClient,
    Balancing,
    CallInfo,
    Client,
    ClientClosed,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    Timing,
)
from naiad.client.telemetry import OpenTelemetry, Prometheus
from naiad.server import EmbeddedTriton
from repository_helpers import affine, write_model

X = {"x": np.ones((1, 3), np.float32)}
AWAY = "grpc://127.0.0.1:9"
INFO = CallInfo(method="ModelInfer", model="m", version=None, request_id=None, request_bytes=1, timeout_s=1.0)


class Spans:
    """A tracer provider, and the spans that it finished."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def of(self, method: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name.endswith(f"/{method}")]


@contextmanager
def collector() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a server that takes spans as OpenTelemetry's collector does, and the spans it got."""
    received: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in body["resourceSpans"]:
                received.extend(span for scope in resource["scopeSpans"] for span in scope["spans"])
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
        finally:
            server.shutdown()
            thread.join()


def test_tritons_trace_joins_the_callers(tmp_path):
    """The server's spans have the caller's trace, and ours as their parent, though the server traces nobody else."""
    write_model(
        tmp_path / "repository", "scale", affine(), inputs={"x": "FP32[3]"}, outputs={"y": "FP32[3]"}, max_batch_size=8
    )
    spans = Spans()
    with collector() as (address, received):
        trace = ["mode=opentelemetry", f"opentelemetry,url={address}", "opentelemetry,bsp_schedule_delay=50"]
        arguments = [f"--trace-config={setting}" for setting in (*trace, "level=TIMESTAMPS", "rate=1000000")]
        with (
            EmbeddedTriton(tmp_path / "repository", extra_args=arguments) as server,
            Client(server.admin_url, observers=[OpenTelemetry(spans.provider)]) as triton,
        ):
            assert triton.trace_settings().mode == "opentelemetry"
            with spans.provider.get_tracer("app").start_as_current_span("handle a request") as caller:
                triton.infer("scale", X)
            eventually(lambda: any(span["name"] == "InferRequest" for span in received), "the server's spans arrive")
    (ours,) = spans.of("ModelInfer")
    assert ours.parent.span_id == caller.get_span_context().span_id
    theirs = {span["name"]: span for span in received}
    assert theirs["InferRequest"]["parentSpanId"] == f"{ours.context.span_id:016x}"
    assert theirs["scale"]["parentSpanId"] == theirs["InferRequest"]["spanId"]
    assert {span["traceId"] for span in received} == {f"{caller.get_span_context().trace_id:032x}"}


def test_a_call_is_one_client_span_with_the_names_of_the_conventions(url, address):
    """What was called, where, how it ended, how much went over the line, and where the time went."""
    spans = Spans()
    with Client(url, observers=[OpenTelemetry(spans.provider)]) as triton:
        result = triton.infer("scale", X, version=1, request_id="seven")
    (span,) = spans.exporter.get_finished_spans()
    assert (span.name, span.kind) == ("inference.GRPCInferenceService/ModelInfer", SpanKind.CLIENT)
    assert span.status.status_code == StatusCode.UNSET
    assert span.attributes["rpc.system.name"] == span.attributes["rpc.system"] == "grpc"
    assert span.attributes["rpc.method"] == "inference.GRPCInferenceService/ModelInfer"
    assert span.attributes["rpc.service"] == "inference.GRPCInferenceService"
    assert (span.attributes["rpc.response.status_code"], span.attributes["rpc.grpc.status_code"]) == ("OK", 0)
    assert f"{span.attributes['server.address']}:{span.attributes['server.port']}" == address
    assert (span.attributes["naiad.model"], span.attributes["naiad.model.version"]) == ("scale", "1")
    assert span.attributes["naiad.request.id"] == "seven"
    assert span.attributes["naiad.request.size_bytes"] > 12
    assert span.attributes["naiad.response.size_bytes"] > 12
    assert span.attributes["naiad.rpc_s"] == result.timing.rpc_s
    assert "error.type" not in span.attributes
    assert span.events == ()
    assert span.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"


def test_a_failed_call_is_a_failed_span(url):
    """With the status; without the message, which may repeat what was sent."""
    spans = Spans()
    with Client(url, observers=[OpenTelemetry(spans.provider)]) as triton, pytest.raises(ModelNotFound):
        triton.infer("scale", X, version=9)
    (span,) = spans.exporter.get_finished_spans()
    assert span.status.status_code == StatusCode.ERROR
    assert span.status.description is None
    assert all("error.message" not in event.attributes for event in span.events)
    assert (span.attributes["rpc.response.status_code"], span.attributes["rpc.grpc.status_code"]) == ("NOT_FOUND", 5)
    assert span.attributes["error.type"] == "NOT_FOUND"
    assert [event.name for event in span.events] == ["attempt failed"]


def test_messages_of_errors_are_in_spans_where_that_is_asked_for(url):
    """What the caller was told, of the call and of its attempt."""
    spans = Spans()
    observer = OpenTelemetry(spans.provider, error_messages=True)
    with Client(url, observers=[observer]) as triton, pytest.raises(ModelNotFound) as caught:
        triton.infer("scale", X, version=9)
    (span,) = spans.exporter.get_finished_spans()
    assert span.status.description == str(caught.value)
    assert [event.attributes["error.message"] for event in span.events] == [str(caught.value)]


def test_an_error_without_a_status_is_named_by_its_class(url):
    """Nothing was sent, so that there is none."""
    spans, registry = Spans(), CollectorRegistry()
    triton = Client(url, observers=[OpenTelemetry(spans.provider), Prometheus(registry)])
    triton.close()
    with pytest.raises(ClientClosed):
        triton.infer("scale", X)
    (span,) = spans.of("ModelInfer")
    assert span.attributes["error.type"] == "naiad.client.errors.ClientClosed"
    assert "rpc.response.status_code" not in span.attributes
    labels = {"model": "scale", "method": "ModelInfer", "status": "ClientClosed"}
    assert registry.get_sample_value("naiad_client_requests_total", labels) == 1


def test_further_attempts_are_events_of_the_one_span(url, address):
    """A server that is away is seen there, while the call succeeds at the other; no error is left on the span."""
    spans, registry = Spans(), CollectorRegistry()
    observers = [OpenTelemetry(spans.provider), Prometheus(registry)]
    with Client([AWAY, url], observers=observers, balancing=Balancing(policy="round_robin")) as triton:
        for _ in range(2):
            triton.infer("scale", X)
    (span,) = (span for span in spans.of("ModelInfer") if span.attributes["naiad.num_attempts"] == 2)
    failed, second = span.events
    assert (failed.name, failed.attributes["server.port"]) == ("attempt failed", 9)
    assert failed.attributes["error.type"] == "UNAVAILABLE"
    assert (second.name, second.attributes["naiad.attempt"]) == ("attempt", 2)
    assert span.status.status_code == StatusCode.UNSET
    assert f"{span.attributes['server.address']}:{span.attributes['server.port']}" == address
    of_call = {"model": "scale", "method": "ModelInfer"}
    here, away = of_call | {"server": f"grpc://{address}"}, of_call | {"server": AWAY}
    assert registry.get_sample_value("naiad_client_requests_total", of_call | {"status": "OK"}) == 2
    assert registry.get_sample_value("naiad_client_attempts_total", away) == 1
    assert registry.get_sample_value("naiad_client_attempts_total", here) == 2
    assert registry.get_sample_value("naiad_client_retries_total", here) == 1
    failed_there = away | {"status": "UNAVAILABLE"}
    assert registry.get_sample_value("naiad_client_failed_attempts_total", failed_there) == 1


async def test_asyncio_calls_have_spans_and_metrics_too(url):
    """Each task has its own parent; a cancelled call is cancelled, also here."""
    spans, registry = Spans(), CollectorRegistry()
    tracer = spans.provider.get_tracer("app")
    async with AsyncClient(url, observers=[OpenTelemetry(spans.provider), Prometheus(registry)]) as triton:

        async def handle(name: str) -> int:
            with tracer.start_as_current_span(name) as mine:
                await triton.infer("scale", X, request_id=name)
                return mine.get_span_context().span_id

        parents = dict(zip("abc", await asyncio.gather(*map(handle, "abc")), strict=True))
        slow = asyncio.create_task(triton.infer("slow", {"seconds": np.full(1, 60, np.float32)}))
        of_slow = {"model": "slow", "method": "ModelInfer"}
        while not registry.get_sample_value("naiad_client_in_flight", of_slow):
            await asyncio.sleep(0.01)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
    calls = {span.attributes.get("naiad.request.id"): span for span in spans.of("ModelInfer")}
    assert {name: calls[name].parent.span_id for name in "abc"} == parents
    assert calls[None].attributes["rpc.response.status_code"] == "CANCELLED"
    assert registry.get_sample_value("naiad_client_requests_total", of_slow | {"status": "CANCELLED"}) == 1
    assert registry.get_sample_value("naiad_client_in_flight", of_slow) == 0


def test_a_caller_that_is_not_sampled_is_continued_as_such(url):
    """The header says so, nothing is exported, the call works."""
    spans = Spans(sampler=ALWAYS_OFF)
    observer = OpenTelemetry(spans.provider)
    flags = observer.call(INFO).attempt("grpc://localhost:8001", 1)["traceparent"].rpartition("-")[2]
    assert int(flags, 16) & 1 == 0
    with Client(url, observers=[observer]) as triton:
        triton.infer("scale", X)
        with pytest.raises(ModelNotFound):
            triton.infer("scale", X, version=9)
    assert spans.exporter.get_finished_spans() == ()


def test_without_a_tracer_provider_calls_just_work(url):
    """As for an application that does not trace."""
    assert OpenTelemetry().call(INFO).attempt("grpc://localhost:8001", 1) == {}
    with Client(url, observers=[OpenTelemetry()]) as triton:
        assert triton.infer("scale", X).timing.num_attempts == 1


def test_another_propagator_may_carry_the_trace(url):
    """Its headers become lower-case, as gRPC has them, and the server takes them."""

    class Shouting(TextMapPropagator):
        def extract(self, carrier, context=None, getter=None):
            raise AssertionError("nothing is extracted here")

        def inject(self, carrier, context=None, setter=None):
            carrier["X-My-Trace"] = "12"

        @property
        def fields(self):
            return {"X-My-Trace"}

    observer = OpenTelemetry(Spans().provider, Shouting())
    assert observer.call(INFO).attempt("grpc://localhost:8001", 1) == {"x-my-trace": "12"}
    with Client(url, observers=[observer]) as triton:
        triton.infer("scale", X)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("grpc://gpu1:8001", ("gpu1", 8001)),
        ("grpcs://[::1]:8001", ("::1", 8001)),
        ("unix:///run/triton.sock", ("/run/triton.sock", None)),
    ],
)
def test_addresses_are_split_as_the_conventions_want(endpoint, expected):
    """Host and port; what has no port stays whole."""
    spans = Spans()
    call = OpenTelemetry(spans.provider).call(INFO)
    call.attempt(endpoint, 1)
    call.done(Timing(0.0, 0.0, 0.0, 0.0, 0.0, 0, ""), 0, None)
    (span,) = spans.exporter.get_finished_spans()
    assert (span.attributes["server.address"], span.attributes.get("server.port")) == expected


def test_calls_are_counted_by_model_method_and_status(url):
    """Latencies in seconds, bytes both ways, failures with their status; only the calls that there were."""
    registry = CollectorRegistry()
    with Client(url, observers=[Prometheus(registry)]) as triton:
        for _ in range(3):
            triton.infer("scale", X)
        triton.ready()
        with pytest.raises(ModelNotFound):
            triton.infer("scale", X, version=9)
    of_infer = {"model": "scale", "method": "ModelInfer"}
    counted = {
        tuple(sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "naiad_client_requests_total"
    }
    assert counted == {
        ("scale", "ModelInfer", "OK"): 3,
        ("scale", "ModelInfer", "NOT_FOUND"): 1,
        ("", "ServerReady", "OK"): 1,
    }
    assert registry.get_sample_value("naiad_client_request_seconds_count", of_infer) == 4
    assert 0 < registry.get_sample_value("naiad_client_request_seconds_sum", of_infer) < 60
    assert registry.get_sample_value("naiad_client_request_seconds_bucket", of_infer | {"le": "+Inf"}) == 4
    assert registry.get_sample_value("naiad_client_in_flight", of_infer) == 0
    assert registry.get_sample_value("naiad_client_sent_bytes_total", of_infer) > 4 * 12
    assert registry.get_sample_value("naiad_client_received_bytes_total", of_infer) > 3 * 12


def test_calls_in_flight_are_seen_while_they_are(url):
    """Until their deadline, where that is what ends them."""
    registry = CollectorRegistry()
    of_slow = {"model": "slow", "method": "ModelInfer"}
    with Client(url, observers=[Prometheus(registry)]) as triton:

        def call() -> None:
            with pytest.raises(DeadlineExceeded):
                triton.infer("slow", {"seconds": np.full(1, 60, np.float32)}, timeout_s=1.0)

        caller = threading.Thread(target=call)
        caller.start()
        eventually(lambda: registry.get_sample_value("naiad_client_in_flight", of_slow) == 1, "the call is counted")
        caller.join()
    assert registry.get_sample_value("naiad_client_in_flight", of_slow) == 0
    assert registry.get_sample_value("naiad_client_requests_total", of_slow | {"status": "DEADLINE_EXCEEDED"}) == 1


def test_a_call_that_runs_beside_its_caller_is_seen_from_its_start_to_its_end(url):
    """The span is a child of what was current when it left, and ends when the answer is fetched."""
    spans, registry = Spans(), CollectorRegistry()
    of_scale = {"model": "scale", "method": "ModelInfer"}
    with Client(url, observers=[OpenTelemetry(spans.provider), Prometheus(registry)]) as triton:
        with spans.provider.get_tracer("app").start_as_current_span("leave") as current:
            call = triton.model("scale").submit(X)
        assert spans.of("ModelInfer") == []
        assert registry.get_sample_value("naiad_client_in_flight", of_scale) == 1
        call.result()
        call.result()
    (span,) = spans.of("ModelInfer")
    assert span.parent.span_id == current.get_span_context().span_id
    assert span.attributes["rpc.response.status_code"] == "OK"
    assert registry.get_sample_value("naiad_client_in_flight", of_scale) == 0
    assert registry.get_sample_value("naiad_client_requests_total", of_scale | {"status": "OK"}) == 1


@pytest.mark.parametrize("left_early", [False, True])
def test_a_stream_is_one_call_until_it_is_over(url, left_early):
    """Its span lasts as long as it does, also where the caller leaves it."""
    spans, registry = Spans(), CollectorRegistry()
    of_parts = {"model": "parts", "method": "ModelStreamInfer"}
    with (
        Client(url, observers=[OpenTelemetry(spans.provider), Prometheus(registry)]) as triton,
        triton.model("parts").stream(n=[3], size=[1000]) as parts,
    ):
        next(parts)
        assert registry.get_sample_value("naiad_client_in_flight", of_parts) == 1
        assert spans.of("ModelStreamInfer") == []
        if not left_early:
            assert len(list(parts)) == 2
    (span,) = spans.of("ModelStreamInfer")
    assert span.attributes["rpc.response.status_code"] == "OK"
    assert span.attributes["naiad.response.size_bytes"] > (1000 if left_early else 3000)
    assert registry.get_sample_value("naiad_client_in_flight", of_parts) == 0
    assert registry.get_sample_value("naiad_client_requests_total", of_parts | {"status": "OK"}) == 1


def test_clients_may_share_a_registry(url):
    """They count together; other buckets than those of the first are refused."""
    registry = CollectorRegistry()
    with (
        Client(url, observers=[Prometheus(registry, buckets=(0.1, 1.0))]) as one,
        Client(url, observers=[Prometheus(registry, buckets=(0.1, 1.0))]) as other,
    ):
        one.live()
        other.live()
    labels = {"model": "", "method": "ServerLive", "status": "OK"}
    assert registry.get_sample_value("naiad_client_requests_total", labels) == 2
    with pytest.raises(InvalidInput, match=r"the buckets \(0\.1, 1\.0\)"):
        Prometheus(registry)


@pytest.mark.parametrize(
    ("module", "name", "package"),
    [
        ("opentelemetry", "OpenTelemetry", "opentelemetry-api"),
        ("prometheus_client", "Prometheus", "prometheus-client"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(module, name, package):
    """When the class is made, not when the module is imported: the other class works without it."""
    code = f"import sys; sys.modules[{module!r}] = None; from naiad.client import telemetry; telemetry.{name}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert error.startswith("ImportError: ")
    assert f"needs the package '{package}'" in error
    assert "pip install 'naiad[telemetry]'" in error

"""Results made by hand, for tests of everything that comes after the measurement."""

from __future__ import annotations

from typing import Any

from naiad.client import ModelMetadata, TensorMetadata
from naiad.loadtest import LoadTest, Report, ServerTimes
from naiad.loadtest.data import Signature
from naiad.loadtest.latencies import Latencies
from naiad.loadtest.measurement import Interval, Measurement
from naiad.loadtest.target import Target


def signature(*inputs: TensorMetadata, max_batch_size: int = 8, outputs: tuple[TensorMetadata, ...] = ()) -> Signature:
    metadata = ModelMetadata(name="m", versions=("1",), platform="onnx", inputs=inputs, outputs=outputs)
    return Signature(metadata=metadata, max_batch_size=max_batch_size)


def tensor(name: str, datatype: str, *shape: int) -> TensorMetadata:
    return TensorMetadata(name=name, datatype=datatype, shape=shape)


def interval(phase: Any, start_s: float, end_s: float, latencies_ms: list[float], **fields: Any) -> Interval:
    latencies = Latencies([round(latency * 1e6) for latency in latencies_ms])
    return Interval(phase=phase, start_s=start_s, end_s=end_s, users=4, latencies=latencies, **fields)


def server_times(**changed: Any) -> ServerTimes:
    fields = {
        "requests": 1000,
        "failures": 0,
        "inferences": 1000,
        "executions": 250,
        "cache_hits": 0,
        "total_us": 4000.0,
        "queue_us": 1000.0,
        "compute_input_us": 100.0,
        "compute_infer_us": 2500.0,
        "compute_output_us": 300.0,
        "in_flight": 4.0,
        "batches": {1: 50, 8: 200},
    }
    return ServerTimes(**{**fields, **changed})


def measurement(
    latencies_ms: list[float] | None = None,
    *,
    errors: dict[str, int] | None = None,
    server: ServerTimes | None = None,
    cpu_s: float = 0.1,
) -> Measurement:
    """One second of 4 users: 1000 requests of 1 … 10 ms, unless other latencies are given."""
    values = [1 + index % 1000 * 0.009 for index in range(1000)] if latencies_ms is None else latencies_ms
    examples = {name: f"what {name} says" for name in errors or {}}
    window = interval("window", 1.0, 2.0, values, errors=errors or {}, examples=examples, cpu_s=cpu_s)
    return Measurement.of([window], rows_per_request=1, server=server or server_times())


def report(measured: Measurement | None = None, test: LoadTest | None = None, **fields: Any) -> Report:
    target = Target(signature=signature(tensor("x", "FP32", -1, 8)), server_version="2.51.0", backend="onnxruntime")
    return Report(
        test=test or LoadTest(model="m", users=4, duration_s=1),
        target=target,
        measurement=measured or measurement(),
        **fields,
    )

"""Results made by hand, for tests of everything that comes after the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from naiad.client import ModelMetadata, TensorMetadata
from naiad.loadtest import LoadTest, Measurement, Report, ServerTimes, Slo, Traffic, Users
from naiad.loadtest._data.signature import Signature
from naiad.loadtest._data.target import Target
from naiad.loadtest._engine.messages import Interval
from naiad.loadtest._truth.slots import SLOT_S
from naiad.loadtest.latencies import Latencies

TEST = LoadTest(traffic=Traffic(model="m"), load=Users(users=4), duration_s=1)


def signature(*inputs: TensorMetadata, max_batch_size: int = 8, outputs: tuple[TensorMetadata, ...] = ()) -> Signature:
    metadata = ModelMetadata(name="m", versions=("1",), platform="onnx", inputs=inputs, outputs=outputs)
    return Signature(metadata=metadata, max_batch_size=max_batch_size)


def tensor(name: str, datatype: str, *shape: int) -> TensorMetadata:
    return TensorMetadata(name=name, datatype=datatype, shape=shape)


TARGET = Target(signature=signature(tensor("x", "FP32", -1, 8)), server_version="2.51.0", backend="onnxruntime")


def histogram(latencies_ms: Sequence[float]) -> Latencies:
    return Latencies([round(latency * 1e6) for latency in latencies_ms])


def interval(start_s: float, end_s: float, latencies_ms: Sequence[float], **fields: Any) -> Interval:
    """One stretch of an engine with 4 users, whose requests left when they should have."""
    latencies = histogram(latencies_ms)
    given = {"service": latencies, "users": 4, "sent": latencies.count, "responses": latencies.count, **fields}
    return Interval(start_s=start_s, end_s=end_s, latencies=latencies, **given)


def quarters(start_s: float, end_s: float, latencies_ms: Sequence[float], **fields: Any) -> list[Interval]:
    """The same in quarter seconds, as engines say it: each has every k-th of the latencies, the last one the errors."""
    num = round((end_s - start_s) / SLOT_S)
    rest = {name: fields.pop(name) for name in ("errors", "examples") if name in fields}
    cpu_s = fields.pop("cpu_s", 0.0) / num
    return [
        interval(
            start_s + index * SLOT_S,
            start_s + (index + 1) * SLOT_S,
            latencies_ms[index::num],
            cpu_s=cpu_s,
            **fields,
            **(rest if index == num - 1 else {}),
        )
        for index in range(num)
    ]


def measured(*intervals: Interval, start_s: float, end_s: float, test: LoadTest = TEST, **fields: Any) -> Measurement:
    """What a window of these intervals measured."""
    samples = fields.pop("samples", ())
    return Measurement.of(test, (TARGET,) * len(test.mix), intervals, samples, window=(start_s, end_s), **fields)


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
    latencies_ms: Sequence[float] | None = None,
    *,
    errors: dict[str, int] | None = None,
    server: ServerTimes | None = None,
    cpu_s: float = 0.1,
    slos: Sequence[Slo] = (),
    test: LoadTest = TEST,
    **fields: Any,
) -> Measurement:
    """One second of 4 users: 1000 requests of 1 … 10 ms, unless other latencies are given."""
    values = [1 + index % 1000 * 0.009 for index in range(1000)] if latencies_ms is None else latencies_ms
    examples = {name: f"what {name} says" for name in errors or {}}
    window = quarters(1.0, 2.0, values, errors=errors or {}, examples=examples, cpu_s=cpu_s, **fields)
    found = measured(*window, start_s=1.0, end_s=2.0, test=replace(test, slos=tuple(slos)))
    return replace(found, server=server or server_times())


def report(measured: Measurement | None = None, test: LoadTest | None = None, **fields: Any) -> Report:
    return Report(test=test or TEST, targets=(TARGET,), measurement=measured or measurement(), **fields)

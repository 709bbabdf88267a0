"""Texts that can be recognised, sent in every way that there is, and a search for them in all that is written."""

import json
import logging
import secrets
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import prometheus_client
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from naiad.cli.demo.service import RunningService
from naiad.client import Client, ClientError, Retry
from naiad.client.telemetry import OpenTelemetry, Prometheus
from naiad.export import export_pipeline
from naiad.export.steps import Function, Model
from pipeline_helpers import net, texts

CLASSIFIER = "text_classifier"
DESCRIPTION = f"""
name = "private"
[limits]
request_mb = 1
[[identities]]
name = "caller"
rights = {{ infer = ["{CLASSIFIER}", "careless", "missing*"], observe = ["*"] }}
[[identities]]
name = "stranger"
rights = {{ infer = ["images"] }}
"""
Inputs = dict[str, np.ndarray[Any, Any]]


def careless(text: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The length of texts; what it cannot do, it says with the text."""
    for row in text.ravel():
        words = row.decode() if isinstance(row, bytes) else str(row)
        if words.startswith("refuse"):
            raise ValueError(f"cannot read {words!r}")
        if words.startswith("break"):
            raise RuntimeError(f"broke at {words!r}")
    return {"vector": np.array([[float(len(row))] for row in text.ravel()], np.float32)}


RAISES = """
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            raise RuntimeError(str(pb_utils.get_input_tensor_by_name(requests[0], "text").as_numpy()[0, 0]))
"""
"""A model of somebody's own that raises, instead of answering with an error."""


def publish_careless(repository: Path) -> None:
    """Add a pipeline whose first step repeats texts in its errors."""
    with tempfile.TemporaryDirectory() as folder:
        steps = [Function("read", careless), Model("net", net(Path(folder)))]
        export_pipeline(steps, "careless", repository=repository, samples=texts(), max_batch_size=5)


def column(*rows: str | bytes) -> Inputs:
    """Texts as an input."""
    return {"text": np.array([[row if isinstance(row, bytes) else row.encode()] for row in rows], object)}


@dataclass
class Telemetry:
    """What an application may keep of its calls: spans, metrics, and a log of all loggers at DEBUG."""

    folder: Path
    spans: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    registry: prometheus_client.CollectorRegistry = field(default_factory=prometheus_client.CollectorRegistry)

    def observers(self) -> list[Any]:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        return [OpenTelemetry(provider), Prometheus(self.registry)]

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Everything that is logged goes to `python.log`."""
        handler = logging.FileHandler(self.folder / "python.log")
        root = logging.getLogger()
        level = root.level
        # Which here is somebody's own program that calls by HTTP, and logs the addresses that it asks.
        handler.addFilter(lambda record: record.name != "httpx")
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
            handler.close()

    def write(self) -> None:
        """Put spans and metrics beside the log."""
        spans = self.spans.get_finished_spans()
        (self.folder / "spans.json").write_text("\n".join(span.to_json() for span in spans))
        (self.folder / "client-metrics").write_bytes(prometheus_client.generate_latest(self.registry))


@dataclass(frozen=True)
class Sender:
    """Sends texts that hold a token in every way, also such that fail; keeps what the callers were told."""

    token: str = field(default_factory=lambda: f"marker{secrets.token_hex(10)}")
    told: dict[tuple[str, str], str] = field(default_factory=dict)

    def cases(self) -> dict[str, tuple[str, Inputs]]:
        """Models and inputs, by what is odd about them."""
        text = f"the {self.token} of words"
        return {
            "fine": (CLASSIFIER, column(text)),
            "long": (CLASSIFIER, column(text + " word" * 100_000)),
            "not UTF-8": (CLASSIFIER, column(text.encode() + b"\xff")),
            "too large": (CLASSIFIER, column(text + "x" * 2_000_000)),
            "unknown model": ("missing", column(text)),
            "wrong shape": (CLASSIFIER, {"text": column(text)["text"][0]}),
            "wrong type": (CLASSIFIER, {"text": np.frombuffer(text.encode(), np.uint8)[None]}),
            "wrong name": (CLASSIFIER, {"words": column(text)["text"]}),
            "no value of a type": (CLASSIFIER, {"text": np.array([[text], [object()]], object)}),
            "refused by a step": ("careless", column(f"refuse {text}")),
            "exception in a step": ("careless", column(f"break {text}")),
        }

    def by_grpc(self, who: str, client: Client) -> None:
        """Each case as it is, and checked by the client before it is sent."""
        for name, (model, inputs) in self.cases().items():
            for checked in (False, True):
                try:
                    answer = client.model(model).infer(inputs) if checked else client.infer(model, inputs)
                    self.told[who, name] = str(answer)
                except (ClientError, TypeError, ValueError) as exc:
                    self.told[who, name] = str(exc)

    def by_http(self, url: str, headers: dict[str, str], trust: ssl.SSLContext | bool) -> None:
        """JSON that is right, that is none, in a query, and beyond the limit."""
        tensor = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [self.token]}
        path = f"{url}/v2/models/{CLASSIFIER}/infer"
        with httpx.Client(headers=headers, verify=trust, trust_env=False, timeout=30) as http:
            assert http.post(path, json={"inputs": [tensor]}).status_code == 200
            for body in (f'{{"inputs": [{{"data": ["{self.token}"', self.token, self.token * 200_000):
                assert http.post(path, content=body).status_code >= 400
            assert http.post(f"{path}?text={self.token}", json={"inputs": [tensor]}).status_code >= 400
            assert http.post(path, json={"inputs": [{**tensor, "datatype": "FP32"}]}).status_code >= 400


def call_everything(sender: Sender, service: RunningService, telemetry: Telemetry) -> None:
    """Send all cases through the gateway, with and without rights, and past it to a replica."""
    options = {"observers": telemetry.observers(), "retry": Retry(attempts=1)}
    for identity in ("caller", "stranger", ""):
        with service.client(identity, **options) as client:
            sender.by_grpc(identity or "nobody", client)
    replica = next(iter(service.replicas.values()))
    with Client(replica.grpc_url, **options) as client:
        sender.by_grpc("replica", client)
    trust = ssl.create_default_context(cafile=str(service.authority))
    sender.by_http(service.http_url, service.credential("caller"), trust)


def keep_what_goes_with_it(service: RunningService, folder: Path) -> None:
    """Copy what the service removes at its end: Envoy's log, metrics, and what lies in private directories."""
    shutil.copy(service.stack.gateway.log_path, folder / "envoy.log")
    for name, url in {"gateway": service.metrics_url, **_metrics_urls(service)}.items():
        (folder / f"metrics-{name}").write_text(httpx.get(url, trust_env=False, timeout=10).text)


def _metrics_urls(service: RunningService) -> dict[str, str]:
    return {name: replica.metrics_url for name, replica in service.replicas.items()}


def found_in(words: str, *places: Path) -> list[str]:
    """Files below these places that hold the words, as bytes."""
    wanted, found = words.encode(), []
    for place in places:
        for path in (place, *place.rglob("*")):
            if path.is_file() and not path.is_symlink() and wanted in _content(path):
                found.append(str(path))
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone meanwhile, or somebody else's
        return b""


def requests_of(folder: Path, sender: Sender) -> Path:
    """Requests of a load test: one that is answered, as JSON lines."""
    path = folder / "requests.jsonl"
    path.write_text(json.dumps({"text": [f"the {sender.token} of words"]}) + "\n")
    return path

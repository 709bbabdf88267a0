"""Talks to one Triton over HTTP on loopback: readiness, model control, statistics, and the canary inference."""

import http.client
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from naiad.server._command import Ports, admin_headers
from naiad.server._log import reason_in
from naiad.server._ports import LOOPBACK
from naiad.server._repository import check_model_name
from naiad.server.errors import AdminRefused, Unreachable

_QUICK_S: Final = 5.0
_METRICS_S: Final = 0.5
_LOAD_S: Final = 600.0
_OK: Final = 200
_FORBIDDEN: Final = 403
_PENDING: Final = re.compile(r'^nv_inference_pending_request_count{model="([^"]*)"[^}]*} (\S+)$', re.MULTILINE)


class Stranger(Exception):
    """Somebody else's server answers on our port: our secret is not its."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStatus:
    """One line of the repository index."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Requests of one model since it was loaded, over all of its versions."""

    succeeded: int
    failed: int


class Admin:
    """Control calls to one server; every call has a time-out and its own connection."""

    def __init__(self, ports: Ports, secret: str) -> None:
        self._port = ports.http
        self._metrics_port = ports.metrics
        self._headers = {**admin_headers(secret), "Content-Type": "application/json"}

    def is_live(self) -> bool:
        """Whether the server answers. Triton opens its ports only when it has tried to load every model."""
        try:
            return self._call("GET", "/v2/health/live", timeout_s=_QUICK_S)[0] == _OK
        except Unreachable:
            return False

    def serves_metrics(self) -> bool:
        """Whether metrics can be had, too."""
        try:
            return self._call("GET", "/metrics", timeout_s=_METRICS_S, port=self._metrics_port)[0] == _OK
        except Unreachable:
            return False

    def index(self) -> tuple[ModelStatus, ...]:
        """All models that the server knows. Raises `Unreachable`, `Stranger`."""
        status, body = self._call("POST", "/v2/repository/index", b"{}")
        if status == _FORBIDDEN:
            raise Stranger
        entries: list[Mapping[str, str]] = json.loads(body)
        return tuple(
            ModelStatus(
                name=entry["name"],
                version=entry.get("version", ""),
                state=entry.get("state", ""),
                reason=reason_in(entry.get("reason", "")),
            )
            for entry in entries
        )

    def ready_models(self) -> frozenset[str]:
        """Names of the models that have a version that is served."""
        return frozenset(status.name for status in self.index() if status.state == "READY")

    def load(self, model: str, config: Mapping[str, Any] | None = None) -> None:
        """Load a model, or load it again; the former state serves until the new one is ready.

        `config` replaces the configuration on disk until the next load. Raises `AdminRefused`, `Unreachable`.
        """
        check_model_name(model)
        body = {"parameters": {"config": json.dumps(config)}} if config else {}
        self._demand(model, "load", f"/v2/repository/models/{model}/load", body)

    def unload(self, model: str) -> None:
        """Stop serving a model. Raises `AdminRefused`, `Unreachable`."""
        check_model_name(model)
        self._demand(model, "unload", f"/v2/repository/models/{model}/unload", {})

    def config(self, model: str) -> dict[str, Any]:
        """The configuration as served. Raises `AdminRefused`, `Unreachable`."""
        status, body = self._call("GET", f"/v2/models/{model}/config")
        if status != _OK:
            raise AdminRefused(f"Model {model!r} has no configuration: {_error(body)}", model=model, status=status)
        config: dict[str, Any] = json.loads(body)
        return config

    def counts(self) -> dict[str, Counts]:
        """Requests so far, by model. Raises `Unreachable`."""
        _, body = self._call("GET", "/v2/models/stats")
        totals: dict[str, Counts] = {}
        for entry in json.loads(body).get("model_stats", ()):
            stats, before = entry["inference_stats"], totals.get(entry["name"], Counts(succeeded=0, failed=0))
            totals[entry["name"]] = Counts(
                succeeded=before.succeeded + stats["success"]["count"],
                failed=before.failed + stats["fail"]["count"],
            )
        return totals

    def num_pending(self) -> dict[str, int]:
        """Requests that wait for an instance, by model. Raises `Unreachable`."""
        _, body = self._call("GET", "/metrics", timeout_s=_METRICS_S, port=self._metrics_port)
        waiting: Counter[str] = Counter()
        for model, number in _PENDING.findall(body.decode(errors="replace")):
            waiting[model] += int(float(number))
        return waiting

    def infer(self, model: str, header: Mapping[str, Any], payloads: Iterable[bytes], timeout_s: float) -> str:
        """Send one request with binary tensors; returns "" or the server's error. Raises `Unreachable`."""
        head = json.dumps(header).encode()
        status, body = self._call(
            "POST",
            f"/v2/models/{model}/infer",
            head + b"".join(payloads),
            headers={"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"},
            timeout_s=timeout_s,
        )
        return "" if status == _OK else _error(body) or f"HTTP {status}"

    def _demand(self, model: str, verb: str, path: str, body: Mapping[str, Any]) -> None:
        status, answer = self._call("POST", path, json.dumps(body).encode(), timeout_s=_LOAD_S)
        if status != _OK:
            raise AdminRefused(
                f"Triton could not {verb} model {model!r}: {reason_in(_error(answer))}", model=model, status=status
            )

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = _QUICK_S,
        port: int | None = None,
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, port or self._port, timeout=timeout_s)
        try:
            connection.request(method, path, body=body, headers={**self._headers, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise Unreachable(f"Triton did not answer {method} {path}: {exc}") from exc
        finally:
            connection.close()


def _error(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()

"""A text classifier as a service: encrypted, for callers with a key and the right, audited and watched."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from naiad.cli.demo.monitoring import Prometheus, measure, prometheus
from naiad.cli.demo.service import RunningService, serve_behind_gateway

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage

__all__ = ["show_service"]

CALLER: Final = "support-desk"
STRANGER: Final = "image-search"
DESCRIPTION: Final = """\
name = "text-service"
tls = true

[limits]
request_mb = 1

[[identities]]
name = "{caller}"                      # may ask this model, and read its metadata
rights = {{ infer = ["{model}"] }}

[[identities]]
name = "{stranger}"                      # has a key, and no right to it
rights = {{ infer = ["images"] }}

[[objectives]]
model = "{model}"
p99_ms = 500
error_percent = 1
"""
_ALERT: Final = "AuthenticationFailures"
_REFUSED: Final = 500
"""Calls without a key in a moment: the alert is about more than one a second, over five minutes."""
_ALERT_TIMEOUT_S: Final = 30.0
_TIMEOUT_S: Final = 30.0
_UNAUTHENTICATED: Final = 'envoy_naiad_identity_requests{grpc_code="16"}'
_AUDITED: Final = ("time", "request_id", "identity", "model", "denied", "status", "bytes_in", "duration_ms", "replica")
_NO_ERROR: Final = "OK"


class _Answer(NamedTuple):
    """What a caller got by gRPC and by HTTP."""

    grpc: str
    http: int


_CALLS: Final = {
    "": ("without a key", _Answer("UNAUTHENTICATED", 401)),
    STRANGER: ("with a key that has no right to it", _Answer("PERMISSION_DENIED", 403)),
    CALLER: ("with the right key", _Answer(_NO_ERROR, 200)),
}


def show_service(stage: Stage, model: str, inputs: Mapping[str, Any], **load: Any) -> None:
    """Serve ``model`` by two replicas behind the gateway; call it, look at the audit log, load-test and watch it.

    Args:
        stage: Its repository holds the model; the access log goes to its folder.
        model: What callers ask.
        inputs: A request of one row, by the inputs' names.
        load: Options of `Stage.load_test`, as where its requests come from.
    """
    description = DESCRIPTION.format(model=model, caller=CALLER, stranger=STRANGER)
    log = stage.folder / "access.jsonl"
    with serve_behind_gateway(stage, model, description=description, access_log=log) as service:
        stage.summary.paths["access log"] = log
        with prometheus(stage, service) as watching:
            _call(stage, service, model, inputs)
            if watching is not None:
                _provoke(stage, service, watching, model)
            report = stage.load_test(service.grpc_url, report="gateway", **{**service.load_options(CALLER), **load})
            measure(stage, service, model, watching, num_requests=report.to_json()["results"]["completed"])
            _look_for_the_alert(stage, watching)


def _call(stage: Stage, service: RunningService, model: str, inputs: Mapping[str, Any]) -> None:
    """Make the three calls by gRPC and by HTTP; show what was answered, and what the audit log has of them."""
    rows: list[dict[str, str]] = []
    request_ids = {identity: str(uuid.uuid4()) for identity in _CALLS}
    with stage.step("call it without a key, with one that has no right to it, with the right one") as done:
        for identity, (who, expected) in _CALLS.items():
            ask = _Caller(service, identity, {"x-request-id": request_ids[identity]})
            found = _Answer(ask.by_grpc(model, inputs), ask.by_http(model, inputs))
            rows.append({"caller": who, "gRPC": found.grpc, "HTTP": str(found.http)})
            stage.summary.check(found == expected, f"a call {who} was answered {found}, expected {expected}")
        done(", ".join(row["gRPC"] for row in rows))
    stage.summary.table("Who may call", rows, calls=rows)
    _audit(stage, service, request_ids)


def _audit(stage: Stage, service: RunningService, request_ids: Mapping[str, str]) -> None:
    """Show the lines of the access log that the callers' request ids find."""
    with stage.step("look these calls up in the access log") as done:
        lines = [service.wait_for_request(request_id, path="/v2/") for request_id in request_ids.values()]
        done(f"{len([line for line in lines if line])} found")
    stage.summary.check(all(lines), "the access log has no line for one of the calls")
    names = (
        "time",
        "request_id",
        "identity",
        "model",
        "right",
        "denied",
        "status",
        "bytes_in",
        "duration_ms",
        "replica",
    )
    rows = [{name: line.get(name) for name in names} for line in lines]
    for identity, row in zip(request_ids, rows, strict=True):
        stage.summary.check(row["identity"] == (identity or None), f"the access log takes {identity} for somebody else")
    shown = [{name: _cell(row[name]) for name in ("identity", "model", "denied", "status", "replica")} for row in rows]
    stage.summary.table("What the access log has of them", shown, audit=rows)


def _cell(value: object) -> str:
    return "–" if value is None else str(value)


class _Caller(NamedTuple):
    """Somebody with the key of an identity, or without one."""

    service: RunningService
    identity: str
    headers: Mapping[str, str]

    def by_grpc(self, model: str, inputs: Mapping[str, Any]) -> str:
        """Return the gRPC status of an inference."""
        from naiad.client import ClientError, Retry

        with self.service.client(self.identity, metadata=self.headers, retry=Retry(attempts=1)) as client:
            try:
                client.infer(model, inputs)
            except ClientError as exc:
                return exc.status or type(exc).__name__
        return _NO_ERROR

    def by_http(self, model: str, inputs: Mapping[str, Any]) -> int:
        """Return the status of the same as KServe's REST call, in plain JSON."""
        import httpx

        headers = {**self.headers, **self.service.credential(self.identity)}
        tensors = [
            {"name": name, "shape": list(array.shape), "datatype": _datatype(array), "data": _data(array)}
            for name, array in inputs.items()
        ]
        trust = ssl.create_default_context(cafile=str(self.service.authority))
        url = f"{self.service.http_url}/v2/models/{model}/infer"
        return httpx.post(
            url, json={"inputs": tensors}, headers=headers, verify=trust, trust_env=False, timeout=_TIMEOUT_S
        ).status_code


def _datatype(array: Any) -> str:
    return "BYTES" if array.dtype.kind in "OSU" else f"FP{8 * array.dtype.itemsize}"


def _data(array: Any) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]


def _provoke(stage: Stage, service: RunningService, watching: Prometheus, model: str) -> None:
    """Call without a key often enough that an operator should hear of it."""
    from naiad.client import ClientError, Retry

    with stage.step(f"call {_REFUSED} times without a key") as done, service.client(retry=Retry(attempts=1)) as client:
        # A counter that Prometheus sees for the first time has not grown yet.
        watching.wait_for(_UNAUTHENTICATED, timeout_s=_ALERT_TIMEOUT_S)
        refused = 0
        for _ in range(_REFUSED):
            try:
                client.ready(model)
            except ClientError:
                refused += 1
        done(f"{refused} refused")


def _look_for_the_alert(stage: Stage, watching: Prometheus | None) -> None:
    if watching is None:
        stage.summary.row("alert", "none was tried without Prometheus")
        return
    with stage.step(f"wait for the alert {_ALERT}"):
        fired = watching.wait_for(f'ALERTS{{alertname="{_ALERT}",alertstate="firing"}}', timeout_s=_ALERT_TIMEOUT_S)
    text = f"{_ALERT} fires after {_REFUSED} calls without a key" if fired else f"{_ALERT} does not fire"
    stage.summary.row("alert", text, alert_fired=bool(fired))
    stage.summary.check(bool(fired), f"the alert {_ALERT} did not fire after {_REFUSED} calls without a key")

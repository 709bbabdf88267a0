"""What callers read when the gateway itself answers, and what its log and its metrics say about each request."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from deploy_helpers import endpoint
from gateway_helpers import INFER, channel, infer_message, log_lines, open_service, status_of
from launcher_helpers import eventually
from naiad.deploy.gateway import Gateway
from naiad.deploy.place import Endpoint
from naiad.deploy.service import Limits
from naiad.server import EmbeddedTriton

LIMITS = Limits(response_timeout_s=1.0, request_mb=1.0, header_kb=16)
SLOW = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [3, 3]}]}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PATH = "/v2/models/identity"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A gateway with narrow limits before a real server, and its log."""

    gateway: Gateway
    log: Path

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.gateway.http_url + path, timeout=20, **options)

    def calm(self) -> None:
        """Return when the servers have done what they were given, also what nobody waits for any more."""
        with channel(self.gateway.grpc_url) as opened:
            eventually(lambda: {status_of(opened, infer_message()) for _ in range(6)} == {"OK"}, "both answer", 20)

    def line(self, request_id: str) -> dict[str, Any]:
        """The line of a request, as soon as it is written."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [line for line in log_lines(self.log) if line.get("request_id") == request_id]
            return bool(found)

        eventually(is_there, f"a line of {request_id}", 20)
        assert len(found) == 1
        return found[0]


@pytest.fixture(scope="module")
def setting(
    tritons: tuple[EmbeddedTriton, EmbeddedTriton], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setting]:
    log = tmp_path_factory.mktemp("answers") / "access.log"
    members = {"main": [endpoint(f"main-{number}", triton) for number, triton in enumerate(tritons)]}
    with Gateway(open_service(limits=LIMITS), endpoints=members, access_log=log) as gateway:
        yield Setting(gateway=gateway, log=log)


@pytest.mark.parametrize("timeout_s", [0.3, 20.0])
def test_a_late_answer_is_a_deadline_by_grpc(setting: Setting, timeout_s: float) -> None:
    """Whether the caller's deadline or the service's comes first, the caller reads DEADLINE_EXCEEDED."""
    with channel(setting.gateway.grpc_url) as opened:
        status = status_of(opened, infer_message(seconds=3), timeout_s=timeout_s)
    assert status == "DEADLINE_EXCEEDED"


def test_a_late_answer_is_504_by_http(setting: Setting) -> None:
    """With a short JSON body that says why."""
    answer = httpx.post(f"{setting.gateway.http_url}{PATH}/infer", json=SLOW, timeout=20)
    assert answer.status_code == 504
    assert "gives up after 1 s" in answer.json()["error"]


def test_a_caller_cannot_choose_the_gateways_time_outs_or_retries(setting: Setting) -> None:
    """Envoy's own headers are removed, also from callers on private addresses."""
    headers = {"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-upstream-rq-per-try-timeout-ms": "1"}
    for _ in range(20):
        answer = setting.get(PATH, headers=headers)
        assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("x-envoy") or name == "server"]


def test_a_large_request_is_refused_by_both_protocols(setting: Setting) -> None:
    """RESOURCE_EXHAUSTED and 413, also if its length is not announced; just below the limit it passes."""
    with channel(setting.gateway.grpc_url) as opened:
        assert status_of(opened, infer_message(extra_bytes=3 << 20)) == "RESOURCE_EXHAUSTED"
        assert status_of(opened, infer_message(extra_bytes=(1 << 20) - 100)) == "INVALID_ARGUMENT"  # Triton's own
    chunks = (bytes(1 << 16) for _ in range(48))
    answer = httpx.post(f"{setting.gateway.http_url}{PATH}/infer", content=chunks, timeout=20)
    assert answer.status_code == 413
    assert "error" in answer.json()


@pytest.mark.parametrize("headers", [{"x-large": "a" * 20_000}, {f"x-{number}": "" for number in range(150)}])
def test_large_or_many_headers_are_refused(setting: Setting, headers: dict[str, str]) -> None:
    """431 with JSON, before anything else looks at the request."""
    answer = setting.get(PATH, headers=headers)
    assert answer.status_code == 431
    assert "headers" in answer.json()["error"]


def test_an_escaped_slash_is_refused(setting: Setting) -> None:
    """A path that two programs could read differently is none."""
    answer = setting.get("/v2/models%2fidentity")
    assert (answer.status_code, answer.json()) == (400, {"error": "the request is malformed"})


def test_healthz_needs_no_identity_and_follows_the_replicas(setting: Setting) -> None:
    """200 with a healthy replica, 503 without; it is no line in the log."""
    assert setting.get("/healthz", headers={"x-request-id": "health"}).status_code == 200
    before = dict(setting.gateway.endpoints)
    gone = {"main": [Endpoint(name="main-0", host="127.0.0.1", grpc_port=1, http_port=1)]}
    setting.gateway.reload(setting.gateway.service, gone)
    eventually(lambda: setting.get("/healthz").status_code == 503, "healthz tells that no replica is healthy", 20)
    answer = setting.get(PATH)
    assert (answer.status_code, answer.json()) == (503, {"error": "no replica can answer now; try again"})
    setting.gateway.reload(setting.gateway.service, before)
    eventually(lambda: setting.get("/healthz").status_code == 200, "healthz tells that the replicas are back", 20)
    assert not [line for line in log_lines(setting.log) if line.get("request_id") == "health"]


def test_the_log_says_who_did_what(setting: Setting) -> None:
    """One line with the fields of the audit trail; the caller's request and trace ids are kept."""
    setting.calm()
    metadata = [("x-request-id", "one"), ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")]
    with channel(setting.gateway.grpc_url) as opened:
        assert status_of(opened, infer_message(), metadata=metadata) == "OK"
    line = setting.line("one")
    expected = {
        "identity": "anonymous",
        "model": "identity",
        "right": "infer",
        "denied": None,
        "method": "POST",
        "path": INFER,
        "protocol": "HTTP/2",
        "status": 200,
        "grpc_status": 0,
        "attempts": 1,
        "pool": "main-grpc",
        "trace_id": TRACE,
    }
    assert {key: line[key] for key in expected} == expected
    assert line["bytes_in"] == len(infer_message()) + 5
    assert line["bytes_out"] > 0
    assert line["replica"] in ("main-0", "main-1")
    assert line["client"].startswith("127.0.0.1:")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


@pytest.mark.timeout(60)
def test_the_log_has_no_query_and_no_credential(setting: Setting) -> None:
    """What a caller sends as a secret is in no line."""
    setting.get(f"{PATH}?key=secret-in-query", headers={"x-request-id": "two", "cookie": "secret-cookie"})
    assert setting.line("two")["path"] == PATH
    assert "secret-" not in setting.log.read_text()


def test_metrics_count_by_model_and_identity(setting: Setting) -> None:
    """The names that dashboards use; a model that does not exist gets no series of its own."""
    setting.calm()
    with channel(setting.gateway.grpc_url) as opened:
        before = metrics(setting)
        for _ in range(5):
            assert status_of(opened, infer_message()) == "OK"
        assert status_of(opened, infer_message("made-up")) == "NOT_FOUND"
    setting.get("/v2/models/made-up-too")
    ok = '{model="identity",right="infer",cluster="main-grpc",code="200",grpc_code="0"}'
    by_identity = 'envoy_naiad_identity_requests{identity="anonymous",code="200",grpc_code="0"}'
    eventually(lambda: metrics(setting)[by_identity] == before.get(by_identity, 0) + 5, "five more requests", 20)
    after = metrics(setting)
    assert after[f"envoy_naiad_requests{ok}"] == before.get(f"envoy_naiad_requests{ok}", 0) + 5
    count = 'envoy_naiad_request_duration_us_count{model="identity",right="infer"}'
    eventually(lambda: metrics(setting).get(count, 0) >= 5, "the histogram has the requests", 20)
    bucket = 'envoy_naiad_request_duration_us_bucket{model="identity",right="infer",le="250"}'
    assert bucket in metrics(setting)
    assert after['envoy_naiad_request_bytes{model="identity"}'] > 0
    assert after['envoy_naiad_response_bytes{model="identity"}'] > 0
    assert not [name for name in after if "made-up" in name]


def metrics(setting: Setting) -> dict[str, float]:
    text = httpx.get(setting.gateway.metrics_url, timeout=20).text
    pairs = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


@pytest.mark.parametrize("path", ["/", "/stats", "/quitquitquit", "/config_dump", "/metrics/../config_dump"])
def test_the_metrics_port_shows_nothing_else_of_the_administration(setting: Setting, path: str) -> None:
    """Whoever may scrape can neither read the configuration nor end the gateway."""
    root = setting.gateway.metrics_url.removesuffix("/metrics")
    assert httpx.get(root + path, timeout=20).status_code == 404
    assert httpx.post(root + "/metrics", timeout=20).status_code == 404


def test_overload_is_resource_exhausted(tritons: tuple[EmbeddedTriton, EmbeddedTriton], tmp_path: Path) -> None:
    """Beyond the requests that may wait, further ones are refused at once, and say so."""
    service = open_service(limits=Limits(num_pending=2))
    with (
        Gateway(service, endpoints={"main": [endpoint("main-0", tritons[0])]}) as gateway,
        channel(gateway.grpc_url) as opened,
    ):
        infer = opened.unary_unary(INFER)
        waiting = [infer.future(infer_message(seconds=2), timeout=20) for _ in range(2)]
        eventually(lambda: gateway.active_requests("main-0") == 2, "both are with the replica", 20)
        with pytest.raises(grpc.RpcError) as refused:
            infer(infer_message(), timeout=20)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the service is full" in refused.value.details()
        answer = httpx.get(gateway.http_url + PATH, timeout=20)  # a limit of its own
        assert json.loads(answer.content)["name"] == "identity"
        assert all(future.result() for future in waiting)

"""How often and how much: each identity has its own limits, and who exceeds them disturbs nobody else."""

from collections.abc import Iterator

import pytest

from naiad.deploy.service import Rights
from recording_upstream import RecordingUpstream
from security_setting import Setting, infer, make_service, make_setting


@pytest.fixture
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A gateway whose buckets are full."""
    with RecordingUpstream() as upstream:
        service = make_service(anonymous=Rights(infer=("digits",)), anonymous_requests_per_s=0.01)
        setting = make_setting(tmp_path_factory.mktemp("limits"), upstream, service)
        with setting.gateway:
            yield setting


def test_who_asks_too_often_is_refused(setting: Setting) -> None:
    """One request passes, the next is one too many; others go on."""
    key = [("x-api-key", setting.keys["slow"])]
    assert setting.grpc("often", "ModelInfer", infer(), key) == "grpc 0"
    assert setting.grpc("often", "ModelInfer", infer(), key) == "grpc 8"
    setting.logged("often", identity="slow", grpc_status=8, details="local_rate_limited")
    assert setting.http("often-http", "POST /v2/models/digits/infer", key, b"{}") == "http 429"
    setting.logged("often-http", identity="slow", status=429)
    assert len(setting.upstream.arrivals) == 1
    assert setting.grpc("often", "ModelInfer", infer(), [("x-api-key", setting.keys["reader"])]) == "grpc 0"


def test_what_is_refused_costs_nothing(setting: Setting) -> None:
    """A request that may not pass takes nothing of the identity's rate."""
    key = [("x-api-key", setting.keys["slow"])]
    for _ in range(3):
        assert setting.grpc("refused", "ModelInfer", infer("other"), key) == "grpc 7"
    assert setting.grpc("refused", "ModelInfer", infer(), key) == "grpc 0"


def test_all_anonymous_callers_share_a_rate(setting: Setting) -> None:
    """And those with an identity have their own."""
    assert setting.grpc("first", "ModelInfer", infer()) == "grpc 0"
    assert setting.grpc("second", "ModelInfer", infer()) == "grpc 8"
    setting.logged("second", identity="anonymous", details="local_rate_limited")
    assert setting.grpc("third", "ModelInfer", infer(), [("x-api-key", setting.keys["reader"])]) == "grpc 0"


@pytest.mark.parametrize(("identity", "largest"), [("small", 10_000), ("reader", 2_090_000)])
def test_the_largest_request_passes_and_a_larger_one_does_not(setting: Setting, identity: str, largest: int) -> None:
    """Whether its size is announced (HTTP/1.1) or not (gRPC)."""
    key = [("x-api-key", setting.keys[identity])]
    assert setting.grpc("fits", "ModelInfer", infer(raw_input_contents=[bytes(largest)]), key) == "grpc 0"
    assert setting.grpc("large", "ModelInfer", infer(raw_input_contents=[bytes(largest + 10_000)]), key) == "grpc 8"
    json = b'{"inputs": []}'
    binary = [*key, ("inference-header-content-length", str(len(json)))]
    path = "POST /v2/models/digits/infer"
    assert setting.http("fits", path, binary, json + bytes(largest)) == "http 200"
    assert setting.http("large", path, binary, json + bytes(largest + 10_000)) == "http 413"
    setting.logged("large", identity=identity, status=413)
    setting.logged("large", identity=identity, grpc_status=8)
    assert len(setting.upstream.arrivals) == 2


def test_json_that_would_end_the_server_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of more than 2 MiB of JSON Triton may die; as binary tensors the same size is welcome."""
    limits = make_service().limits
    service = make_service(limits=type(limits)(request_mb=8))
    with RecordingUpstream() as upstream:
        setting = make_setting(tmp_path_factory.mktemp("json"), upstream, service)
        with setting.gateway:
            key = [("x-api-key", setting.keys["reader"])]
            body = b'{"inputs": []}' + b" " * 3_000_000
            path = "POST /v2/models/digits/infer"
            assert setting.http("json", path, key, body) == "http 413"
            setting.logged("json", denied="json-too-large")
            assert upstream.arrivals == []
            assert setting.http("binary", path, [*key, ("inference-header-content-length", "14")], body) == "http 200"

"""The attacks on the real Triton: its own counters show that none reached it, and our client works through it."""

import urllib.request
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from launcher_helpers import ask, eventually, write_model
from naiad.client import TLS, AccessDenied, Client
from naiad.deploy.place import Endpoint
from naiad.server import EmbeddedTriton
from recording_upstream import RecordingUpstream
from security_attacks import ATTACKS
from security_setting import SERVICE, Setting, infer, make_service, make_setting

SECRET = "a-secret-of-thirty-two-characters-or-more"


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """Serves `digits` and `other`."""
    repository = tmp_path_factory.mktemp("served") / "repository"
    write_model(repository, "digits")
    write_model(repository, "other")
    with EmbeddedTriton(repository, admin_secret=SECRET) as triton:
        yield triton


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory, triton: EmbeddedTriton) -> Iterator[Setting]:
    """The gateway in front of it."""
    endpoint = Endpoint(
        name="main-0", host="127.0.0.1", grpc_port=_port(triton.grpc_url), http_port=_port(triton.http_url)
    )
    directory = tmp_path_factory.mktemp("triton")
    with RecordingUpstream() as unused:
        setting = make_setting(directory, unused, make_service(), endpoint=endpoint, server_secret=SECRET)
        with setting.gateway:
            yield setting


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def client(setting: Setting, identity: str) -> Client:
    """Our client, with an identity's key."""
    (setting.directory / "authority.pem").write_bytes(setting.authority.certificate_pem)
    tls = TLS(root_certificates=setting.directory / "authority.pem")
    return Client(setting.gateway.grpc_url, tls=tls, admin_secret=setting.keys[identity])


def counters(triton: EmbeddedTriton) -> list[str]:
    """Everything that Triton counts of requests."""
    with urllib.request.urlopen(triton.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return [line for line in lines if line.startswith("nv_inference_")]


def settled(triton: EmbeddedTriton, before: list[str]) -> list[str]:
    """The counters once an inference has changed them all; Triton counts a moment after it has answered."""
    names = ("request_success", "count", "exec_count", "request_duration_us", "queue_duration_us")

    def all_changed() -> bool:
        changed = {line.split("{")[0] for line in set(counters(triton)) - set(before)}
        return changed >= {f"nv_inference_{name}" for name in names}

    eventually(all_changed, "the inference to be counted", timeout_s=15)
    return counters(triton)


def test_no_attack_changes_what_triton_counts(setting: Setting, triton: EmbeddedTriton) -> None:
    """After all of them no request was counted, no model has come or gone, and no memory is registered."""
    with triton.client() as admin:
        idle = counters(triton)
        ask(admin, "digits")
        before, models = settled(triton, idle), triton.models
        for attack in ATTACKS:
            assert attack.send(setting, attack.name) == attack.status, attack.name
        assert counters(triton) == before
        assert triton.models == models
        channel = grpc.insecure_channel(triton.grpc_address)
        regions = channel.unary_unary(SERVICE + "SystemSharedMemoryStatus")(
            b"", metadata=[("triton-grpc-protocol-admin-key", SECRET)], timeout=20
        )
        channel.close()
        assert pb.SystemSharedMemoryStatusResponse.FromString(regions).regions == {}
        ask(admin, "digits")
        settled(triton, before)


def test_the_client_infers_with_the_right_to_infer_alone(setting: Setting) -> None:
    """Describing the model is part of that right."""
    with client(setting, "reader") as reader:
        assert ask(reader, "digits").shape == (1, 2)
        assert reader.model("digits")(x=np.zeros((1, 2), np.float32))["y"].shape == (1, 2)
        with pytest.raises(AccessDenied, match="reader may not"):
            ask(reader, "other")
        with pytest.raises(AccessDenied, match="administer"):
            reader.unload("digits")


def test_an_administrator_controls_models_through_the_gateway(setting: Setting) -> None:
    """With its own key, and without knowing the server's secret."""
    with client(setting, "boss") as boss:
        boss.unload("other")
        assert not boss.ready("other")
        boss.load("other")
        assert ask(boss, "other").shape == (1, 2)
        assert {entry.name for entry in boss.models()} >= {"digits", "other"}


def test_an_observer_sees_every_model_and_asks_none(setting: Setting) -> None:
    """Statistics and the index, but no inference."""
    with client(setting, "watcher") as watcher:
        assert watcher.statistics("digits")
        assert {entry.name for entry in watcher.models()} >= {"digits", "other"}
        with pytest.raises(AccessDenied):
            watcher.infer("digits", {"x": np.zeros((1, 2), np.float32)})


def test_triton_tells_the_caller_why_a_message_of_a_stream_was_refused(setting: Setting) -> None:
    """The reason comes as the error of that message."""
    key = [("x-api-key", setting.keys["reader"])]
    with setting.channel("triton-stream") as channel:
        messages = iter([infer("other", id="seven")])
        answers = list(channel.stream_stream(SERVICE + "ModelStreamInfer")(messages, metadata=key, timeout=20))
    (answer,) = [pb.ModelStreamInferResponse.FromString(answer) for answer in answers]
    assert "reader may not ask for inferences of the model other" in answer.error_message
    assert answer.infer_response.id == "seven"


@pytest.mark.parametrize(
    "method",
    ["RepositoryIndex", "RepositoryModelLoad", "SystemSharedMemoryRegister", "TraceSetting", "LogSettings"],
)
@pytest.mark.parametrize("secret", [None, "guessed"])
def test_triton_itself_refuses_administration_without_its_secret(
    triton: EmbeddedTriton, method: str, secret: str | None
) -> None:
    """Whoever comes to the server's own port finds it closed, too."""
    headers = [("triton-grpc-protocol-admin-key", secret)] if secret else []
    with grpc.insecure_channel(triton.grpc_address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(SERVICE + method)(b"", metadata=headers, timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_json_inferences_pass(setting: Setting) -> None:
    """HTTP/REST as in the KServe protocol."""
    body = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0, 0]}]}'
    key = [("x-api-key", setting.keys["reader"])]
    assert setting.http("json", "POST /v2/models/digits/infer", key, body) == "http 200"
    setting.logged("json", identity="reader", model="digits", status=200)

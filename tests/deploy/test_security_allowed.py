"""The counterpart of the attacks: what each identity may do passes, unharmed, with the right name in the access log."""

from collections.abc import Iterator

import pytest
from tritonclient.grpc import service_pb2 as pb

from naiad.deploy.service import Rights
from recording_upstream import RecordingUpstream
from security_setting import SERVICE, Setting, infer, make_service, make_setting

NAMED = pb.ModelMetadataRequest(name="digits").SerializeToString()
OTHER = pb.ModelMetadataRequest(name="other", version="3").SerializeToString()
LOAD = pb.RepositoryModelLoadRequest(model_name="other").SerializeToString()
SHM = pb.SystemSharedMemoryRegisterRequest(name="r", key="/mine", byte_size=8).SerializeToString()

GRPC = [
    ("reader", "ServerLive", b""),
    ("reader", "ServerReady", b""),
    ("reader", "ServerMetadata", b""),
    ("reader", "/grpc.health.v1.Health/Check", b""),
    ("reader", "ModelReady", NAMED),
    ("reader", "ModelMetadata", NAMED),
    ("reader", "ModelConfig", NAMED),
    ("reader", "ModelInfer", infer("digits")),
    ("reader", "ModelInfer", infer("resnet50", model_version="2", id="x")),
    ("reader", "ModelInfer", infer("digits", raw_input_contents=[b"x" * 1_900_000])),
    ("reader", "ModelInfer", infer("digits") * 2),
    ("watcher", "ModelMetadata", OTHER),
    ("watcher", "ModelConfig", OTHER),
    ("watcher", "ModelStatistics", OTHER),
    ("watcher", "ModelStatistics", b""),
    ("watcher", "RepositoryIndex", b""),
    ("partial", "ModelStatistics", NAMED),
    ("boss", "RepositoryIndex", b""),
    ("boss", "RepositoryModelLoad", LOAD),
    ("boss", "RepositoryModelUnload", LOAD),
    ("boss", "SystemSharedMemoryRegister", SHM),
    ("boss", "SystemSharedMemoryStatus", b""),
    ("boss", "CudaSharedMemoryUnregister", b""),
    ("boss", "TraceSetting", b""),
    ("boss", "LogSettings", b""),
    ("boss", "ModelStatistics", b""),
    ("boss", "ModelInfer", infer("anything")),
]

HTTP = [
    ("reader", "GET /v2", b""),
    ("reader", "GET /v2/health/live", b""),
    ("reader", "GET /v2/models/digits", b""),
    ("reader", "GET /v2/models/digits/versions/1/ready", b""),
    ("reader", "GET /v2/models/digits/config", b""),
    ("reader", "POST /v2/models/digits/infer", b'{"inputs": [{"data": ["C:\\\\u0061", "shared_memory_region of"]}]}'),
    ("reader", "POST /v2/models/resnet50/versions/2/infer", b"{}"),
    ("reader", "POST /v2/models/digits/generate", b"{}"),
    ("reader", "POST /v2/models/digits/generate_stream", b"{}"),
    ("watcher", "GET /v2/models/stats", b""),
    ("watcher", "GET /v2/models/other/versions/1/stats", b""),
    ("watcher", "POST /v2/repository/index", b"{}"),
    ("boss", "POST /v2/repository/models/other/load", b'{"parameters": {"config": "{}"}}'),
    ("boss", "POST /v2/repository/models/other/unload", b""),
    ("boss", "POST /v2/systemsharedmemory/region/r/register", b"{}"),
    ("boss", "POST /v2/systemsharedmemory/unregister", b""),
    ("boss", "GET /v2/cudasharedmemory/status", b""),
    ("boss", "GET /v2/cudasharedmemory/region/r/status", b""),
    ("boss", "POST /v2/models/other/infer", b'{"inputs":[{"parameters":{"shared_memory_region":"r"}}]}'),
    ("boss", "GET /v2/logging", b""),
    ("boss", "POST /v2/trace/setting", b"{}"),
    ("boss", "GET /v2/models/digits/trace/setting", b""),
]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A gateway that nobody changes."""
    with RecordingUpstream() as upstream:
        setting = make_setting(tmp_path_factory.mktemp("allowed"), upstream, make_service())
        with setting.gateway:
            yield setting


@pytest.mark.parametrize(("identity", "method", "message"), GRPC)
def test_a_grpc_call_that_is_allowed_passes(setting: Setting, identity: str, method: str, message: bytes) -> None:
    """It arrives once, byte for byte, with the caller's name, and without its key."""
    before = len(setting.upstream.arrivals)
    agent = f"grpc-{before}"
    assert setting.grpc(agent, method, message, [("x-api-key", setting.keys[identity])]) == "grpc 0"
    (arrival,) = setting.upstream.arrivals[before:]
    assert (arrival.path, arrival.body) == (method if method.startswith("/") else SERVICE + method, message)
    assert arrival.headers["x-naiad-identity"] == identity
    assert setting.keys[identity] not in arrival.headers.values()
    setting.logged(agent, identity=identity, denied=None, grpc_status=0)


@pytest.mark.parametrize(("identity", "request_line", "body"), HTTP)
def test_an_http_request_that_is_allowed_passes(
    setting: Setting, identity: str, request_line: str, body: bytes
) -> None:
    """It arrives once, byte for byte, with the caller's name, and without its key."""
    before = len(setting.upstream.arrivals)
    agent = f"http-{before}"
    key = ("authorization", f"Bearer {setting.keys[identity]}")
    assert setting.http(agent, request_line, [key], body) == "http 200"
    (arrival,) = setting.upstream.arrivals[before:]
    assert (arrival.path, arrival.body) == (request_line.split()[1], body)
    headers = {name.lower(): value for name, value in arrival.headers.items()}
    assert headers["x-naiad-identity"] == identity
    assert "authorization" not in headers
    setting.logged(agent, identity=identity, denied=None, status=200)


def test_the_servers_secret_goes_with_what_the_server_restricts_and_with_nothing_else(setting: Setting) -> None:
    """An administrator's calls open Triton's restricted APIs; an inference does not carry the secret."""
    key = [("x-api-key", setting.keys["boss"])]
    setting.grpc("secret", "RepositoryIndex", b"", key)
    assert setting.upstream.arrivals[-1].headers["triton-grpc-protocol-admin-key"] == "the-servers-own-secret"
    setting.http("secret", "GET /v2/logging", key)
    assert setting.upstream.arrivals[-1].headers["admin-key"] == "the-servers-own-secret"
    setting.grpc("secret", "ModelInfer", infer("digits"), key)
    assert "the-servers-own-secret" not in setting.upstream.arrivals[-1].headers.values()


def test_forged_headers_are_replaced(setting: Setting) -> None:
    """What a caller writes into the gateway's own headers never arrives."""
    forged = [
        ("x-naiad-identity", "boss"),
        ("x-naiad-model", "other"),
        ("admin-key", "x"),
    ]
    key = ("triton-grpc-protocol-admin-key", setting.keys["reader"])
    assert setting.grpc("forged", "ModelInfer", infer("digits"), [*forged, key]) == "grpc 0"
    headers = setting.upstream.arrivals[-1].headers
    assert (headers["x-naiad-identity"], headers["x-naiad-model"]) == ("reader", "digits")
    assert "admin-key" not in headers
    assert not [name for name in headers if name.startswith("triton-grpc-protocol-")]


@pytest.mark.parametrize(
    "header", [("authorization", "Bearer {}"), ("authorization", "bearer {}"), ("triton-grpc-protocol-admin-key", "{}")]
)
def test_a_key_is_taken_from_each_of_its_headers(setting: Setting, header: tuple[str, str]) -> None:
    """`naiad.client`'s admin_secret works through the gateway, too."""
    name, form = header
    sent = [(name, form.format(setting.keys["reader"]))]
    assert setting.grpc("headers", "ModelInfer", infer("digits"), sent) == "grpc 0"


def test_credentials_of_one_identity_may_come_together(setting: Setting) -> None:
    """Certificate, token and key of the reader agree."""
    headers = [("authorization", f"Bearer {setting.signer.token()}"), ("x-api-key", setting.keys["reader"])]
    certificate = setting.certificates["reader"]
    assert setting.grpc("together", "ModelInfer", infer("digits"), headers, certificate) == "grpc 0"
    setting.logged("together", identity="reader")


def test_a_token_names_its_caller(setting: Setting) -> None:
    """Alice's token is the reader, and only that."""
    headers = [("authorization", f"Bearer {setting.signer.token(aud=['other', 'naiad'])}")]
    assert setting.grpc("alice", "ModelInfer", infer("digits"), headers) == "grpc 0"
    assert setting.grpc("alice", "ModelInfer", infer("other"), headers) == "grpc 7"
    setting.logged("alice", identity="reader", denied="no-right")


@pytest.mark.parametrize("key", [False, True])
def test_a_certificate_without_an_identity_is_none(setting: Setting, key: bool) -> None:
    """It neither opens anything nor stands in the way of a key."""
    headers = [("x-api-key", setting.keys["reader"])] if key else []
    status = setting.grpc("nobody", "ModelInfer", infer("digits"), headers, setting.certificates["nobody"])
    assert status == ("grpc 0" if key else "grpc 16")


def test_callers_without_identity_may_do_what_the_service_says(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Anonymous callers have the rights of [anonymous]; a bad key does not make one anonymous."""
    service = make_service(anonymous=Rights(infer=("digits",)))
    with RecordingUpstream() as upstream:
        setting = make_setting(tmp_path_factory.mktemp("anonymous"), upstream, service)
        with setting.gateway:
            assert setting.grpc("anybody", "ModelInfer", infer("digits")) == "grpc 0"
            setting.logged("anybody", identity="anonymous", model="digits")
            assert setting.grpc("anybody", "ModelInfer", infer("other")) == "grpc 7"
            assert setting.grpc("anybody", "RepositoryIndex") == "grpc 7"
            assert setting.grpc("anybody", "ModelInfer", infer("digits"), [("x-api-key", "no")]) == "grpc 16"
            assert len(upstream.arrivals) == 1

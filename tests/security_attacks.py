"""Hostile and unauthorised calls, the status that each must get, and what the access log must say of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from security_setting import SERVICE, Setting, infer

DIGITS = infer("digits")
JSON = b'{"inputs": []}'


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What is sent, the status that it must get, and what its line in the access log must say."""

    name: str
    send: Callable[[Setting, str], str]
    status: str
    logged: dict[str, Any] = field(default_factory=dict)


def _key(setting: Setting, identity: str | None) -> list[tuple[str, str]]:
    return [("x-api-key", setting.keys[identity])] if identity else []


def grpc(
    name: str, status: int, method: str, message: bytes = b"", *, by: str | None = "reader", **logged: Any
) -> Attack:
    """A unary call with the key of an identity."""
    return Attack(
        name=name,
        send=lambda s, agent: s.grpc(agent, method, message, _key(s, by)),
        status=f"grpc {status}",
        logged=logged,
    )


def grpc_with(
    name: str, status: int, headers: Callable[[Setting], list[tuple[str, str]]], message: bytes = DIGITS, **logged: Any
) -> Attack:
    """An inference with headers of its own."""
    return Attack(
        name=name,
        send=lambda s, agent: s.grpc(agent, "ModelInfer", message, headers(s)),
        status=f"grpc {status}",
        logged=logged,
    )


def http(
    name: str,
    status: int,
    request: str,
    body: bytes = b"",
    *,
    by: str | None = "reader",
    headers: tuple[tuple[str, str], ...] = (),
    **logged: Any,
) -> Attack:
    """An HTTP request with the key of an identity."""
    return Attack(
        name=name,
        send=lambda s, agent: s.http(agent, request, [*_key(s, by), *headers], body),
        status=f"http {status}",
        logged=logged,
    )


def token(name: str, make: Callable[[Setting], str], **logged: Any) -> Attack:
    """An inference with a JSON Web Token."""
    return grpc_with(name, 16, lambda s: [("authorization", f"Bearer {make(s)}")], **logged)


def bearer(text: str) -> Callable[[Setting], list[tuple[str, str]]]:
    """An authorization header."""
    return lambda _: [("authorization", text)]


def _none(setting: Setting) -> str:
    head, payload, _ = setting.signer.token(head={"alg": "none"}).split(".")
    return f"{head}.{payload}."


def _tampered(setting: Setting) -> str:
    good, other = setting.signer.token(sub="bob"), setting.signer.token()
    return ".".join([good.split(".")[0], other.split(".")[1], good.split(".")[2]])


def _region(**fields: Any) -> bytes:
    message = pb.ModelInferRequest(model_name="digits", **fields)
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[1])
    tensor.parameters["shared_memory_region"].string_param = "somebody-elses"
    return bytes(message.SerializeToString())


def _output_region() -> bytes:
    message = pb.ModelInferRequest(model_name="digits")
    message.outputs.add(name="y").parameters["shared_memory_region"].string_param = "somebody-elses"
    return bytes(message.SerializeToString())


def _load(**parameters: bytes) -> bytes:
    message = pb.RepositoryModelLoadRequest(model_name="digits")
    for name, value in parameters.items():
        message.parameters[name.replace("__", ":")].bytes_param = value
    return bytes(message.SerializeToString())


def _twice(second: bytes) -> bytes:
    return DIGITS + b"\x0a" + bytes([len(second)]) + second


CREDENTIALS = [
    grpc("no-key", 16, "ModelInfer", DIGITS, by=None, denied="no-credential", identity=None),
    http("no-key-http", 401, "POST /v2/models/digits/infer", JSON, by=None, denied="no-credential"),
    grpc("no-key-live", 16, "ServerLive", by=None, denied="no-credential"),
    grpc("no-key-health", 16, "/grpc.health.v1.Health/Check", by=None, denied="no-credential"),
    grpc_with("unknown-key", 16, lambda s: [("x-api-key", "naiad_" + "A" * 43)], denied="unknown-key"),
    grpc_with("empty-key", 16, lambda s: [("x-api-key", "")], denied="unknown-key"),
    grpc_with("long-key", 16, lambda s: [("x-api-key", s.keys["reader"] + "A" * 5000)], denied="unknown-key"),
    grpc_with("key-in-upper-case", 16, lambda s: [("x-api-key", s.keys["reader"].upper())], denied="unknown-key"),
    grpc("revoked-key", 16, "ModelInfer", DIGITS, by="gone", denied="unknown-key"),
    grpc("expired-key", 16, "ModelInfer", DIGITS, by="late", denied="expired-key"),
    http("expired-key-http", 401, "GET /v2", by="late", denied="expired-key"),
    grpc_with("basic-credential", 16, bearer("Basic cmVhZGVyOng="), denied="bad-credential"),
    grpc_with("bearer-of-nothing", 16, bearer("Bearer "), denied="bad-credential"),
    grpc_with(
        "two-bearers",
        16,
        lambda s: [("authorization", f"Bearer {s.keys['reader']}"), ("authorization", f"Bearer {s.keys['boss']}")],
        denied="bad-credential",
    ),
    grpc_with(
        "two-keys", 16, lambda s: [("x-api-key", s.keys["reader"]), ("x-api-key", s.keys["boss"])], denied="unknown-key"
    ),
    grpc_with(
        "keys-that-contradict",
        16,
        lambda s: [("x-api-key", s.keys["reader"]), ("authorization", f"Bearer {s.keys['boss']}")],
        denied="contradicting",
    ),
    grpc_with(
        "good-key-and-unknown-key",
        16,
        lambda s: [("x-api-key", s.keys["reader"]), ("authorization", "Bearer naiad_no")],
        denied="unknown-key",
    ),
    grpc_with("forged-identity", 16, lambda s: [("x-naiad-identity", "boss")], denied="no-credential"),
    grpc_with("digest-as-key", 16, lambda s: [("x-api-key", _digest(s))], denied="unknown-key"),
    grpc_with(
        "the-servers-secret-as-key",
        16,
        lambda s: [("triton-grpc-protocol-admin-key", "the-servers-own-secret")],
        denied="unknown-key",
    ),
]


def _digest(setting: Setting) -> str:
    line = next(line for line in setting.key_file.read_text().splitlines() if line.startswith("reader "))
    return line.split("sha256:")[1].split()[0]


TOKENS = [
    token("expired-token", lambda s: s.signer.token(ends_s=-60), denied="expired-token"),
    token("token-without-an-end", lambda s: s.signer.token(exp=None), denied="bad-token"),
    token("token-not-yet-valid", lambda s: s.signer.token(nbf=4_000_000_000), denied="bad-token"),
    token("token-of-another-issuer", lambda s: s.signer.token(iss="https://evil.test"), denied="bad-token"),
    token("token-for-another-audience", lambda s: s.signer.token(aud="payroll"), denied="bad-token"),
    token("token-without-audience", lambda s: s.signer.token(aud=None), denied="bad-token"),
    token("token-without-signature", _none, denied="bad-token"),
    token("token-tampered-with", _tampered, denied="bad-token"),
    token("token-of-another-key", lambda s: type(s.signer)().token(), denied="bad-token"),
    token("token-signed-with-the-public-key", lambda s: s.signer.token(head={"alg": "HS256"}), denied="bad-token"),
    token("token-of-nobody", lambda s: s.signer.token(sub="mallory"), denied="unknown-token"),
    token("token-whose-subject-is-a-list", lambda s: s.signer.token(sub=["alice"]), denied="bad-token"),
    token("token-without-subject", lambda s: s.signer.token(sub=None), denied="unknown-token"),
    token("token-of-noise", lambda s: "a.b.c", denied="bad-token"),
    grpc_with(
        "token-and-key-that-contradict",
        16,
        lambda s: [("authorization", f"Bearer {s.signer.token()}"), ("x-api-key", s.keys["boss"])],
        denied="contradicting",
    ),
]

_SHM = pb.SystemSharedMemoryRegisterRequest(name="r", key="/secret", byte_size=8).SerializeToString()
_CUDA = pb.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"h", byte_size=8).SerializeToString()
_TRACE = pb.TraceSettingRequest().SerializeToString()
_NAMED = pb.ModelMetadataRequest(name="digits").SerializeToString()
_OTHER = pb.ModelMetadataRequest(name="other").SerializeToString()

RIGHTS = [
    grpc("wrong-model", 7, "ModelInfer", infer("other"), identity="reader", model="other", denied="no-right"),
    grpc("model-with-the-right-prefix", 7, "ModelInfer", infer("digits2"), denied="no-right", model="digits2"),
    grpc("model-in-upper-case", 7, "ModelInfer", infer("DIGITS"), denied="no-right"),
    http("wrong-model-http", 403, "POST /v2/models/other/infer", JSON, identity="reader", denied="no-right"),
    http("wrong-model-generate", 403, "POST /v2/models/other/generate", JSON, denied="no-right"),
    http("wrong-model-generate-stream", 403, "POST /v2/models/other/generate_stream", JSON, denied="no-right"),
    http("wrong-model-version", 403, "POST /v2/models/other/versions/1/infer", JSON, denied="no-right"),
    grpc("watcher-infers", 7, "ModelInfer", DIGITS, by="watcher", identity="watcher", denied="no-right"),
    grpc("metadata-of-another-model", 7, "ModelMetadata", _OTHER, denied="no-right"),
    grpc("readiness-of-another-model", 7, "ModelReady", _OTHER, denied="no-right"),
    grpc("configuration-of-another-model", 7, "ModelConfig", _OTHER, denied="no-right"),
    http("configuration-of-another-model-http", 403, "GET /v2/models/other/config", denied="no-right"),
    grpc("statistics-without-right", 7, "ModelStatistics", _NAMED, denied="no-right"),
    grpc("statistics-of-all-models", 7, "ModelStatistics", by="partial", denied="no-right"),
    http("statistics-of-all-models-http", 403, "GET /v2/models/stats", by="partial", denied="no-right"),
    grpc("repository-index", 7, "RepositoryIndex", by="partial", denied="no-right"),
    http("repository-index-http", 403, "POST /v2/repository/index", by="partial", denied="no-right"),
    grpc("model-load", 7, "RepositoryModelLoad", _load(), identity="reader", denied="not-admin"),
    grpc("model-unload", 7, "RepositoryModelUnload", _load(), by="watcher", identity="watcher", denied="not-admin"),
    http("model-load-http", 403, "POST /v2/repository/models/digits/load", b"{}", denied="not-admin"),
    http("model-unload-http", 403, "POST /v2/repository/models/digits/unload", b"{}", denied="not-admin"),
    grpc("model-load-with-files", 7, "RepositoryModelLoad", _load(file__1=b"x"), by="boss", denied="model-file"),
    http(
        "model-load-with-files-http",
        403,
        "POST /v2/repository/models/digits/load",
        b'{"parameters": {"config": "{}", "file:1/model.py": "aW1wb3J0IG9z"}}',
        by="boss",
        denied="model-file",
    ),
    http(
        "model-load-with-files-escaped",
        400,
        "POST /v2/repository/models/digits/load",
        b'{"parameters": {"config": "{}", "\\u0066ile:1/model.py": "aW1wb3J0IG9z"}}',
        by="boss",
        denied="escaped",
    ),
    grpc("shared-memory-registration", 7, "SystemSharedMemoryRegister", _SHM, denied="not-admin"),
    grpc("shared-memory-status", 7, "SystemSharedMemoryStatus", denied="not-admin"),
    grpc("cuda-registration", 7, "CudaSharedMemoryRegister", _CUDA, by="watcher", denied="not-admin"),
    http("shared-memory-http", 403, "POST /v2/systemsharedmemory/region/r/register", b"{}", denied="not-admin"),
    http("cuda-http", 403, "POST /v2/cudasharedmemory/region/r/unregister", b"{}", denied="not-admin"),
    grpc("region-of-somebody-else", 7, "ModelInfer", _region(), denied="shared-memory"),
    grpc("region-for-outputs", 7, "ModelInfer", _output_region(), denied="shared-memory"),
    http(
        "region-http",
        403,
        "POST /v2/models/digits/infer",
        b'{"inputs":[{"name":"x","parameters":{"shared_memory_region":"r"}}]}',
        denied="shared-memory",
    ),
    http(
        "region-escaped",
        400,
        "POST /v2/models/digits/infer",
        b'{"inputs":[{"name":"x","parameters":{"shared\\u005fmemory_region":"r"}}]}',
        denied="escaped",
    ),
    http(
        "region-far-behind",
        403,
        "POST /v2/models/digits/infer",
        b'{"id":"' + b"x" * 65530 + b'","inputs":[{"parameters":{"shared_memory_region":"r"}}]}',
        denied="shared-memory",
    ),
    grpc("trace-settings", 7, "TraceSetting", _TRACE, by="watcher", denied="not-admin"),
    grpc("log-settings", 7, "LogSettings", by="watcher", denied="not-admin"),
    http("trace-settings-http", 403, "POST /v2/trace/setting", b"{}", denied="not-admin"),
    http("log-settings-http", 403, "GET /v2/logging", denied="not-admin"),
]


def _framed(size: int, message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + size.to_bytes(4, "big") + message


def _post_grpc(setting: Setting, agent: str, body: bytes, method: str = "ModelInfer") -> str:
    """A gRPC call over HTTP/1.1, whose frames can be anything; the status is in a header."""
    headers = [*_key(setting, "reader"), ("content-type", "application/grpc"), ("te", "trailers")]
    lines = [f"POST {SERVICE}{method} HTTP/1.1", "host: naiad.test", f"user-agent: {agent}"]
    lines += [*(f"{name}: {value}" for name, value in headers), f"content-length: {len(body)}"]
    with setting.connect() as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = connection.recv(65536).decode()
    status = [line.partition(":")[2].strip() for line in answer.splitlines() if line.startswith("grpc-status:")]
    return f"grpc {status[0]}" if status else answer[:60]


def frame(name: str, body: bytes, reason: str = "malformed") -> Attack:
    """A body that is no single, whole, plain message."""
    return Attack(name=name, send=lambda s, a: _post_grpc(s, a, body), status="grpc 3", logged={"denied": reason})


def message(name: str, content: bytes, reason: str = "malformed") -> Attack:
    """A message that two parsers could read in two ways, or that names no model properly."""
    return grpc(name, 3, "ModelInfer", content, denied=reason, identity="reader")


MESSAGES = [
    message("no-model", b"", "no-model"),
    message("empty-model", b"\x0a\x00", "no-model"),
    message("two-models", _twice(b"other")),
    message("model-with-line-break", infer("digits\r\nx-naiad-identity: boss"), "model-name"),
    message("model-with-path", infer("../digits"), "model-name"),
    message("model-with-slash", infer("digits/versions/1"), "model-name"),
    message("model-with-zero", infer("digits\0"), "model-name"),
    message("model-of-300-bytes", infer("d" * 300), "model-name"),
    message("version-of-letters", infer("digits", model_version="latest"), "model-version"),
    message("version-overlong", infer("digits", model_version="1" * 19), "model-version"),
    message("field-zero", DIGITS + b"\x02\x01x"),
    message("a-group", DIGITS + b"\x53\x54"),
    message("overlong-tag", DIGITS + b"\x8a\x00\x05other"),
    message("tag-that-overflows", DIGITS + b"\x8a\x80\x80\x80\x10\x05other"),
    message("tag-that-overflows-with-room", DIGITS + b"\x8a\x80\x80\x80\x10" + b"\x05other".ljust(1 << 18, b"\0")),
    message("length-that-overflows", DIGITS + b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    message("length-beyond-the-end", DIGITS + b"\x3a\x7f"),
    message("number-without-end", DIGITS + b"\x50" + b"\xff" * 11),
    message("a-flood-of-fields", DIGITS + b"\x50\x01" * 30000),
    frame("compressed-frame", _framed(len(DIGITS), DIGITS, flag=1), "compressed"),
    frame("frame-with-unknown-flag", _framed(len(DIGITS), DIGITS, flag=2)),
    frame("frame-too-long", _framed(len(DIGITS) + 5, DIGITS)),
    frame("data-after-the-frame", _framed(len(DIGITS), DIGITS) + b"x"),
    frame("two-frames", _framed(len(DIGITS), DIGITS) * 2),
    frame("no-frame", b""),
    frame("half-a-frame", b"\0\0"),
]

PATHS = [
    grpc("unknown-method", 12, "ModelDelete", denied="no-such-method"),
    grpc("method-in-lower-case", 12, "modelinfer", DIGITS, denied="no-such-method"),
    grpc("reflection", 12, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", denied="no-such-method"),
    grpc("another-service", 12, "/inference.Admin/ModelInfer", DIGITS, denied="no-such-method"),
    http("metrics", 404, "GET /metrics", by="boss", denied="no-such-path"),
    http("administration", 404, "GET /config_dump", by="boss", denied="no-such-path"),
    http("stats-of-the-gateway", 404, "GET /stats/prometheus", by="boss", denied="no-such-path"),
    http("root", 404, "GET /", by="boss", denied="no-such-path"),
    http("unknown-action", 404, "POST /v2/models/digits/delete", b"{}", denied="no-such-path"),
    http("unknown-repository-action", 404, "POST /v2/repository/models/digits/delete", b"{}", denied="no-such-path"),
    http("dots", 403, "POST /v2/models/digits/../other/infer", JSON, denied="no-right", model="other"),
    http("double-slashes", 403, "POST //v2//models//other//infer", JSON, denied="no-right", model="other"),
    http("escaped-slash", 400, "POST /v2/models/digits%2f..%2fother/infer", JSON),
    http("escaped-letters", 403, "POST /v2/models/%6fther/infer", JSON, denied="no-right", model="other"),
    http("escaped-escape", 400, "POST /v2/models/%256fther/infer", JSON, denied="bad-path"),
    http("semicolon", 400, "POST /v2/models/digits;x=../other/infer", JSON, denied="bad-path"),
    http("query", 400, "POST /v2/models/digits/infer?model=other", JSON, denied="bad-path"),
    http("trailing-slash", 404, "POST /v2/models/digits/infer/", JSON, denied="no-such-path"),
    http("hidden-model", 404, "GET /v2/models/.git/config", denied="no-such-path"),
    http("model-of-300-bytes-http", 400, f"GET /v2/models/{'d' * 300}", by="boss", denied="model-name"),
    http("version-overlong-http", 400, f"GET /v2/models/digits/versions/{'1' * 19}", denied="model-version"),
    http("version-of-letters-http", 404, "POST /v2/models/digits/versions/a/infer", JSON, denied="no-such-path"),
    http("get-for-post", 405, "GET /v2/models/digits/infer", denied="wrong-method"),
    http("delete", 405, "DELETE /v2/models/digits", denied="wrong-method"),
    http("options", 405, "OPTIONS /v2/models/digits", denied="wrong-method"),
    http("whole-url", 403, "POST http://127.0.0.1:8000/v2/models/other/infer", JSON, denied="no-right", model="other"),
    http("grpc-in-capitals", 415, f"POST {SERVICE}ModelInfer", DIGITS, headers=(("content-type", "Application/GRPC"),)),
    http("grpc-web", 415, f"POST {SERVICE}ModelInfer", DIGITS, headers=(("content-type", "application/grpc-web"),)),
    http(
        "two-content-types",
        415,
        f"POST {SERVICE}ModelInfer",
        DIGITS,
        headers=(("content-type", "application/grpc, a"),),
    ),
    http("compressed-body", 415, "POST /v2/models/digits/infer", JSON, headers=(("content-encoding", "gzip"),)),
    http("grpc-path-as-json", 415, f"POST {SERVICE}ModelInfer", DIGITS, denied="not-grpc"),
    http(
        "header-length-beyond-the-body",
        400,
        "POST /v2/models/digits/infer",
        JSON,
        headers=(("inference-header-content-length", "99"),),
        denied="malformed",
    ),
    http(
        "header-length-of-letters",
        400,
        "POST /v2/models/digits/infer",
        JSON,
        headers=(("inference-header-content-length", "-1"),),
        denied="malformed",
    ),
]

SIZES = [
    grpc("too-large-for-the-gateway", 8, "ModelInfer", infer(raw_input_contents=[b"x" * 3_000_000]), identity="reader"),
    grpc(
        "too-large-for-the-identity",
        8,
        "ModelInfer",
        infer(raw_input_contents=[b"x" * 20_000]),
        by="small",
        identity="small",
        denied="too-large",
    ),
    http("too-large-http", 413, "POST /v2/models/digits/infer", b"x" * 3_000_000, identity="reader"),
    http("too-large-for-the-identity-http", 413, "POST /v2/models/digits/infer", b"x" * 20_000, by="small"),
]

ATTACKS = [*CREDENTIALS, *TOKENS, *RIGHTS, *MESSAGES, *PATHS, *SIZES]

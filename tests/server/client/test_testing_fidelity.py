"""The fake answers what the real Triton answers: the same messages to both, the same answers from both."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

import fake_models
from naiad.client.testing import FakeTriton

SECRET = "open sesame"
ADMIN_HEADER = "triton-grpc-protocol-admin-key"


class Raw:
    """A bare channel to a server: what is sent is what the test says, mistakes included."""

    def __init__(self, address: str, secret: str) -> None:
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.secret = secret

    def call(self, method: str, request: Any, *, secret: bool = True) -> str:
        """The answer as text: the message, or the status and its details."""
        response = getattr(pb, f"{method}Response")
        ask = self.channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        headers = ((ADMIN_HEADER, self.secret),) if secret else ()
        try:
            return plain(str(ask(request, timeout=20, metadata=headers)))
        except grpc.RpcError as error:
            return plain(f"{error.code().name}: {error.details()}")

    def stream(self, requests: list[Any], headers: tuple[tuple[str, str], ...] = ()) -> list[str]:
        """The answers of a stream as text; the last is its status if that is not OK."""
        ask = self.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        answers = []
        try:
            for answer in ask(iter(requests), timeout=20, metadata=headers):
                answers.append(plain(str(answer)))
        except grpc.RpcError as error:
            answers.append(plain(f"{error.code().name}: {error.details()}"))
        return answers


def plain(text: str) -> str:
    """Without what may differ: paths and lines of a traceback, and which input of several is named."""
    text = re.sub(r"At:\\?\n.*", "At: ...", text, flags=re.DOTALL)
    return re.sub(r"input '\w+' batch size does not match", "an input's batch size does not match", text)


@pytest.fixture(scope="module")
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raw]:
    if request.config.getoption("--triton"):
        pytest.skip("needs a server with models of its own")
    from naiad.server import EmbeddedTriton

    repository = tmp_path_factory.mktemp("fidelity") / "repository"
    repository.mkdir()
    fake_models.write(repository)
    with EmbeddedTriton(repository) as triton:
        yield Raw(triton.grpc_address, triton.admin_secret)


@pytest.fixture(scope="module")
def fake() -> Iterator[Raw]:
    with FakeTriton(fake_models.models(), admin_secret=SECRET) as server:
        yield Raw(server.grpc_address, SECRET)


def f4(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def infer(model: str, *tensors: tuple[str, str, list[int]], raw: Any = (), version: str = "", **rest: Any) -> Any:
    """A ModelInferRequest; `parameters` and `outputs` by keyword."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=rest.get("id", ""))
    for name, datatype, shape in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.extend(raw)
    for name in rest.get("outputs", ()):
        request.outputs.add(name=name)
    for key, value in rest.get("parameters", {}).items():
        _set(request.parameters[key], value)
    for key, value in rest.get("output_parameters", {}).items():
        _set(request.outputs[0].parameters[key], value)
    for key, value in rest.get("input_parameters", {}).items():
        _set(request.inputs[0].parameters[key], value)
    for field, values in rest.get("contents", {}).items():
        getattr(request.inputs[0].contents, field).extend(values)
    return request


def _set(parameter: Any, value: object) -> None:
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    setattr(parameter, kinds[type(value)], value)


X = ("x", "FP32", [1, 3])
XS = f4(1, 2, 3)
UNKNOWN = ("no such thing", "FP32", [1, 3])

INFERENCE = {
    "an answer": ("OK", infer("scale", X, raw=[XS], id="r1")),
    "an older version": ("OK", infer("scale", X, raw=[XS], version="1")),
    "a full batch": ("OK", infer("scale", ("x", "FP32", [8, 3]), raw=[f4(*range(24))])),
    "an output by name": ("OK", infer("maybe", ("a", "FP32", [2]), raw=[f4(1, 2)], outputs=["difference"])),
    "an output twice": ("OK", infer("scale", X, raw=[XS], outputs=["y", "y"])),
    "an optional input left out": ("OK", infer("maybe", ("a", "FP32", [2]), raw=[f4(1, 2)])),
    "more raw contents than inputs": ("OK", infer("scale", X, raw=[XS, XS])),
    "typed contents": ("OK", infer("scale", X, contents={"fp32_contents": [1, 2, 3]})),
    "strings": ("OK", infer("words", ("in_STRING", "BYTES", [1, 2]), raw=[b"\1\0\0\0a\0\0\0\0"])),
    "typed strings": ("OK", infer("words", ("in_STRING", "BYTES", [1, 1]), contents={"bytes_contents": [b"a"]})),
    "two inputs": ("OK", infer("pair", ("a", "INT64", [1, 1]), ("b", "INT64", [1, 2]), raw=[bytes(8), bytes(16)])),
    "parameters of one's own": (
        "OK",
        infer("scale", X, raw=[XS], parameters={"mine": "a", "n": 3, "d": 1.5, "b": True}),
    ),
    "priority and time-out": ("OK", infer("scale", X, raw=[XS], parameters={"priority": 1, "timeout": 10_000_000})),
    "a sequence of a stateless model": ("OK", infer("scale", X, raw=[XS], parameters={"sequence_id": 3})),
    "classes": ("OK", infer("labelled", X, raw=[XS], outputs=["y"], output_parameters={"classification": 2})),
    "more classes than there are": (
        "OK",
        infer("scale", X, raw=[XS], outputs=["y"], output_parameters={"classification": 9}),
    ),
    "a model that is not there": ("NOT_FOUND", infer("nope", X, raw=[XS], id="r7")),
    "no model": ("NOT_FOUND", infer("", X, raw=[XS])),
    "a version that is not there": ("NOT_FOUND", infer("scale", X, raw=[XS], version="9")),
    "a version that is a word": ("INVALID_ARGUMENT", infer("scale", X, raw=[XS], version="newest")),
    "a negative version": ("INVALID_ARGUMENT", infer("scale", X, raw=[XS], version="-5")),
    "a wrong type": ("INVALID_ARGUMENT", infer("scale", ("x", "FP64", [1, 3]), raw=[bytes(24)], id="r7")),
    "a type that is none": ("INVALID_ARGUMENT", infer("scale", ("x", "FP99", [1, 3]), raw=[XS])),
    "no type": ("INVALID_ARGUMENT", infer("scale", ("x", "", [1, 3]), raw=[XS])),
    "a wrong dimension": ("INVALID_ARGUMENT", infer("scale", ("x", "FP32", [1, 4]), raw=[f4(1, 2, 3, 4)])),
    "a wrong rank": ("INVALID_ARGUMENT", infer("scale", ("x", "FP32", [3]), raw=[XS])),
    "a wrong dimension without batching": ("INVALID_ARGUMENT", infer("maybe", ("a", "FP32", [3]), raw=[XS])),
    "no shape": ("INVALID_ARGUMENT", infer("scale", ("x", "FP32", []), raw=[f4(1)])),
    "too large a batch": ("INVALID_ARGUMENT", infer("scale", ("x", "FP32", [9, 3]), raw=[f4(*range(27))])),
    "batches of two sizes": (
        "INVALID_ARGUMENT",
        infer("pair", ("a", "INT64", [1, 1]), ("b", "INT64", [2, 1]), raw=[bytes(8), bytes(16)]),
    ),
    "no input": ("INVALID_ARGUMENT", infer("scale")),
    "no input at all, one is optional": ("INVALID_ARGUMENT", infer("maybe")),
    "an input too many": ("INVALID_ARGUMENT", infer("scale", X, UNKNOWN, raw=[XS, XS])),
    "one of many inputs": ("INVALID_ARGUMENT", infer("echo", ("in_FP32", "FP32", [1, 1]), raw=[f4(1)])),
    "an input of another name": ("INVALID_ARGUMENT", infer("scale", UNKNOWN, raw=[XS])),
    "an input twice": ("INVALID_ARGUMENT", infer("scale", X, X, raw=[XS, XS])),
    "too few bytes": ("INVALID_ARGUMENT", infer("scale", X, raw=[f4(1, 2)])),
    "too many bytes": ("INVALID_ARGUMENT", infer("scale", X, raw=[f4(1, 2, 3, 4)])),
    "no bytes": ("INVALID_ARGUMENT", infer("scale", X)),
    "bytes for one input of two": (
        "INVALID_ARGUMENT",
        infer("pair", ("a", "INT64", [1, 1]), ("b", "INT64", [1, 1]), raw=[bytes(8)]),
    ),
    "an output that is not there": ("INVALID_ARGUMENT", infer("scale", X, raw=[XS], outputs=["q"])),
    "too few typed contents": ("INVALID_ARGUMENT", infer("scale", X, contents={"fp32_contents": [1, 2]})),
    "typed contents of another type": ("INVALID_ARGUMENT", infer("scale", X, contents={"fp64_contents": [1, 2, 3]})),
    "typed and raw contents": ("INVALID_ARGUMENT", infer("scale", X, raw=[XS], contents={"fp32_contents": [1, 2, 3]})),
    "typed contents of a type that has none": (
        "INVALID_ARGUMENT",
        infer("echo", ("in_FP16", "FP16", [1, 1]), contents={"fp32_contents": [1]}),
    ),
    "too few strings": ("INVALID_ARGUMENT", infer("words", ("in_STRING", "BYTES", [1, 2]), raw=[b"\1\0\0\0a"])),
    "too many strings": ("INVALID_ARGUMENT", infer("words", ("in_STRING", "BYTES", [1, 1]), raw=[b"\1\0\0\0a" * 2])),
    "half a string": ("INVALID_ARGUMENT", infer("words", ("in_STRING", "BYTES", [1, 1]), raw=[b"\5\0\0\0a"])),
    "half a length": ("INVALID_ARGUMENT", infer("words", ("in_STRING", "BYTES", [1, 1]), raw=[b"\5\0"])),
    "a time-out that is text": ("INVALID_ARGUMENT", infer("scale", X, raw=[XS], parameters={"timeout": "a"})),
    "a priority that is text": ("INVALID_ARGUMENT", infer("scale", X, raw=[XS], parameters={"priority": "a"})),
    "a reserved parameter": ("INVALID_ARGUMENT", infer("scale", X, raw=[XS], parameters={"triton_x": True})),
    "no classes": (
        "INVALID_ARGUMENT",
        infer("scale", X, raw=[XS], outputs=["y"], output_parameters={"classification": 0}),
    ),
    "classes by name": (
        "INVALID_ARGUMENT",
        infer("scale", X, raw=[XS], outputs=["y"], output_parameters={"classification": "a"}),
    ),
    "a decoupled model": ("UNIMPLEMENTED", infer("count", ("n", "INT32", [1]), raw=[b"\1\0\0\0"])),
    "a model that raises": ("INTERNAL", infer("fails", ("x", "FP32", [1]), raw=[f4(1)])),
    "a model that refuses": ("INVALID_ARGUMENT", infer("fails", ("x", "FP32", [1]), raw=[f4(2)])),
    "a model that is away": ("UNAVAILABLE", infer("fails", ("x", "FP32", [1]), raw=[f4(3)])),
    "a model that breaks": ("INTERNAL", infer("fails", ("x", "FP32", [1]), raw=[f4(4)])),
    "a model that finds nothing": ("NOT_FOUND", infer("fails", ("x", "FP32", [1]), raw=[f4(5)])),
    "memory that is not registered": (
        "NOT_FOUND",
        infer("scale", X, input_parameters={"shared_memory_region": "zz", "shared_memory_byte_size": 12}),
    ),
    "memory without a size": ("INVALID_ARGUMENT", infer("scale", X, input_parameters={"shared_memory_region": "zz"})),
    "memory whose name is a number": (
        "INVALID_ARGUMENT",
        infer("scale", X, input_parameters={"shared_memory_region": 5}),
    ),
    "a size without memory": ("INVALID_ARGUMENT", infer("scale", X, input_parameters={"shared_memory_byte_size": 5})),
    "bytes that are no message": ("INTERNAL", b"\xff\xff\xff"),
}


def status_of(answer: str) -> str:
    head = answer.partition(":")[0]
    return head if head in {code.name for code in grpc.StatusCode} else "OK"


@pytest.mark.parametrize("case", INFERENCE)
def test_inference(real, fake, case):
    """Answers and refusals of ModelInfer are the same to the letter."""
    status, request = INFERENCE[case]
    answer = real.call("ModelInfer", request)
    assert status_of(answer) == status
    assert fake.call("ModelInfer", request) == answer


METHODS = {
    "live": ("ServerLive", pb.ServerLiveRequest()),
    "ready": ("ServerReady", pb.ServerReadyRequest()),
    "about the server": ("ServerMetadata", pb.ServerMetadataRequest()),
    "a ready model": ("ModelReady", pb.ModelReadyRequest(name="scale")),
    "a ready version": ("ModelReady", pb.ModelReadyRequest(name="scale", version="1")),
    "an unknown model is not ready": ("ModelReady", pb.ModelReadyRequest(name="nope")),
    "an unknown version is not ready": ("ModelReady", pb.ModelReadyRequest(name="scale", version="9")),
    "no model is not ready": ("ModelReady", pb.ModelReadyRequest()),
    "a word is no version": ("ModelReady", pb.ModelReadyRequest(name="scale", version="a")),
    "metadata of no model": ("ModelMetadata", pb.ModelMetadataRequest(name="nope")),
    "metadata of no version": ("ModelMetadata", pb.ModelMetadataRequest(name="scale", version="9")),
    "configuration of no model": ("ModelConfig", pb.ModelConfigRequest(name="nope")),
    "statistics of no model": ("ModelStatistics", pb.ModelStatisticsRequest(name="nope")),
    "statistics of no version": ("ModelStatistics", pb.ModelStatisticsRequest(name="scale", version="9")),
    "another repository": ("RepositoryIndex", pb.RepositoryIndexRequest(repository_name="zz")),
    "the models": ("RepositoryIndex", pb.RepositoryIndexRequest()),
    "the models that are ready": ("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)),
    "loading what is not there": ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="nope")),
    "loading from elsewhere": (
        "RepositoryModelLoad",
        pb.RepositoryModelLoadRequest(model_name="spare", repository_name="zz"),
    ),
    "loading with an unknown parameter": (
        "RepositoryModelLoad",
        pb.RepositoryModelLoadRequest(
            model_name="spare", parameters={"zz": pb.ModelRepositoryParameter(bool_param=True)}
        ),
    ),
    "loading with half a configuration": (
        "RepositoryModelLoad",
        pb.RepositoryModelLoadRequest(
            model_name="spare", parameters={"config": pb.ModelRepositoryParameter(string_param="{")}
        ),
    ),
    "unloading what is not there": ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="nope")),
    "unknown memory": ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name="zz")),
    "forgetting unknown memory": ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="zz")),
    "no memory": ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
    "no CUDA memory": ("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest()),
    "CUDA memory that is none": (
        "CudaSharedMemoryRegister",
        pb.CudaSharedMemoryRegisterRequest(name="c", raw_handle=b"x" * 64, byte_size=8),
    ),
    "trace settings": ("TraceSetting", pb.TraceSettingRequest()),
    "trace settings of a model": ("TraceSetting", pb.TraceSettingRequest(model_name="scale")),
    "trace settings of no model": ("TraceSetting", pb.TraceSettingRequest(model_name="nope")),
    "log settings": ("LogSettings", pb.LogSettingsRequest()),
}


@pytest.mark.parametrize("case", METHODS)
def test_methods(real, fake, case):
    """So is every other method, where its answer does not depend on the machine."""
    method, request = METHODS[case]
    assert without_order(fake.call(method, request)) == without_order(real.call(method, request))


def without_order(text: str) -> object:
    """Maps have no order in protobuf's text."""
    return sorted(text.split("settings {")) if text.startswith("settings") else text


Step = tuple[str, Any]


def transcript(server: Raw, steps: list[Step]) -> list[str]:
    return [f"{method}: {without_order(server.call(method, request))}" for method, request in steps]


def total(value: int, key: int | str = 5, *, rows: int = 1, **flags: Any) -> Step:
    parameters = ({"sequence_id": key} if key != "" else {}) | flags
    data = np.full(rows, value, "<i4").tobytes()
    return "ModelInfer", infer("total", ("x", "INT32", [rows, 1]), raw=[data], parameters=parameters)


def test_sequences(real, fake):
    """Sums over two sequences at once; what is missing or comes too late is refused."""
    steps = [
        total(1, ""),
        total(1, 0, sequence_start=True),
        total(1),
        total(1, sequence_start=True),
        total(10, 6, sequence_start=True),
        total(2),
        total(20, 6),
        total(2, rows=2),
        total(3, sequence_end=True),
        total(4),
        total(1, 7, sequence_start=True),
        total(5, 7, sequence_start=True),
        total(1, 7, sequence_end=True),
        total(30, 6, sequence_end=True),
        total(1, 8, sequence_start=True, sequence_end=True),
        total(1, 8),
        total(1, 9, sequence_start=1),
    ]
    expected = transcript(real, steps)
    assert sum("raw_output_contents" in line for line in expected) == 10
    assert transcript(fake, steps) == expected


def load(model: str, config: str | None = None) -> Step:
    parameters = {"config": pb.ModelRepositoryParameter(string_param=config)} if config else {}
    return "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=model, parameters=parameters)


NARROW = """{"backend": "onnxruntime", "max_batch_size": 2,
  "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}],
  "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [3]}]}"""


def test_loading_and_unloading(real, fake):
    """A model that is gone is refused in Triton's words; one loaded with another configuration keeps to that."""
    ask = ("ModelInfer", infer("spare", X, raw=[XS]))
    three = ("ModelInfer", infer("spare", ("x", "FP32", [3, 3]), raw=[f4(*range(9))]))
    steps = [
        ask,
        ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="spare")),
        ask,
        ("ModelInfer", infer("spare", X, raw=[XS], version="1")),
        ("ModelReady", pb.ModelReadyRequest(name="spare")),
        ("ModelMetadata", pb.ModelMetadataRequest(name="spare")),
        ("ModelConfig", pb.ModelConfigRequest(name="spare")),
        ("ModelStatistics", pb.ModelStatisticsRequest(name="spare")),
        ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="spare")),
        load("spare", NARROW),
        ask,
        three,
        load("spare"),  # nothing changed on disk: the configuration of before stays
        three,
        ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="spare")),
        load("spare"),
        three,
    ]
    expected = transcript(real, steps)
    assert "has no available versions" in expected[2]
    assert "must be <= 2" in expected[11]
    assert transcript(fake, steps) == expected


def test_administration_needs_the_secret(real, fake):
    """The restricted methods say the same to a stranger; the others are open."""
    for method in ("RepositoryIndex", "SystemSharedMemoryStatus", "TraceSetting", "LogSettings", "ServerMetadata"):
        request = getattr(pb, f"{method}Request")()
        answer = real.call(method, request, secret=False)
        assert ("restricted" in answer) == (method != "ServerMetadata")
        assert fake.call(method, request, secret=False) == answer


def setting(method: str, **values: Any) -> Step:
    request = getattr(pb, f"{method}Request")()
    for name, value in values.items():
        if method == "TraceSetting":
            request.settings[name].value.extend(value)
        else:
            kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
            setattr(request.settings[name], kind, value)
    return method, request


def test_settings(real, fake):
    """Trace and log settings are kept, given back, and refused where they are none."""
    steps = [
        setting("TraceSetting", trace_rate=["5"]),
        setting("TraceSetting", trace_rate=["a"]),
        setting("TraceSetting", trace_rate=["-1"]),
        setting("TraceSetting", trace_rate=["5", "6"]),
        setting("TraceSetting", trace_count=["-2"]),
        setting("TraceSetting", trace_count=["3"], log_frequency=["7"]),
        setting("TraceSetting", trace_level=["TIMESTAMPS"]),
        setting("TraceSetting", trace_level=["NONSENSE"]),
        setting("TraceSetting", trace_level=["OFF", "TENSORS"]),
        setting("TraceSetting", trace_level=["OFF"]),
        setting("TraceSetting", trace_file=["/tmp/trace"]),
        setting("TraceSetting", trace_mode=["opentelemetry"]),
        setting("TraceSetting", no_such_setting=["1"]),
        setting("TraceSetting", trace_rate=[], trace_count=[], log_frequency=[], trace_level=[]),
        setting("LogSettings", log_verbose_level=1),
        setting("LogSettings", log_info="a"),
        setting("LogSettings", log_verbose_level="a"),
        setting("LogSettings", log_format=1),
        setting("LogSettings", log_file="a"),
        setting("LogSettings", log_format="a"),
        setting("LogSettings", no_such_setting=1),
        setting("LogSettings", log_verbose_level=0),
    ]
    assert transcript(fake, steps) == transcript(real, steps)


def register(name: str, key: str, size: int, offset: int = 0) -> Step:
    request = pb.SystemSharedMemoryRegisterRequest(name=name, key=key, byte_size=size, offset=offset)
    return "SystemSharedMemoryRegister", request


def shared(size: int = 12, offset: int = 0, region: str = "r") -> Step:
    where = {"shared_memory_region": region, "shared_memory_byte_size": size, "shared_memory_offset": offset}
    return "ModelInfer", infer("scale", X, input_parameters=where)


def into(size: int, offset: int, region: str = "r") -> Step:
    where = {"shared_memory_region": region, "shared_memory_byte_size": size, "shared_memory_offset": offset}
    return "ModelInfer", infer("scale", X, raw=[XS], outputs=["y"], output_parameters=where)


@pytest.fixture
def segments() -> Iterator[list[str]]:
    """Four segments of a page and a bit, the first with a tensor in it."""
    names = [f"naiad-test-{os.getpid()}-{number}" for number in range(4)]
    for name in names:
        (Path("/dev/shm") / name).write_bytes(XS + bytes(4096 + 64 - len(XS)))
    yield names
    for name in names:
        (Path("/dev/shm") / name).unlink()


def test_shared_memory(real, fake, segments):
    """Regions are mapped, read and written by the server; what does not fit is refused."""
    first, second, third, fourth = (f"/{name}" for name in segments)
    steps = [
        register("r", first, 4160),
        register("r", first, 4160),
        register("r2", first, 32),
        register("r3", "/no-such-segment", 64),
        register("r4", second, 4161),
        register("r5", third, 0),
        register("r6", fourth, 64, offset=4096),
        register("r7", second, 32, offset=40),
        ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name="r")),
        shared(),
        shared(8),
        shared(16),
        shared(12, 4156),
        shared(12, 9999),
        shared(0),
        shared(-1),
        shared(12, -4),
        shared(region="zz"),
        into(12, 16),
        into(8, 0),
        into(12, 4156),
        into(12, 0, "zz"),
        ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="r")),
        shared(),
        ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest()),
        ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
    ]
    memory = Path("/dev/shm") / segments[0]
    seen = []
    for server in (real, fake):
        memory.write_bytes(XS + bytes(4096 + 64 - len(XS)))
        seen.append((transcript(server, steps), np.frombuffer(memory.read_bytes()[:28], "<f4").tolist()))
    assert seen[0][1] == [1, 2, 3, 0, 3, 6, 9]
    assert seen[1] == seen[0]


def count(n: int, **rest: Any) -> Any:
    return infer("count", ("n", "INT32", [1]), raw=[np.array([n], "<i4").tobytes()], id=f"n{n}", **rest)


LAST = {"triton_enable_empty_final_response": True}
STREAMS = {
    "two answers": [count(2)],
    "two answers and the end": [count(2, parameters=LAST)],
    "no answer": [count(0)],
    "no answer but the end": [count(0, parameters=LAST)],
    "an answer and an error": [count(-1, parameters=LAST)],
    "an error without the end": [count(-1)],
    "a model that is not decoupled": [infer("scale", X, raw=[XS], id="a"), infer("scale", X, raw=[XS], id="b")],
    "the end of one that is not decoupled": [infer("scale", X, raw=[XS], parameters=LAST)],
    "errors between answers": [
        infer("scale", X, raw=[XS], id="a"),
        infer("nope", X, raw=[XS], id="b"),
        infer("scale", ("x", "FP32", [1, 4]), raw=[f4(1, 2, 3, 4)], id="c"),
        infer("fails", ("x", "FP32", [1]), raw=[f4(2)], id="d"),
    ],
    "a sequence": [total(n, 11, sequence_start=n == 1, sequence_end=n == 4)[1] for n in (1, 2, 3, 4)],
    "nothing": [],
}


@pytest.mark.parametrize("case", STREAMS)
def test_streams(real, fake, case):
    """Answers, errors and final responses of a stream; models of one stream answer in no order between them."""
    assert sorted(fake.stream(STREAMS[case])) == sorted(real.stream(STREAMS[case]))


def test_an_error_ends_the_stream_where_the_caller_wants_that(fake):
    """The header turns the error into the stream's status. Triton 2.51 crashes of it at times, and is not asked."""
    headers = (("triton_grpc_error", "true"),)
    assert fake.stream([infer("fails", ("x", "FP32", [1]), raw=[f4(2)])], headers) == ["INVALID_ARGUMENT: mine"]


def test_metadata_and_configuration(real, fake):
    """Names, types, shapes, versions and what a client reads of a configuration."""
    fields = (
        "name",
        "max_batch_size",
        "input",
        "output",
        "version_policy",
        "model_transaction_policy",
        "dynamic_batching",
    )
    for model in fake_models.models():
        request = pb.ModelMetadataRequest(name=model)
        described = [
            server.call("ModelMetadata", request).replace("onnxruntime_onnx", "python") for server in (real, fake)
        ]
        assert described[1] == described[0]
        ask = pb.ModelConfigRequest(name=model)
        configs = []
        for server in (real, fake):
            raw = server.channel.unary_unary("/inference.GRPCInferenceService/ModelConfig")(ask.SerializeToString())
            config = pb.ModelConfigResponse.FromString(raw).config
            config.dynamic_batching.ClearField("preferred_batch_size")
            configs.append([str(getattr(config, field)) for field in fields] + [config.HasField("sequence_batching")])
        assert configs[1] == configs[0]


def test_statistics(real, fake):
    """The same requests move the same counters by the same numbers."""
    steps = [
        ("ModelInfer", infer("pair", ("a", "INT64", [2, 1]), ("b", "INT64", [2, 1]), raw=[bytes(16), bytes(16)])),
        ("ModelInfer", infer("fails", ("x", "FP32", [1]), raw=[f4(2)])),
        ("ModelInfer", infer("fails", ("x", "FP32", [1]), raw=[f4(0)])),
        ("ModelInfer", infer("pair", ("a", "INT64", [9, 1]), ("b", "INT64", [9, 1]), raw=[bytes(72), bytes(72)])),
    ]
    moved = []
    for server in (real, fake):
        before = counters(server)
        transcript(server, steps)
        after = counters(server)
        moved.append({key: after[key] - before.get(key, 0) for key in after})
    assert moved[0]["pair", "success"] == 1
    assert moved[1] == moved[0]


def counters(server: Raw) -> dict[tuple[str, object], int]:
    found = {}
    for model in ("pair", "fails"):
        raw = server.channel.unary_unary("/inference.GRPCInferenceService/ModelStatistics")(
            pb.ModelStatisticsRequest(name=model).SerializeToString()
        )
        (stats,) = pb.ModelStatisticsResponse.FromString(raw).model_stats
        inner = stats.inference_stats
        found |= {
            (model, "inferences"): stats.inference_count,
            (model, "executions"): stats.execution_count,
            (model, "success"): inner.success.count,
            (model, "fail"): inner.fail.count,
            (model, "queue"): inner.queue.count,
            (model, "compute"): inner.compute_infer.count,
        }
        found |= {(model, batch.batch_size): batch.compute_infer.count for batch in stats.batch_stats}
    return found


def queued(model: str, seconds: float, **parameters: Any) -> Any:
    return infer(model, ("seconds", "FP32", [1, 1]), raw=[f4(seconds)], parameters=parameters)


def refused_by_queue(server: Raw, model: str, **parameters: Any) -> str:
    """What the queue says to a request while two others keep the model busy."""
    ask = server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    busy: list[Any] = []
    try:
        while True:
            busy = [call for call in busy if not call.done()]  # one of them may itself have been refused
            busy += [ask.future(queued(model, 1.5).SerializeToString(), timeout=20) for _ in range(2 - len(busy))]
            try:
                ask(queued(model, 0.001, **parameters).SerializeToString(), timeout=0.5)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    return f"{error.code().name}: {error.details()}"
    finally:
        for call in busy:
            call.exception()


def test_a_full_queue(real, fake):
    """A request beyond the queue's size is refused at once, and named so."""
    answer = refused_by_queue(real, "crowded")
    assert answer.startswith("UNAVAILABLE")
    assert refused_by_queue(fake, "crowded") == answer


def test_a_request_that_waited_too_long(real, fake):
    """Its own limit, where the model allows one, ends its time in the queue."""
    answer = refused_by_queue(real, "queued", timeout=100_000)
    assert answer.startswith("UNAVAILABLE")
    assert refused_by_queue(fake, "queued", timeout=100_000) == answer


DYING = [
    ("ServerReady", pb.ServerReadyRequest()),
    ("ModelInfer", queued("queued", 0)),
    ("ModelInfer", infer("queued", ("seconds", "FP32", [1, 1]), raw=[f4(0)], version="1", id="r9")),
    ("ModelInfer", infer("nope", X, raw=[XS])),
    ("ModelReady", pb.ModelReadyRequest(name="queued")),
    ("ServerMetadata", pb.ServerMetadataRequest()),
    ("ModelMetadata", pb.ModelMetadataRequest(name="queued")),
    ("ModelMetadata", pb.ModelMetadataRequest(name="nope")),
    ("ModelStatistics", pb.ModelStatisticsRequest(name="queued")),
    ("RepositoryIndex", pb.RepositoryIndexRequest()),
    ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="queued")),
    ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="queued")),
    ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
    ("TraceSetting", pb.TraceSettingRequest()),
    ("LogSettings", pb.LogSettingsRequest()),
    ("ServerLive", pb.ServerLiveRequest()),
]


def said_while_stopping(server: Raw, stage: str) -> list[str]:
    """What a server says as soon as it is at a stage of its end."""
    sign = {"waiting": "Server is stopping", "unloading": "no available versions"}[stage]
    while sign not in server.call(*DYING[1]):
        pass
    said = transcript(server, DYING)
    assert sign in said[1]
    return said


def test_a_server_that_was_told_to_stop(request, tmp_path):
    """Between SIGTERM and its end Triton refuses in two ways: while a queue is not empty, and while it unloads."""
    if request.config.getoption("--triton"):
        pytest.skip("needs a server of its own")
    from naiad.server import EmbeddedTriton

    repository = tmp_path / "repository"
    repository.mkdir()
    fake_models.write(repository)
    with EmbeddedTriton(repository, models=["queued"], supervise=False) as triton:
        real = Raw(triton.grpc_address, triton.admin_secret)
        ask = real.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        work = [ask.future(queued("queued", 1.5).SerializeToString()) for _ in range(3)]
        with pytest.raises(grpc.RpcError, match="Request timeout expired"):  # the first one runs, others wait
            ask(queued("queued", 0.001, timeout=1).SerializeToString())
        os.kill(triton.pid, signal.SIGTERM)
        expected = {stage: said_while_stopping(real, stage) for stage in ("waiting", "unloading")}
        assert all(call.result() for call in work)
    with FakeTriton({"queued": fake_models.mirrored()["queued"]}, admin_secret=SECRET) as server:
        fake = Raw(server.grpc_address, SECRET)
        for stage, answers in expected.items():
            with server.draining(stage):
                assert transcript(fake, DYING) == answers

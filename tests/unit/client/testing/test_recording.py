"""Recording a server's answers, and answering from the file without it."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as tritonclient

from naiad.client import AccessDenied, Client, DeadlineExceeded, InvalidInput, ModelNotFound
from naiad.client.testing import FakeModel, FakeTriton, Recorder, Refusal, Replay

SECRET = "the admin secret"
EVERYTHING = {
    "floats": np.array([[np.nan, -0.0, np.inf]], np.float32),
    "brains": np.array([[1.5]], ml_dtypes.bfloat16),
    "words": np.array([[b"", "ä".encode(), b"\x00\xff"]], object),
    "none": np.zeros((1, 0), np.int8),
    "truths": np.array([[True, False]]),
}


def moody(x: np.ndarray) -> dict[str, np.ndarray]:
    if x[0] == 0:
        raise Refusal("nothing comes of nothing", "INVALID_ARGUMENT")
    if x[0] < 0:
        threading.Event().wait(30)
    return {"y": x * 2}


def parts(n: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    for number in range(int(n[0])):
        yield {"part": np.array([number])}


@pytest.fixture
def fake() -> Iterator[FakeTriton]:
    random = np.random.default_rng(0)
    models = {
        "same": lambda **inputs: inputs,
        "dice": lambda x: {"y": random.random(3)},
        "moody": FakeModel(moody, inputs={"x": "FP32[1]"}, outputs={"y": "FP32[1]"}),
        "parts": FakeModel(parts, inputs={"n": "INT64[1]"}, outputs={"part": "INT64[1]"}),
    }
    with FakeTriton(models, admin_secret=SECRET) as server:
        yield server


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "answers.naiad"


def x(value: float) -> dict[str, np.ndarray]:
    return {"x": np.full(1, value, np.float32)}


def test_answers_come_back_bit_for_bit(fake, path):
    """Every type, odd values, empty tensors; the id is the new request's."""
    with Recorder(fake.url, path) as recorder, Client(recorder.url) as client:
        recorded = client.infer("same", EVERYTHING, request_id="first")
        assert recorder.num_records == 1
    with Replay(path) as replay, Client(replay.url) as client:
        again = client.infer("same", EVERYTHING, request_id="second")
        assert (again.request_id, replay.num_unused) == ("second", 0)
    for name, array in recorded.items():
        assert again[name].dtype == array.dtype
        assert again[name].shape == array.shape
        assert array.dtype == object or again[name].tobytes() == array.tobytes()
        assert array.dtype != object or again[name].tolist() == array.tolist()


def test_another_client_may_ask_the_same(fake, path):
    """What counts is what was asked, not who wrote the message."""
    with Recorder(fake.url, path) as recorder, Client(recorder.url) as client:
        client.infer("moody", x(3), parameters={"timeout": 5_000_000})
    wanted = tritonclient.InferInput("x", [1], "FP32")
    wanted.set_data_from_numpy(x(3)["x"])
    with Replay(path) as replay, tritonclient.InferenceServerClient(replay.grpc_address) as client:
        assert client.infer("moody", [wanted], request_id="other").as_numpy("y").tolist() == [6]
        assert client.is_server_live()
        assert client.is_server_ready()


def test_a_handle_works_from_a_recording(fake, path):
    """Metadata and configuration are recorded like everything else."""
    with Recorder(fake.url, path) as recorder, Client(recorder.url) as client:
        client.model("moody")(x=[4.0])
    with Replay(path) as replay, Client(replay.url) as client:
        assert client.model("moody")(x=[4.0])["y"].tolist() == [8]


def test_errors_are_recorded_too(fake, path):
    """With their status and text; what nobody waited for is not."""
    with Recorder(fake.url, path) as recorder, Client(recorder.url) as client:
        with pytest.raises(InvalidInput, match="nothing comes of nothing"):
            client.infer("moody", x(0))
        with pytest.raises(ModelNotFound):
            client.infer("nope", x(1))
        with pytest.raises(DeadlineExceeded):
            client.infer("moody", x(-1), timeout_s=0.2)
        assert fake.calls(model="moody")[-1].wait(20)
    with Replay(path) as replay, Client(replay.url) as client:
        with pytest.raises(InvalidInput, match="nothing comes of nothing"):
            client.infer("moody", x(0))
        with pytest.raises(ModelNotFound, match="unknown model: 'nope'"):
            client.infer("nope", x(1))


def test_the_same_question_is_answered_in_the_order_of_the_file(fake, path):
    """The last answer is given from then on."""
    with Recorder(fake.url, path) as recorder, Client(recorder.url) as client:
        recorded = [client.infer("dice", x(1))["y"].tolist() for _ in range(3)]
    assert recorded[0] != recorded[1]
    with Replay(path) as replay, Client(replay.url) as client:
        assert replay.num_unused == 3
        assert [client.infer("dice", x(1))["y"].tolist() for _ in range(4)] == [*recorded, recorded[-1]]
        assert replay.num_unused == 0


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda c: c.infer("moody", x(5)),
            "ModelInfer of model 'moody' .*the nearest of 2 has input 'x' has 1 other val",
        ),
        (lambda c: c.infer("moody", x(5)), r"the first at 0: 3\.0, not 5\.0"),
        (lambda c: c.infer("moody", {"x": np.ones(2, np.float32)}), r"'x' is FP32 \[1\], not FP32 \[2\]"),
        (lambda c: c.infer("moody", {"x": np.ones(1)}), r"'x' is FP32 \[1\], not FP64 \[1\]"),
        (lambda c: c.infer("moody", {"z": np.ones(1)}), "no input 'z'; an input 'x' too"),
        (lambda c: c.infer("moody", x(3), version=2), "version not given, not 2"),
        (lambda c: c.infer("moody", x(3), parameters={"mine": 1}), "parameter 'mine'"),
        (lambda c: c.infer("moody", x(3), outputs=["y"]), r"other outputs \(all\)"),
        (lambda c: c.infer("none", x(3)), "it has none of that model, but of moody, same"),
        (lambda c: c.infer("same", {"w": np.array(["b"])}), "input 'w' has other values"),
        (lambda c: c.model_metadata("moody"), "has no ModelMetadata of model 'moody'.*none at all"),
        (lambda c: c.models(), "has no RepositoryIndex .*record it with"),
    ],
)
def test_what_was_not_recorded_is_refused_with_the_nearest_that_was(fake, path, ask, message):
    """The error names the model and how the request differs."""
    with Recorder(fake.url, path) as recorder, Client(recorder.url) as client:
        client.infer("moody", x(3))
        client.infer("moody", {"x": np.full(1, 4, np.float32)}, parameters={"other": 1, "mine": 2})
        client.infer("same", {"w": np.array(["a"])})
    with Replay(path) as replay, Client(replay.url) as client, pytest.raises(InvalidInput, match=message):
        ask(client)


def test_secrets_are_never_written(fake, path):
    """Neither the admin secret nor any other header, whatever it is called."""
    with Recorder(fake.admin_url, path) as recorder:
        with Client(
            recorder.url, admin_secret=SECRET, metadata={"authorization": "Bearer t0ken", "x-api-key": "k3y"}
        ) as client:
            client.models()
            client.load("moody")
            client.infer("moody", x(3))
        with Client(recorder.url) as stranger, pytest.raises(AccessDenied):
            stranger.models()
        assert fake.calls("RepositoryIndex")[0].metadata["x-api-key"] == "k3y"
        assert SECRET not in repr(recorder) + recorder.url
    written = path.read_bytes()
    for secret in (SECRET, "t0ken", "k3y", "authorization", "admin-key"):
        assert secret.encode() not in written.replace(b"triton-grpc-protocol-admin-key'", b"")
    assert b"moody" in written


def test_deadlines_and_cancellation_are_passed_on(fake, path):
    """The server knows how long the caller waits, and that it left."""
    with Recorder(fake.url, path) as recorder, Client(recorder.url) as client:
        with fake.hang():
            with pytest.raises(DeadlineExceeded):
                client.infer("moody", x(1), timeout_s=0.5)
            (request,) = fake.calls()
            assert 0 < request.deadline_left_s <= 0.5
            assert request.wait(20)
        assert request.cancelled


def test_shared_memory_is_not_offered(fake, path):
    """What is not on the wire cannot be recorded, and the client sends its tensors instead."""
    with (
        Recorder(fake.url, path) as recorder,
        tritonclient.InferenceServerClient(recorder.grpc_address) as client,
        pytest.raises(tritonclient.InferenceServerException, match="UNIMPLEMENTED"),
    ):
        client.register_system_shared_memory("r", "/nothing", 64)
    assert b"/nothing" not in path.read_bytes()


class Stream:
    """Sends requests of `parts` over one stream, and collects what comes."""

    def __init__(self, address: str) -> None:
        self.client = tritonclient.InferenceServerClient(address)
        self.got: list[tuple[str, object]] = []
        self.changed = threading.Condition()
        self.client.start_stream(self.add)

    def add(self, result, error) -> None:
        with self.changed:
            if error is None:
                part = result.as_numpy("part")
                self.got.append((result.get_response().id, None if part is None else int(part[0])))
            else:
                self.got.append(("", str(error)))
            self.changed.notify_all()

    def ask(self, number: int, request_id: str, expected: int) -> None:
        wanted = tritonclient.InferInput("n", [1], "INT64")
        wanted.set_data_from_numpy(np.array([number]))
        self.client.async_stream_infer("parts", [wanted], request_id=request_id)
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= expected, timeout=20)

    def close(self) -> list[tuple[str, object]]:
        self.client.stop_stream()
        self.client.close()
        return self.got


def test_streams_are_recorded_and_played(fake, path):
    """Answers come with the ids of the requests that ask now; another question ends the stream."""
    with Recorder(fake.url, path) as recorder:
        stream = Stream(recorder.grpc_address)
        stream.ask(3, "a", 3)
        stream.ask(2, "b", 5)
        recorded = stream.close()
    assert recorded == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)]
    with Replay(path) as replay:
        stream = Stream(replay.grpc_address)
        stream.ask(3, "c", 3)
        stream.ask(2, "d", 5)
        assert stream.close() == [("c", 0), ("c", 1), ("c", 2), ("d", 0), ("d", 1)]
        stream = Stream(replay.grpc_address)
        stream.ask(3, "c", 3)
        stream.ask(9, "d", 4)
        assert "input 'n' has 1 other values, the first at 0" in str(stream.close()[-1])


KILLED = """
import sys, numpy as np
from naiad.client import Client
from naiad.client.testing import FakeTriton, Recorder
with FakeTriton({"big": lambda x: {"y": x}}) as fake, Recorder(fake.url, sys.argv[1]) as recorder:
    with Client(recorder.url) as client:
        number = 0
        while True:
            client.infer("big", {"x": np.full(300_000, number, np.float32)})
            number += 1
            print(number, flush=True)
"""


def test_a_recording_survives_a_kill(path):
    """What was answered before is in the file, and recording goes on where the last whole record ends."""
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        answered = [int(next(process.stdout)) for _ in range(5)][-1]
        process.send_signal(signal.SIGKILL)
    with Replay(path) as replay, Client(replay.url) as client:
        for number in range(answered):
            assert client.infer("big", {"x": np.full(300_000, number, np.float32)})["y"][0] == number


@pytest.mark.parametrize("cut", [1, 5, 9, 100])
def test_half_a_record_at_the_end_is_left_out(fake, path, cut):
    """And replaced by the next one; damage within a record ends the reading before it."""
    with Recorder(fake.url, path) as recorder, Client(recorder.url) as client:
        for value in (1, 2, 3):
            client.infer("moody", x(value))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Replay(path) as replay:
        assert replay.num_records == 2
    with Recorder(fake.url, path) as recorder, Client(recorder.url) as client:
        client.infer("moody", x(3))
    with Replay(path) as replay:
        assert replay.num_records == 3
    assert len(path.read_bytes()) == len(whole)
    damaged = bytearray(whole)
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with Replay(path) as replay:
        assert replay.num_records == 2


def test_another_file_is_no_recording(fake, tmp_path):
    """It is named, and left alone."""
    with pytest.raises(InvalidInput, match=r"expected a recording at .*missing\.naiad, found No such file"):
        Replay(tmp_path / "missing.naiad")
    (tmp_path / "notes.txt").write_text("buy milk")
    for use in (lambda path: Replay(path), lambda path: Recorder(fake.url, path)):
        with pytest.raises(InvalidInput, match=r"found a file that begins with b'buy milk'"):
            use(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "buy milk"


def test_a_server_that_breaks_off_is_recorded_as_such(fake, path):
    """A connection lost behind the recorder is UNAVAILABLE before it, and later."""
    fake.drop(1)
    with Recorder(fake.url, path) as recorder, tritonclient.InferenceServerClient(recorder.grpc_address) as client:
        wanted = tritonclient.InferInput("x", [1], "FP32")
        wanted.set_data_from_numpy(x(1)["x"])
        with pytest.raises(tritonclient.InferenceServerException, match="UNAVAILABLE"):
            client.infer("moody", [wanted])
        fake.half_answer(1, ending="trailers")
        with pytest.raises(tritonclient.InferenceServerException, match="INTERNAL"):
            while True:  # the lost connection may be noticed a call later
                try:
                    client.infer("moody", [wanted])
                except tritonclient.InferenceServerException as error:
                    if "UNAVAILABLE" not in str(error.status()):
                        raise

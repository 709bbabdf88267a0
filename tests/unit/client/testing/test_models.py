"""Models made from functions."""

import functools
import operator
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as tritonclient

from naiad.client import AsyncClient, Client, InferenceFailed, InvalidInput, ModelNotFound, Overloaded
from naiad.client.testing import FakeModel, FakeSequence, FakeTriton, Refusal, Request


def serve(model, **options) -> FakeTriton:
    return FakeTriton({"m": model}, **options)


def test_a_function_is_enough():
    """Its parameters are the inputs; what has a default may be left out."""
    with serve(lambda a, b=1: {"sum": a + b}) as fake, Client(fake.url) as client:
        model = client.model("m")
        assert [str(tensor) for tensor in model.metadata.inputs] == ["a FP32 [?, ?]", "b FP32 [?, ?]"]
        assert model(a=[[1, 2]])["sum"].tolist() == [[2, 3]]
        assert model(a=[[1, 2]], b=[[1, 1]])["sum"].tolist() == [[2, 3]]
        with pytest.raises(InvalidInput, match="expects the input a FP32"):
            model(b=[[1.0]])


def test_without_a_description_any_type_and_shape_is_taken():
    """What a bare call sends is what the function gets."""
    with serve(lambda x: {"x": x}) as fake, Client(fake.url) as client:
        for x in (np.arange(3), np.array([[[True]]]), np.array(["a", "ä"]), np.zeros((0, 2), ml_dtypes.bfloat16)):
            answer = client.infer("m", {"x": x})["x"]
            assert answer.shape == x.shape
            assert answer.tolist() == ([b"a", "ä".encode()] if x.dtype.kind == "U" else x.tolist())


def test_a_function_may_take_whatever_comes():
    """Functions of C code and of keywords have no list of inputs, and refuse nothing."""
    with FakeTriton({"any": lambda **inputs: inputs, "dict": dict}) as fake, Client(fake.url) as client:
        for model in ("any", "dict"):
            assert set(client.infer(model, {"p": np.ones(1), "q": np.ones(2)})) == {"p", "q"}


def test_an_example_describes_a_model():
    """Types and shapes of what goes in and comes out, with a first dimension that varies."""
    calls = []

    def model(image: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
        calls.append(1)
        return {"mean": image.mean(axis=(1, 2)) * scale, "label": np.array(["cat"] * len(image))}

    example = {"image": np.zeros((1, 8, 8), np.float16), "scale": np.ones(1, np.float16)}
    with serve(FakeModel(model, example=example)) as fake, Client(fake.url) as client:
        assert len(calls) == 1
        metadata = client.model_metadata("m")
        assert [str(tensor) for tensor in metadata.inputs] == ["image FP16 [?, 8, 8]", "scale FP16 [?]"]
        assert [str(tensor) for tensor in metadata.outputs] == ["mean FP16 [?]", "label BYTES [?]"]
        answer = client.model("m")(image=np.ones((2, 8, 8), np.float16), scale=np.full(2, 3, np.float16))
        assert (answer["mean"].tolist(), answer["label"].tolist()) == ([3, 3], [b"cat", b"cat"])


def test_outputs_take_the_declared_type_if_they_have_none():
    """Lists and numbers do; an array of another type is the test's mistake, and the error says so."""
    outputs = {"y": "INT8[-1]"}
    x = {"x": np.ones(1, np.float32)}
    with FakeTriton() as fake, Client(fake.url) as client:
        fake.serve("m", FakeModel(lambda x: {"y": [1, 2]}, inputs={"x": "FP32[1]"}, outputs=outputs))
        assert client.infer("m", x)["y"].dtype == np.int8
        fake.serve("m", FakeModel(lambda x: {"y": x}, inputs={"x": "FP32[1]"}, outputs=outputs))
        with pytest.raises(InferenceFailed, match="output 'y' of model 'm' is INT8: its function gave float32"):
            client.infer("m", x)
        fake.serve("m", FakeModel(lambda x: {"z": x}, inputs={"x": "FP32[1]"}, outputs=outputs))
        with pytest.raises(InferenceFailed, match="has the output 'y', its function gave z"):
            client.infer("m", x)
        fake.serve("m", lambda x: x)
        with pytest.raises(InferenceFailed, match="returns arrays by output name, found ndarray"):
            client.infer("m", x)


def test_a_function_refuses_with_the_status_it_likes():
    """A refusal is an answer; any other exception is a model that broke."""

    def moody(x: np.ndarray) -> dict[str, np.ndarray]:
        if x[0] > 1:
            raise Refusal("Exceeds maximum queue size", "UNAVAILABLE")
        raise KeyError("lost")

    with serve(moody) as fake, Client(fake.url) as client:
        with pytest.raises(Overloaded):
            client.infer("m", {"x": np.full(1, 2.0)}, timeout_s=1)
        with pytest.raises(InferenceFailed, match="KeyError: 'lost'"):
            client.infer("m", {"x": np.ones(1)})
        (statistics,) = client.statistics("m")
        assert statistics.fail.count == 1
    with pytest.raises(InvalidInput, match="'FINE'"):
        Refusal("no", "FINE")


def test_a_function_sees_its_request():
    """Parameters and headers decide what it answers, and it learns that nobody waits any more."""
    left = threading.Event()

    def model(x: np.ndarray, request: Request) -> dict[str, np.ndarray]:
        if request.parameters.get("wait") and request.wait(20):
            left.set()
        return {"y": x * request.parameters["factor"]}

    with serve(model) as fake, Client(fake.url) as client:
        x = np.ones(1, np.float32)
        assert client.infer("m", {"x": x}, parameters={"factor": 3})["y"].tolist() == [3]
        with pytest.raises(TimeoutError):
            client.infer("m", {"x": x}, parameters={"factor": 3, "wait": True}, timeout_s=0.2)
        assert left.wait(10)
        assert fake.calls()[-1].cancelled


def test_versions_are_functions_of_their_own():
    """The newest is the default; another one can be asked for, and a third is not there."""
    model = FakeModel({"2": lambda x: {"y": x * 2}, "10": lambda x: {"y": x * 10}}, inputs={"x": "FP32[1]"})
    with serve(model) as fake, Client(fake.url) as client:
        x = {"x": np.ones(1, np.float32)}
        assert client.model_metadata("m").versions == ("2", "10")
        assert [client.infer("m", x, version=version)["y"][0] for version in (None, 2, 10)] == [10, 2, 10]
        with pytest.raises(ModelNotFound):
            client.infer("m", x, version=3)


def test_models_come_and_go_while_it_runs():
    """Another function under the same name, and none."""
    with FakeTriton() as fake, Client(fake.url) as client:
        fake.serve("m", lambda x: {"y": x})
        assert client.infer("m", {"x": np.ones(1)})["y"].tolist() == [1]
        fake.serve("m", lambda x: {"y": -x})
        assert client.infer("m", {"x": np.ones(1)})["y"].tolist() == [-1]
        fake.remove("m")
        fake.remove("m")
        with pytest.raises(ModelNotFound):
            client.infer("m", {"x": np.ones(1)})


def test_labels_are_the_names_of_classes():
    """The best come first, as Triton's classification extension has it."""
    model = FakeModel(
        lambda x: {"y": x},
        inputs={"x": "FP32[-1,3]"},
        outputs={"y": "FP32[-1,3]"},
        max_batch_size=4,
        labels={"y": ["cat", "dog"]},
    )
    with serve(model) as fake, tritonclient.InferenceServerClient(fake.grpc_address) as client:
        wanted = tritonclient.InferInput("x", [2, 3], "FP32")
        wanted.set_data_from_numpy(np.array([[1, 2, 3], [3, 2, 1]], np.float32))
        best = tritonclient.InferRequestedOutput("y", class_count=2)
        assert client.infer("m", [wanted], outputs=[best]).as_numpy("y").tolist() == [
            [b"3.000000:2", b"2.000000:1:dog"],
            [b"3.000000:0:cat", b"2.000000:1:dog"],
        ]


def parts(n: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    for number in range(int(n[0])):
        yield {"part": np.array([number])}


class Answers:
    """What a stream of tritonclient gives, put in order."""

    def __init__(self, fake: FakeTriton, number: int) -> None:
        self.got: list[object] = []
        self.expected = number
        self.done = threading.Event()
        self.client = tritonclient.InferenceServerClient(fake.grpc_address)
        self.client.start_stream(self.add)

    def add(self, result, error) -> None:
        self.got.append(str(error) if error else result)
        if len(self.got) == self.expected:
            self.done.set()

    def all(self) -> list[object]:
        assert self.done.wait(20)
        self.client.stop_stream()
        self.client.close()
        return self.got


def number(value: int) -> tritonclient.InferInput:
    wanted = tritonclient.InferInput("n", [1], "INT64")
    wanted.set_data_from_numpy(np.array([value]))
    return wanted


def test_a_generator_is_a_decoupled_model():
    """Each mapping that it yields is an answer, and the empty last one comes to those who want it."""
    with serve(FakeModel(parts, inputs={"n": "INT64[1]"}, outputs={"part": "INT64[1]"})) as fake:
        answers = Answers(fake, 4)
        answers.client.async_stream_infer("m", [number(3)], request_id="a", enable_empty_final_response=True)
        got = answers.all()
        assert [int(result.as_numpy("part")[0]) for result in got[:3]] == [0, 1, 2]
        last = got[3].get_response()
        assert (last.parameters["triton_final_response"].bool_param, last.id, len(last.outputs)) == (True, "a", 0)
        with Client(fake.url) as client, pytest.raises(Exception, match="decoupled"):
            client.infer("m", {"n": np.array([1])})


def test_many_requests_share_a_stream():
    """Their answers come mixed, each with the id of its request."""
    gate = threading.Event()

    def slow(n: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        if n[0] == 0:
            assert gate.wait(20)
        yield {"part": n}
        gate.set()

    with serve(FakeModel(slow, inputs={"n": "INT64[1]"})) as fake:
        answers = Answers(fake, 5)
        for value in range(5):
            answers.client.async_stream_infer("m", [number(value)], request_id=str(value))
        got = [(result.get_response().id, int(result.as_numpy("part")[0])) for result in answers.all()]
    assert sorted(got) == [(str(value), value) for value in range(5)]
    assert got[0] != ("0", 0)


def test_an_endless_model_waits_for_a_reader_and_ends_with_the_stream():
    """It is asked for no more than the stream takes."""
    taken = [0]
    ended = threading.Event()

    def endless(n: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        try:
            while True:
                taken[0] += 1
                yield {"part": np.zeros(1_000_000)}
        finally:
            ended.set()

    with serve(FakeModel(endless, inputs={"n": "INT64[1]"})) as fake:
        answers = Answers(fake, 3)
        answers.client.async_stream_infer("m", [number(0)])
        assert answers.done.wait(20)
        answers.client.stop_stream(cancel_requests=True)
        assert ended.wait(20)
        answers.client.close()
    assert taken[0] < 10_000


def test_state_is_kept_for_each_sequence():
    """From the request that starts it to the one that ends it."""

    def total(x: np.ndarray, sequence: FakeSequence) -> dict[str, np.ndarray]:
        sequence.state["total"] = sequence.state.get("total", 0) + x
        return {"total": sequence.state["total"]}

    model = FakeModel(total, inputs={"x": "INT64[1]"}, outputs={"total": "INT64[1]"})
    with serve(model) as fake, Client(fake.url) as client:
        send = functools.partial(client.infer, "m", {"x": np.array([1])})
        answers = [
            send(sequence_id=key, sequence_start=step == 0, sequence_end=step == 2)["total"][0]
            for step in range(3)
            for key in (7, "eight")
        ]
        assert answers == [1, 1, 2, 2, 3, 3]
        with pytest.raises(InvalidInput, match="must specify the START flag"):
            send(sequence_id=7)
        send(sequence_id=7, sequence_start=True)
        fake.restart()
        with pytest.raises(InvalidInput, match="must specify the START flag"), Client(fake.url) as again:
            again.infer("m", {"x": np.array([1])}, sequence_id=7)


async def test_the_asyncio_client_finds_a_triton_too():
    """Calls, metadata and models."""
    with FakeTriton({"m": lambda x: {"y": x}}, admin_secret="open") as fake:
        async with AsyncClient(fake.admin_url) as client:
            assert await client.ready("m")
            assert (await client.infer("m", {"x": np.ones(2)}))["y"].tolist() == [1, 1]
            assert [state.name for state in await client.models()] == ["m"]
            assert (await client.server_metadata()).name == "triton"


def test_a_secret_guards_its_administration():
    """As Triton's does; `client()` and `admin_url` carry it."""
    with serve(lambda x: {"y": x}, admin_secret="a/b@c") as fake:
        assert fake.admin_url == f"grpc://:a%2Fb%40c@{fake.grpc_address}"
        with fake.client() as known, Client(fake.admin_url) as too, Client(fake.url) as stranger:
            assert known.models() == too.models()
            with pytest.raises(Exception, match="admin secret"):
                stranger.models()


def test_a_hundred_callers_are_answered_side_by_side():
    """None waits for another, unless the model has instances."""
    together = threading.Barrier(100)

    def meet(x: np.ndarray) -> dict[str, np.ndarray]:
        together.wait(30)
        return {"y": x}

    with serve(meet) as fake, Client(fake.url) as client, ThreadPoolExecutor(100) as pool:
        answers = pool.map(lambda number: client.infer("m", {"x": np.array([number])})["y"][0], range(100))
        assert list(answers) == list(range(100))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FakeModel(3), "a model is a function"),
        (lambda: FakeModel({}), "versions are whole numbers"),
        (lambda: FakeModel({"new": len}), "versions are whole numbers"),
        (lambda: FakeModel(len, inputs={"x": "FP99[1]"}), "'x': expected a data type and a shape .*, found 'FP99"),
        (lambda: FakeModel(len, inputs={"x": "FP32"}), "expected a data type and a shape"),
        (lambda: FakeModel(len, inputs={"x": "FP32[3]"}, max_batch_size=4), "first dimension is the batch"),
        (lambda: FakeModel(len, inputs={"x": "FP32[3]"}, optional=["y"]), "must be inputs"),
        (lambda: FakeModel(len, inputs={"x": "FP32[3]"}, instances=0), "at least 1"),
        (lambda: FakeModel(len, inputs={"x": "FP32[3]"}, example={"x": [1]}), "give one or the other"),
        (lambda: FakeModel(len, inputs={"x": "FP32[3]"}, config={"no_such": 1}), "fields of a model's configuration"),
        (lambda: FakeTriton({"m": operator}), "a model is a function"),
    ],
)
def test_a_wrong_description_is_refused(make, message):
    """When the model is made, not when it is called."""
    with pytest.raises(InvalidInput, match=message):
        make()

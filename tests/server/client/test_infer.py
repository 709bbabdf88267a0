"""Inference on the real Triton, with tritonclient as the reference."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as reference

import client_models
from naiad.client import (
    AsyncClient,
    Cancelled,
    Client,
    ClientClosed,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    Output,
    RankedClass,
    ServerUnavailable,
)

DTYPES = {
    "BOOL": np.bool_,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits}") for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)},
}


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    dice = np.random.default_rng(len(name) + sum(shape))
    if name == "STRING":
        words = np.array([b"", b"a", "häß".encode(), b"x" * 300], object)
        return words[dice.integers(0, 4, shape)]
    if name == "BOOL":
        return dice.integers(0, 2, shape).astype(bool)
    dtype = np.dtype(DTYPES[name])
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return dice.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return dice.standard_normal(shape).astype(dtype)


def ask_reference(address: str, model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    wanted = []
    for name, array in inputs.items():
        datatype = "BF16" if array.dtype == ml_dtypes.bfloat16 else reference.np_to_triton_dtype(array.dtype)
        wanted.append(reference.InferInput(name, list(array.shape), datatype))
        wanted[-1].set_data_from_numpy(array)
    with reference.InferenceServerClient(address) as client:
        result = client.infer(model, wanted)
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


@pytest.mark.parametrize("model", client_models.ECHOES)
@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (0, 4), (3, 0), (64, 257)], ids=str)
def test_answers_are_bit_equal_to_tritonclients_for_every_datatype(triton, address, model, shape):
    """Fourteen data types, blocking and asyncio, empty tensors too: the same bits, and what was sent."""
    inputs = {f"in_{name}": tensor(name, shape) for name in client_models.ECHOES[model]}

    async def ask_async() -> dict[str, np.ndarray]:
        async with AsyncClient(f"grpc://{address}") as client:
            return dict(await client.model(model).infer(inputs))

    expected = ask_reference(address, model, inputs)
    for answer in (triton.model(model).infer(inputs), asyncio.run(ask_async()), triton.infer(model, inputs)):
        assert set(answer) == set(expected)
        for name, array in expected.items():
            got = answer[name]
            assert got.shape == shape
            assert got.flags.writeable
            if array.dtype == object:
                assert got.tolist() == array.tolist() == inputs[name.removesuffix("_out")].tolist()
            else:
                assert got.dtype == inputs[name.removesuffix("_out")].dtype
                assert got.tobytes() == array.tobytes() == inputs[name.removesuffix("_out")].tobytes()


def test_a_model_is_called_in_one_line(triton):
    """Arrays, lists and single versions; the answer says who gave it."""
    scale = triton.model("scale")
    answer = scale(x=[[1, 2, 3]])
    np.testing.assert_array_equal(answer["y"], np.array([[3, 6, 9]], np.float32))
    assert (answer.model_name, answer.model_version) == ("scale", "2")
    first = triton.model("scale", version=1)
    np.testing.assert_array_equal(first(x=np.ones((2, 3), np.float32))["y"], np.full((2, 3), 2, np.float32))
    assert first.infer({"x": [[1, 2, 3]]}, request_id="mine").request_id == "mine"
    assert [str(tensor) for tensor in scale.metadata.inputs] == ["x FP32 [?, 3]"]
    assert scale.config.max_batch_size == 8


def test_any_memory_layout_is_understood(triton):
    """Transposed, strided and big-endian input gives what its plain copy gives."""
    scale = triton.model("scale")
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    for x in (np.asfortranarray(plain), plain.astype(">f4"), np.repeat(plain, 2, axis=0)[::2]):
        np.testing.assert_array_equal(scale(x=x)["y"], plain * 3)


def test_outputs_are_chosen_and_optional_inputs_left_out(triton):
    """Only what was asked for comes back; an optional input has its default."""
    maybe = triton.model("maybe")
    answer = maybe.infer({"a": [1, 2]}, outputs=["difference"])
    assert list(answer) == ["difference"]
    np.testing.assert_array_equal(answer["difference"], np.array([0.5, 1.5], np.float32))
    np.testing.assert_array_equal(maybe(a=[1, 2], b=[10, 20])["sum"], np.array([11, 22], np.float32))


def test_classification_gives_scores_indices_and_labels(triton):
    """The best classes come as text, as Triton's classification extension writes them, and as what it says."""
    answer = triton.model("labelled").infer(
        {"x": [[0.25, 2, 1], [3, 0, -1]]}, outputs=[Output(name="y", class_count=2)]
    )
    assert answer["y"].tolist() == [[b"2.000000:1:dog", b"1.000000:2:fish"], [b"3.000000:0:cat", b"0.000000:1:dog"]]
    assert answer.classes("y") == [
        [RankedClass(2.0, 1, "dog"), RankedClass(1.0, 2, "fish")],
        [RankedClass(3.0, 0, "cat"), RankedClass(0.0, 1, "dog")],
    ]
    without_labels = triton.model("scale").infer({"x": [[1, 2, 3]]}, outputs=[Output(name="y", class_count=1)])
    assert without_labels.classes("y") == [[RankedClass(9.0, 2, None)]]
    with pytest.raises(InvalidInput, match=r"outputs=\[Output\(name='y', class_count=...\)\]"):
        triton.model("scale")(x=[[1, 2, 3]]).classes("y")


async def test_outputs_are_received_in_memory_of_the_callers(triton, url):
    """By a handle, without one and by asyncio, again and again; the result has the very array."""
    x, buffers = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((5, 2, 3), np.float32)
    async with AsyncClient(url) as client:
        for number in range(3):
            given, outs = {"x": x + number}, [{"y": buffer} for buffer in buffers]
            answers = (
                triton.model("scale").infer(given, out=outs[0]),
                triton.infer("scale", given, out=outs[1], outputs=["y"]),
                triton.model("scale").submit(given, out=outs[2]).result(),
                await client.model("scale").infer(given, out=outs[3]),
                await client.infer("scale", given, out=outs[4]),
            )
            for answer, out in zip(answers, outs, strict=True):
                assert answer["y"] is out["y"]
            np.testing.assert_array_equal(buffers, np.stack([3 * (x + number)] * 5))


def test_a_buffer_that_does_not_fit_is_refused(triton):
    """Before anything is sent where the model is known, else when the answer is there; the client stays usable."""
    scale, wrong = triton.model("scale"), np.zeros((2, 4), np.float32)
    before = sum(version.success.count for version in triton.statistics("scale"))
    with pytest.raises(
        InvalidInput, match=r"out\['y'\] is float32 \[2, 4\], the output of model 'scale' is y FP32 \[\?, 3\]"
    ):
        scale.infer({"x": np.zeros((2, 3), np.float32)}, out={"y": wrong})
    assert sum(version.success.count for version in triton.statistics("scale")) == before
    with pytest.raises(InvalidInput, match=r"out\['y'\] is float32 \[2, 4\], the answer has FP32 \[2, 3\]"):
        triton.infer("scale", {"x": np.zeros((2, 3), np.float32)}, out={"y": wrong})
    with pytest.raises(InvalidInput, match=r"the answer has FP32 \[2, 3\]"):
        scale.infer({"x": np.zeros((2, 3), np.float32)}, out={"y": wrong[:1, :3].copy()})
    assert scale(x=[[1, 2, 3]])["y"].tolist() == [[3, 6, 9]]


async def test_a_safe_cast_is_made_on_request(triton, url):
    """For one request or for all of a handle; what could lose a value is refused all the same."""
    narrow, wide = np.ones((1, 3), np.float16), np.ones((1, 3))
    always = triton.model("scale", cast="safe")
    async with AsyncClient(url) as client:
        for answer in (
            always(x=narrow),
            triton.model("scale").infer({"x": narrow}, cast="safe"),
            await client.model("scale", cast="safe")(x=narrow),
            await client.model("scale").infer({"x": narrow}, cast="safe"),
        ):
            assert answer["y"].tolist() == [[3, 3, 3]]
    for refused in (
        lambda: triton.model("scale")(x=narrow),
        lambda: always(x=wide),
        lambda: triton.model("scale").infer({"x": wide}, cast="safe"),
    ):
        with pytest.raises(InvalidInput, match=r"'x' .* is FP32, found FP\d\d"):
            refused()
    with pytest.raises(InvalidInput, match="cast='safe' needs to know the model's types"):
        triton.infer("scale", {"x": narrow}, cast="safe")
    with pytest.raises(InvalidInput, match="cast is None or 'safe', found 'unsafe'"):
        triton.model("scale", cast="unsafe")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"expects the input x FP32 \[\?, 3\]; found none"),
        ({"z": [[1, 2, 3]]}, r"no input 'z'; its inputs are: x FP32 \[\?, 3\]"),
        ({"x": np.zeros((1, 3))}, r"'x' .* is FP32, found FP64 \(float64\); convert it: array.astype\('float32'\)"),
        ({"x": np.zeros((1, 3), np.complex64)}, r"'x' .* is FP32, found complex64"),
        ({"x": np.zeros((1, 4), np.float32)}, r"has the shape \[\?, 3\], found \[1, 4\]"),
        ({"x": np.zeros(3, np.float32)}, r"found \[3\]; a single sample needs the batch dimension too: array\[None\]"),
        ({"x": np.zeros((0, 3), np.float32)}, r"at least one row a request, found none"),
        ({"x": np.zeros((9, 3), np.float32)}, r"at most 8 rows a request, found 9"),
        ({"x": np.zeros((1, 1, 3), np.float32)}, r"has the shape \[\?, 3\], found \[1, 1, 3\]"),
        ({"x": [["a", "b", "c"]]}, r"expected an array of FP32, found list"),
        ({"x": [[1, 2, 3], [4]]}, r"expected an array of FP32, found list"),
    ],
)
def test_wrong_input_is_refused_before_it_is_sent(triton, inputs, message):
    """The message names the tensor, what was expected and what was given; the server's counters do not move."""
    scale = triton.model("scale")
    assert scale.metadata.name == "scale"
    before = triton.statistics("scale")
    with pytest.raises(InvalidInput, match=message):
        scale.infer(inputs)
    after = triton.statistics("scale")
    assert [s.success.count + s.fail.count for s in after] == [s.success.count + s.fail.count for s in before]


def test_an_unknown_output_is_refused_before_it_is_sent(triton):
    """The message lists the outputs there are."""
    with pytest.raises(InvalidInput, match=r"no output 'q'; its outputs are: y FP32"):
        triton.model("scale").infer({"x": [[1, 2, 3]]}, outputs=["q"])


def test_wrong_input_without_a_handle_is_refused_by_the_server(triton):
    """The error carries what one would log."""
    with pytest.raises(InvalidInput, match="data-type is 'FP64'") as caught:
        triton.infer("scale", {"x": np.zeros((1, 3))}, request_id="r7")
    error = caught.value
    assert (error.model, error.request_id, error.status, error.retryable) == ("scale", "r7", "INVALID_ARGUMENT", False)
    assert error.endpoint == triton.url


@pytest.mark.parametrize(("model", "version"), [("nope", None), ("scale", 9)])
def test_an_unknown_model_or_version_has_its_own_error(triton, model, version):
    """The handle and the bare call say the same."""
    with pytest.raises(ModelNotFound, match="unknown model"):
        triton.model(model, version)(x=[[1, 2, 3]])
    with pytest.raises(ModelNotFound, match="unknown model"):
        triton.infer(model, {"x": np.zeros((1, 3), np.float32)}, version=version)


def test_a_server_that_is_not_there_is_named_with_what_to_do():
    """Nothing is retried beyond what was asked for, and the address is in the message."""
    with (
        Client("grpc://127.0.0.1:9", timeout=5.0) as nobody,
        pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:9 .*naiad serve") as caught,
    ):
        nobody.model("scale")(x=[[1, 2, 3]])
    assert caught.value.retryable


def test_a_deadline_ends_the_call_and_the_client_stays_usable(triton):
    """The error says how long was waited; the next call works."""
    slow = triton.model("slow")
    slow(seconds=[0.0])
    with pytest.raises(DeadlineExceeded, match=r"no answer .* within 0\.2 s"):
        slow.infer({"seconds": [30.0]}, timeout_s=0.2)
    assert slow(seconds=[0.0])["cancelled"].shape == (1,)


def wait_until_busy(url: str) -> None:
    """Return when the one instance of `slow` works on somebody's request: another one then waits in the queue."""
    with Client(url) as other:
        for _ in range(200):
            try:
                other.infer("slow", {"seconds": np.zeros(1, np.float32)}, timeout_s=0.2)
            except DeadlineExceeded:
                return
    pytest.fail("the request never began")


async def test_cancelling_a_task_cancels_on_the_server(url):
    """The model sees that nobody waits any longer."""
    async with AsyncClient(url) as client:
        slow = client.model("slow")
        before = int((await slow(seconds=[0.0]))["cancelled"][0])
        running = asyncio.create_task(slow(seconds=[60.0]))
        await asyncio.to_thread(wait_until_busy, url)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert int((await slow(seconds=[0.0]))["cancelled"][0]) == before + 1


def test_threads_share_a_client(triton):
    """Answers go to those who asked."""
    scale = triton.model("scale", version=1)

    def ask(number: int) -> bool:
        x = np.full((1 + number % 8, 3), number, np.float32)
        return np.array_equal(scale(x=x)["y"], x * 2)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(500)))


async def test_tasks_share_a_client(url):
    """Five hundred calls at once, each with its own answer."""
    async with AsyncClient(url) as client:
        scale = client.model("scale", version=1)
        answers = await asyncio.gather(*(scale(x=[[number, 0, 0]]) for number in range(500)))
    assert [answer["y"][0, 0] for answer in answers] == [2.0 * number for number in range(500)]


def test_a_closed_client_says_so(url):
    """Closing twice does no harm; calling afterwards is the caller's mistake."""
    client = Client(url)
    assert client.live()
    client.close()
    client.close()
    with pytest.raises(ClientClosed, match="make a new one"):
        client.server_metadata()


def test_closing_ends_calls_that_wait(url):
    """Another thread's call ends at once, with an error of this package."""
    client = Client(url)
    slow = client.model("slow")
    slow(seconds=[0.0])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(slow, seconds=[60.0])
        wait_until_busy(url)
        client.close()
        with pytest.raises((ClientClosed, Cancelled)):
            waiting.result(timeout=30)


def test_a_large_tensor_goes_both_ways(triton):
    """40 MB in and out, which is beyond gRPC's default limit of 4 MB."""
    inputs = {f"in_{name}": tensor(name, (0, 1)) for name in client_models.NUMBERS}
    inputs["in_FP32"] = np.random.default_rng(0).random((10, 1_000_000), np.float32)
    np.testing.assert_array_equal(triton.model("echo").infer(inputs)["in_FP32_out"], inputs["in_FP32"])

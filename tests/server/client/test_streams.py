"""Streams of the real Triton: decoupled models, and others through the same door."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2 as pb

import client_models
from naiad.client import (
    AsyncClient,
    AsyncModel,
    Client,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    Model,
    ModelNotFound,
    ServerUnavailable,
    Timeout,
)
from naiad.client._protocol.stream import status_of
from naiad.server import EmbeddedTriton

BEGUN, ENDED, SENT, CANCELLED = range(4)
AT_ONCE = 50
FOR_EVER = {"n": [10**6], "gap_s": [0.01]}


@pytest.fixture
def parts(triton: Client) -> Model:
    return triton.model("parts")


def numbers(stream) -> list[int]:
    return [int(part["i"][0]) for part in stream]


async def numbers_async(stream) -> list[int]:
    return [int(part["i"][0]) async for part in stream]


def counts(model: Model) -> list[int]:
    (part,) = model.stream(n=[-1])
    return part["counts"].tolist()


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("mark_last", [0, 1])
@pytest.mark.parametrize("n", [0, 1, 2, 300])
async def test_all_parts_arrive_in_order_and_the_end_is_seen(url, parts, n, mark_last):
    """Whether the end is marked on the last part or comes alone; nothing of the mark is shown."""
    inputs = {"n": [n], "mark_last": [mark_last]}
    assert numbers(parts.stream(**inputs)) == list(range(n))
    assert all(part.parameters == {} for part in parts.stream(**inputs))
    async with AsyncClient(url) as triton:
        assert await numbers_async(triton.model("parts").stream(**inputs)) == list(range(n))


async def test_a_model_that_is_not_decoupled_answers_with_one_part(url, triton):
    """The same arrays as with a call."""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (part,) = triton.model("scale", 1).stream(x=x)
    np.testing.assert_array_equal(part["y"], 2 * x)
    assert part.model_version == "1"
    async with AsyncClient(url) as client:
        assert [part["y"].tolist() async for part in client.model("scale", 2).stream(x=x)] == [(3 * x).tolist()]


def test_a_part_says_what_a_result_says(parts):
    """The request's id, the model, the outputs that were asked for, and when it came."""
    stream = parts.stream_infer({"n": [3], "gap_s": [0.01]}, request_id="r7", outputs=["i"], parameters={"a": 1})
    first, second, third = stream
    assert list(first) == ["i"]
    assert (second.request_id, second.model_name, second.model_version) == ("r7", "parts", "1")
    assert 0 < first.timing.total_s < third.timing.total_s
    assert third.timing.endpoint == parts._client.url
    first["i"][0] = 5


def test_large_parts_arrive_whole(parts):
    """Of another size and content each."""
    for number, part in enumerate(parts.stream(n=[20], size=[3_000_000])):
        assert part["payload"].shape == (3_000_000,)
        assert (part["payload"] == number).all()


def test_many_small_parts_arrive(parts):
    """Thousands, without a growing pile of anything."""
    total = 0
    for expected, part in enumerate(parts.stream(n=[20_000])):
        assert part["i"][0] == expected
        total += 1
    assert total == 20_000


async def test_an_error_in_the_middle_comes_after_the_parts_before_it(url, parts):
    """As the client's own error, with the model's words; the stream is over, and the model goes on."""
    broken = {"n": [5], "fail_at": [2]}
    stream = parts.stream(**broken)
    assert [next(stream)["i"][0], next(stream)["i"][0]] == [0, 1]
    with pytest.raises(InferenceFailed, match="part 2 broke") as caught:
        next(stream)
    assert (caught.value.model, caught.value.endpoint) == ("parts", parts._client.url)
    assert list(stream) == []
    async with AsyncClient(url) as triton:
        later = triton.model("parts").stream(**broken)
        assert [(await anext(later))["i"][0], (await anext(later))["i"][0]] == [0, 1]
        with pytest.raises(InferenceFailed, match="part 2 broke"):
            await anext(later)
    assert numbers(parts.stream(n=[1])) == [0]


async def test_wrong_inputs_are_refused_before_anything_is_sent(url, parts):
    """Where the first part is asked for."""
    before = counts(parts)
    for inputs in ({"n": np.zeros(1, np.float32)}, {"n": [1], "other": [1]}, {}):
        with pytest.raises(InvalidInput):
            next(parts.stream(**inputs))
    with pytest.raises(InvalidInput, match="out receives one answer"):
        parts.stream_infer({"n": [1]}, out={"i": np.zeros(1, np.int32)})
    for wrong in (0, -1.0, float("inf")):
        with pytest.raises(InvalidInput):
            next(parts.stream_infer({"n": [1]}, timeout_s=wrong))
        with pytest.raises(InvalidInput):
            parts.stream_infer({"n": [1]}, idle_timeout_s=wrong)
    async with AsyncClient(url) as triton:
        with pytest.raises(InvalidInput, match="no input 'other'"):
            await anext(triton.model("parts").stream(n=[1], other=[1]))
    assert counts(parts) == before


async def test_a_model_that_is_not_served_is_not_found(url, triton):
    """Before the request, or in answer to it."""
    with pytest.raises(ModelNotFound, match="nope"):
        next(triton.model("nope").stream(x=[1]))
    spare = triton.model("spare")
    x = np.zeros((1, 3), np.float32)
    assert len(list(spare.stream(x=x))) == 1
    async with AsyncClient(url) as client:
        other = client.model("spare")
        await other.metadata()
        triton.unload("spare")
        with pytest.raises(ModelNotFound, match="unknown model: 'spare'"):
            next(spare.stream(x=x))
        with pytest.raises(ModelNotFound, match="unknown model: 'spare'"):
            await anext(other.stream(x=x))
    triton.load("spare")
    assert len(list(spare.stream(x=x))) == 1


def raw_refusal(address: str, model: str, tensors: dict[str, np.ndarray], **options: object) -> str:
    """What Triton's own words are for a wrong request, sent past the client's checks."""
    request = pb.ModelInferRequest(model_name=model, **options)
    for name, array in tensors.items():
        datatype = {"f": "FP32", "i": "INT32"}[array.dtype.kind]
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        (answer,) = call(iter([request]), timeout=30)
    return str(answer.error_message)


ROW = np.zeros((1, 3), np.float32)


@pytest.mark.parametrize(
    ("model", "tensors", "options", "status"),
    [
        ("nope", {"x": ROW}, {}, "NOT_FOUND"),
        ("scale", {"x": ROW}, {"model_version": "9"}, "NOT_FOUND"),
        ("scale", {"y": ROW}, {}, "INVALID_ARGUMENT"),
        ("scale", {}, {}, "INVALID_ARGUMENT"),
        ("scale", {"x": ROW, "y": ROW}, {}, "INVALID_ARGUMENT"),
        ("scale", {"x": np.zeros((1, 4), np.float32)}, {}, "INVALID_ARGUMENT"),
        ("scale", {"x": np.zeros((9, 3), np.float32)}, {}, "INVALID_ARGUMENT"),
        ("scale", {"x": np.zeros((1, 3), np.int32)}, {}, "INVALID_ARGUMENT"),
        ("scale", {"x": ROW}, {"outputs": [{"name": "z"}]}, "INVALID_ARGUMENT"),
        ("totals_direct", {"x": np.zeros((1, 1), np.int32)}, {}, "INVALID_ARGUMENT"),
        (
            "totals_direct",
            {"x": np.zeros((1, 1), np.int32)},
            {"parameters": {"sequence_id": {"int64_param": 4711}}},
            "INVALID_ARGUMENT",
        ),
    ],
)
def test_tritons_refusals_within_a_stream_are_known_by_their_words(address, model, tensors, options, status):
    """They come without a status there."""
    text = raw_refusal(address, model, tensors, **options)
    assert status_of(text) == status, text


def leave_by_break(model: Model) -> None:
    for part in model.stream(**FOR_EVER):
        if part["i"] == 3:
            break


def leave_by_an_error(model: Model) -> None:
    with pytest.raises(ZeroDivisionError):
        for part in model.stream(**FOR_EVER):
            1 / int(3 - part["i"][0])


def leave_by_deadline(model: Model) -> None:
    with pytest.raises(DeadlineExceeded, match="timeout_s"):
        list(model.stream_infer(FOR_EVER, timeout_s=0.3))


def leave_by_idling(model: Model) -> None:
    stream = model.stream_infer({"n": [2], "gap_s": [600.0]}, idle_timeout_s=0.3)
    with pytest.raises(DeadlineExceeded, match="after 0 parts"):
        next(stream)


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_an_error, leave_by_deadline, leave_by_idling])
def test_leaving_a_stream_reaches_the_model(parts, leave):
    """The model sees that its request is cancelled."""
    before = counts(parts)[CANCELLED]
    leave(parts)
    wait_until(lambda: counts(parts)[CANCELLED] == before + 1)


async def test_leaving_a_stream_in_asyncio_reaches_the_model(url, parts):
    """By breaking out of the loop, and by the end of the task."""
    before = counts(parts)[CANCELLED]
    async with AsyncClient(url) as triton:
        model = triton.model("parts")
        async for _ in model.stream(**FOR_EVER):
            break
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in model.stream(**FOR_EVER):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(wait_until, lambda: counts(parts)[CANCELLED] == before + 2)


def test_a_stream_has_a_deadline_of_its_own(url):
    """The limit of a call does not end it."""
    with Client(url, timeout=Timeout(total_s=0.5, attempt_s=0.5)) as triton:
        model = triton.model("parts")
        assert numbers(model.stream(n=[40], gap_s=[0.02])) == list(range(40))
    with Client(url, timeout=Timeout(stream_s=0.3)) as triton, pytest.raises(DeadlineExceeded, match=r"after 0\.3 s"):
        list(triton.model("parts").stream(**FOR_EVER))


def test_fifty_streams_at_once_in_threads(parts):
    """On one client; all are open at the same time."""
    everyone = threading.Barrier(AT_ONCE)

    def read(_: int) -> list[int]:
        stream = parts.stream(n=[20], gap_s=[0.01])
        first = next(stream)
        everyone.wait(60)
        return [int(first["i"][0]), *numbers(stream)]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert list(pool.map(read, range(AT_ONCE))) == [list(range(20))] * AT_ONCE
    wait_until(lambda: parts._client.servers[0].outstanding == 0)


async def test_fifty_streams_at_once_in_asyncio(url):
    """On one client; all are open at the same time."""
    everyone = asyncio.Barrier(AT_ONCE)

    async def read(model: AsyncModel) -> list[int]:
        stream = model.stream(n=[20], gap_s=[0.01])
        first = await anext(stream)
        async with asyncio.timeout(60):
            await everyone.wait()
        return [int(first["i"][0]), *await numbers_async(stream)]

    async with AsyncClient(url) as triton:
        model = triton.model("parts")
        answers = await asyncio.gather(*(read(model) for _ in range(AT_ONCE)))
        assert answers == [list(range(20))] * AT_ONCE
        assert triton.servers[0].outstanding == 0


def test_a_slow_reader_costs_this_process_next_to_nothing(parts):
    """200 MB wait in Triton, which queues what its model makes; here is no more than the connection holds."""
    me = psutil.Process()
    next(parts.stream(n=[-1]))
    before_bytes, ended = me.memory_info().rss, counts(parts)[ENDED]
    stream = parts.stream(n=[2000], size=[100_000])
    next(stream)
    wait_until(lambda: counts(parts)[ENDED] == ended + 1)
    assert me.memory_info().rss - before_bytes < 50e6
    assert numbers(stream) == list(range(1, 2000))
    assert me.memory_info().rss - before_bytes < 50e6


EXIT = """
import asyncio, sys
from naiad.client import AsyncClient, Client

url, how = sys.argv[1:]
endless = {"n": [10**6], "gap_s": [0.01]}
if how == "thread":
    triton = Client(url)
    stream = triton.model("parts").stream_infer(endless, idle_timeout_s=60)
    next(stream)
elif how == "other thread":
    import threading
    begun = threading.Event()
    def read():
        for _ in Client(url).model("parts").stream_infer(endless):
            begun.set()
    threading.Thread(target=read, daemon=True).start()
    begun.wait()
else:
    async def main():
        triton = AsyncClient(url)
        stream = triton.model("parts").stream_infer(endless)
        await anext(stream)
        if how == "task":
            global kept
            kept = stream
    asyncio.run(main())
print("end of the program")
"""


@pytest.mark.parametrize("how", ["thread", "other thread", "asyncio", "task"])
def test_a_program_ends_while_a_stream_is_open(url, parts, how):
    """Without hanging, and without a word; the model sees the end."""
    before = counts(parts)[CANCELLED]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXIT, url, how], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end of the program\n", "")
    wait_until(lambda: counts(parts)[CANCELLED] == before + 1)


FORK = """
import gc, os, sys
from naiad.client import Client

triton = Client(sys.argv[1])
stream = triton.model("parts").stream(n=[30], gap_s=[0.01])
next(stream)
child = os.fork()
if child == 0:
    del stream
    gc.collect()
    print(len(list(triton.model("parts").stream(n=[3]))), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(len(list(stream)))
"""


def test_a_fork_leaves_the_stream_to_the_parent(url):
    """The child may drop it, and has streams of its own."""
    done = subprocess.run([sys.executable, "-c", FORK, url], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "3\n29\n"), done.stderr


class Watched:
    """An observer that writes down what it sees of streams."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def call(self, info):
        self.method = info.method
        return self

    def attempt(self, endpoint, number):
        return {"x-attempt": str(number)}

    def attempt_failed(self, error):
        self.seen.append(("failed", type(error)))

    def done(self, timing, response_bytes, error):
        if self.method == "ModelStreamInfer":
            self.seen.append((timing.num_attempts, response_bytes > 0, error and type(error)))


def test_observers_see_a_stream_as_one_call(url):
    """At its end, with all of its bytes, whether it was read, left or broken."""
    watched = Watched()
    with Client(url, observers=[watched]) as triton:
        model = triton.model("parts")
        assert len(list(model.stream(n=[2]))) == 2
        with model.stream(n=[50], gap_s=[0.01]) as stream:
            next(stream)
        with pytest.raises(InferenceFailed):
            list(model.stream(n=[2], fail_at=[1]))
    assert watched.seen == [
        (1, True, None),
        (1, True, None),
        ("failed", InferenceFailed),
        (1, True, InferenceFailed),
    ]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[EmbeddedTriton]]:
    """Two servers of decoupled models."""
    client_models.write_stateful(tmp_path / "repository")
    servers = [EmbeddedTriton(tmp_path / "repository", supervise=False) for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(EmbeddedTriton.start, servers))
    yield servers
    with ThreadPoolExecutor() as pool:
        list(pool.map(EmbeddedTriton.stop, servers))


async def test_two_servers_of_which_one_dies(pair):
    """Streams spread; those of the dead one fail with what came before; new ones go to the other."""
    urls = [server.grpc_url for server in pair]
    with Client(urls) as triton:
        model = triton.model("parts")
        streams = [model.stream(**FOR_EVER) for _ in range(6)]
        endpoints = [next(stream).timing.endpoint for stream in streams]
        assert sorted(endpoints) == sorted(urls * 3)
        async with AsyncClient(urls[0]) as client:
            later = client.model("parts").stream(**FOR_EVER)
            await anext(later)
            os.kill(pair[0].pid, signal.SIGKILL)
            with pytest.raises(ServerUnavailable, match="was lost"):
                await numbers_async(later)
        for stream, endpoint in zip(streams, endpoints, strict=True):
            if endpoint == urls[0]:
                with pytest.raises(ServerUnavailable, match="was lost") as caught:
                    numbers(stream)
                assert caught.value.endpoint == urls[0]
            else:
                assert next(stream)["i"] > 0
                stream.close()
        for _ in range(6):
            assert numbers(model.stream(n=[3])) == [0, 1, 2]
    async with AsyncClient(urls) as client:
        for _ in range(6):
            assert await numbers_async(client.model("parts").stream(n=[3])) == [0, 1, 2]

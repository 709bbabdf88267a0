"""Streams over a real connection, from servers that are slow, wrong, gone or unlike Triton."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from naiad.client import (
    AsyncClient,
    Cancelled,
    Client,
    ClientClosed,
    DeadlineExceeded,
    InferenceFailed,
    InvalidResponse,
    Limits,
    Model,
    Overloaded,
    Retry,
    ServerUnavailable,
    Stream,
)

Parts = Callable[[grpc.ServicerContext], Iterator[bytes]]
SIZE = 64 * 1024
FAR_AHEAD = 16 * 1024 * 1024 // SIZE


def part(value: int, *, final: bool | None = False, size: int = 0) -> bytes:
    message = pb.ModelStreamInferResponse()
    response = message.infer_response
    response.model_name, response.model_version = "m", "1"
    if final is not None:
        response.parameters["triton_final_response"].bool_param = final
    response.outputs.add(name="y", datatype="INT32", shape=[1])
    response.outputs.add(name="padding", datatype="UINT8", shape=[size])
    response.raw_output_contents.extend([np.int32(value).tobytes(), bytes(size)])
    return bytes(message.SerializeToString())


def end() -> bytes:
    message = pb.ModelStreamInferResponse()
    message.infer_response.parameters["triton_final_response"].bool_param = True
    return bytes(message.SerializeToString())


def refusal(text: str) -> bytes:
    return bytes(pb.ModelStreamInferResponse(error_message=text).SerializeToString())


class Server(grpc.GenericRpcHandler):
    """Serves one model `m` whose stream is what `parts` yields; knows how many streams began and how they ended."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.num_streams = 0
        self.ended = threading.Semaphore(0)
        """Once for each stream that is over, in whatever way."""
        self._server = grpc.server(ThreadPoolExecutor(64))
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method.rpartition("/")[2]
        if method == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self.stream)
        return grpc.unary_unary_rpc_method_handler(lambda _, __: ANSWERS[method].SerializeToString())

    def stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self.num_streams += 1
        context.add_callback(self.ended.release)
        assert len(list(requests)) == 1
        yield from self.parts(context)

    def stop(self) -> None:
        self._server.stop(None).wait()


def metadata() -> pb.ModelMetadataResponse:
    message = pb.ModelMetadataResponse(name="m", versions=["1"])
    message.inputs.add(name="x", datatype="INT32", shape=[1])
    message.outputs.add(name="y", datatype="INT32", shape=[1])
    message.outputs.add(name="padding", datatype="UINT8", shape=[-1])
    return message


ANSWERS = {
    "ModelMetadata": metadata(),
    "ModelConfig": pb.ModelConfigResponse(config={"name": "m"}),
    "ServerLive": pb.ServerLiveResponse(live=True),
    "ServerReady": pb.ServerReadyResponse(ready=True),
}


@pytest.fixture
def serve() -> Iterator[Callable[[Parts], Server]]:
    running: list[Server] = []

    def start(parts: Parts) -> Server:
        running.append(Server(parts))
        return running[-1]

    yield start
    for server in running:
        server.stop()


def connected(*servers: Server, **options: object) -> Client:
    return Client([f"127.0.0.1:{server.port}" for server in servers], **options)


def connected_async(server: Server) -> AsyncClient:
    return AsyncClient(f"127.0.0.1:{server.port}")


def opened(model: Model, **options: object) -> Stream:
    return model.stream_infer({"x": [1]}, **options)


def endless(context: grpc.ServicerContext) -> Iterator[bytes]:
    """Ten parts at once, then one in a while, as long as somebody listens."""
    for value in range(10**6):
        yield part(value)
        if value > 10:
            time.sleep(0.01)


class Counted:
    """Parts of 64 KiB without end, as fast as they are taken."""

    def __init__(self) -> None:
        self.num_made = 0

    def __call__(self, context: grpc.ServicerContext) -> Iterator[bytes]:
        while True:
            self.num_made += 1
            yield part(self.num_made, size=SIZE)

    def standing(self) -> int:
        """Wait until no more are made, and return how many were."""
        seen, since = self.num_made, time.monotonic()
        while time.monotonic() - since < 0.5:
            if self.num_made != seen:
                seen, since = self.num_made, time.monotonic()
                assert seen < 100 * FAR_AHEAD
            time.sleep(0.01)
        return seen


def test_a_slow_reader_holds_the_server_back(serve):
    """The server runs ahead by what the connection holds, again and again, and never by more."""
    counted = Counted()
    with connected(serve(counted)) as client, opened(client.model("m")) as stream:
        for num_read in (1, 2, 50, 200):
            for _ in range(num_read):
                last = next(stream)
            assert counted.standing() - last["y"][0] < FAR_AHEAD


async def test_a_slow_task_holds_the_server_back(serve):
    """As with threads."""
    counted = Counted()
    async with connected_async(serve(counted)) as client, client.model("m").stream(x=[1]) as stream:
        for num_read in (1, 2, 50, 200):
            for _ in range(num_read):
                last = await anext(stream)
            assert await asyncio.to_thread(counted.standing) - last["y"][0] < FAR_AHEAD


def left_by_break(stream: Stream) -> None:
    for _ in stream:
        break


def left_by_an_error(stream: Stream) -> None:
    with pytest.raises(KeyError):
        for answer in stream:
            answer["nothing"]


def left_by_with(stream: Stream) -> None:
    with stream:
        next(stream)


def left_by_closing(stream: Stream) -> None:
    next(stream)
    stream.close()
    assert list(stream) == []


def left_by_cancelling(stream: Stream) -> None:
    next(stream)
    stream.cancel()
    with pytest.raises(Cancelled, match="cancelled by its caller"):
        next(stream)


def left_by_yield_from(stream: Stream) -> None:
    def inner():
        yield from stream

    outer = inner()
    next(outer)
    outer.close()


def left_in_a_cycle(stream: Stream) -> None:
    next(stream)
    cycle = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()


def left_in_time(stream: Stream) -> None:
    with pytest.raises(DeadlineExceeded, match=r"not at its end after 0\.5 s and \d+ parts: give timeout_s"):
        list(stream)
    assert list(stream) == []


@pytest.mark.parametrize(
    "leave",
    [
        left_by_break,
        left_by_an_error,
        left_by_with,
        left_by_closing,
        left_by_cancelling,
        left_by_yield_from,
        left_in_a_cycle,
        left_in_time,
    ],
)
def test_leaving_a_stream_ends_it_on_the_server(serve, leave):
    """In every way there is, and its place is free again."""
    server = serve(endless)
    with connected(server, limits=Limits(inflight=1)) as client:
        model = client.model("m")
        streams = [opened(model, timeout_s=0.5 if leave is left_in_time else 60)]
        leave(streams.pop())
        assert server.ended.acquire(timeout=30)
        while client.servers[0].outstanding:
            time.sleep(0.001)
        assert next(opened(model))["y"] == 0


async def async_break(stream):
    async for _ in stream:
        break


async def async_error(stream):
    with pytest.raises(KeyError):
        async for answer in stream:
            answer["nothing"]


async def async_with(stream):
    async with stream:
        await anext(stream)


async def async_cancel(stream):
    await anext(stream)
    stream.cancel()
    with pytest.raises(Cancelled):
        await anext(stream)


async def async_close(stream):
    await anext(stream)
    await stream.aclose()
    assert [answer async for answer in stream] == []


@pytest.mark.parametrize("leave", [async_break, async_error, async_with, async_cancel, async_close])
async def test_leaving_a_stream_in_asyncio_cancels_it_before_the_loop_turns(serve, leave):
    """No generator is finalised later: the call is cancelled when the coroutine goes on."""
    server = serve(endless)
    async with connected_async(server) as client:
        streams = [client.model("m").stream(x=[1])]
        flows = []

        async def leaving():
            stream = streams.pop()
            await anext(stream)
            flows.append(stream._flow)
            await leave(stream)

        await leaving()
        assert flows[0].over
        await asyncio.sleep(0)
        assert client.servers[0].outstanding == 0
        assert await asyncio.to_thread(server.ended.acquire, timeout=30)


async def test_cancelling_a_task_cancels_the_stream_it_waits_for(serve):
    """So do its time-outs."""
    waiting = threading.Event()

    def silent(context: grpc.ServicerContext) -> Iterator[bytes]:
        yield part(1)
        waiting.wait()

    server = serve(silent)
    async with connected_async(server) as client:
        model = client.model("m")

        async def read() -> None:
            async for _ in model.stream(x=[1]):
                begun.set()

        begun = asyncio.Event()
        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.ended.acquire, timeout=30)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(), 0.3)
        assert await asyncio.to_thread(server.ended.acquire, timeout=30)
        waiting.set()


def test_a_stream_may_be_cancelled_from_another_thread(serve):
    """Who waits for a part is told."""
    waiting = threading.Event()

    def silent(context: grpc.ServicerContext) -> Iterator[bytes]:
        yield part(1)
        waiting.wait()

    server = serve(silent)
    with connected(server) as client:
        stream = opened(client.model("m"))
        next(stream)
        threading.Timer(0.1, stream.cancel).start()
        with pytest.raises(Cancelled):
            next(stream)
        assert server.ended.acquire(timeout=30)
        waiting.set()
        assert client.servers[0].outstanding == 0


async def test_a_task_that_waits_is_told_that_another_cancelled_the_stream(serve):
    """It is not cancelled itself."""
    waiting = threading.Event()

    def silent(context: grpc.ServicerContext) -> Iterator[bytes]:
        yield part(1)
        waiting.wait()

    async with connected_async(serve(silent)) as client:
        stream = client.model("m").stream(x=[1])
        await anext(stream)
        asyncio.get_running_loop().call_later(0.1, stream.cancel)
        with pytest.raises(Cancelled):
            await anext(stream)
        waiting.set()


def test_closing_the_client_ends_its_streams(serve):
    """They say that the client is closed."""
    server = serve(endless)
    client = connected(server)
    stream = opened(client.model("m"))
    next(stream)
    client.close()
    with pytest.raises(ClientClosed):
        list(stream)
    assert server.ended.acquire(timeout=30)
    with pytest.raises(ClientClosed):
        next(opened(client.model("m")))


async def test_closing_the_asyncio_client_ends_its_streams(serve):
    """Also those that wait for a part."""
    client = connected_async(serve(endless))
    stream = client.model("m").stream(x=[1])
    await anext(stream)
    closing = asyncio.get_running_loop().create_task(client.close())
    with pytest.raises(ClientClosed):
        async for _ in stream:
            pass
    await closing


def stuttering(context: grpc.ServicerContext) -> Iterator[bytes]:
    for value in range(5):
        yield part(value)
        time.sleep(0.05)
    while context.is_active():
        time.sleep(0.01)


def test_a_part_that_does_not_come_ends_the_stream(serve):
    """After idle_timeout_s without one, however long the whole may take; the time of the reader is not counted."""
    server = serve(stuttering)
    with connected(server) as client:
        stream = opened(client.model("m"), idle_timeout_s=0.4)
        assert next(stream)["y"] == 0
        time.sleep(0.6)
        with pytest.raises(DeadlineExceeded, match=r"no part came within 0\.4 s \(idle_timeout_s\), after 5 parts"):
            list(stream)
        assert server.ended.acquire(timeout=30)


async def test_a_part_that_does_not_come_ends_the_stream_in_asyncio(serve):
    """As with threads."""
    server = serve(stuttering)
    async with connected_async(server) as client:
        stream = client.model("m").stream_infer({"x": [1]}, idle_timeout_s=0.4)
        with pytest.raises(DeadlineExceeded, match=r"no part came within 0\.4 s \(idle_timeout_s\), after 5 parts"):
            async for _ in stream:
                pass
        assert await asyncio.to_thread(server.ended.acquire, timeout=30)


def garbage(context: grpc.ServicerContext) -> Iterator[bytes]:
    yield part(1)
    yield b"\xff\xff\xff garbage"
    yield from endless(context)


def torn(context: grpc.ServicerContext) -> Iterator[bytes]:
    yield part(1)
    yield part(2, size=500)[:-20]
    yield from endless(context)


def closing_early(context: grpc.ServicerContext) -> Iterator[bytes]:
    yield part(1)


@pytest.mark.parametrize("parts", [garbage, torn, closing_early])
def test_a_wrong_answer_is_a_typed_error_after_the_right_parts(serve, parts):
    """The stream is cancelled, and the client goes on."""
    server = serve(parts)
    with connected(server) as client:
        stream = opened(client.model("m"))
        assert next(stream)["y"] == 1
        with pytest.raises(InvalidResponse) as caught:
            next(stream)
        assert caught.value.model == "m"
        assert list(stream) == []
        assert server.ended.acquire(timeout=30)
        assert next(opened(client.model("m")))["y"] == 1


@pytest.mark.parametrize("parts", [garbage, torn, closing_early])
async def test_a_wrong_answer_is_a_typed_error_in_asyncio(serve, parts):
    """As with threads."""
    server = serve(parts)
    async with connected_async(server) as client:
        stream = client.model("m").stream(x=[1])
        assert (await anext(stream))["y"] == 1
        with pytest.raises(InvalidResponse):
            await anext(stream)
        assert await asyncio.to_thread(server.ended.acquire, timeout=30)


def unmarked(context: grpc.ServicerContext) -> Iterator[bytes]:
    yield part(1, final=None)
    yield part(2, final=None)


def silent(context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from ()


def lingering(context: grpc.ServicerContext) -> Iterator[bytes]:
    yield part(1)
    yield part(2, final=True)
    while context.is_active():
        time.sleep(0.01)


@pytest.mark.parametrize(("parts", "expected"), [(unmarked, [1, 2]), (silent, []), (lingering, [1, 2])])
async def test_servers_that_end_a_stream_in_their_own_way(serve, parts, expected):
    """Without marks, without parts, or without closing after the last part."""
    server = serve(parts)
    with connected(server) as client:
        assert [answer["y"][0] for answer in opened(client.model("m"))] == expected
    async with connected_async(server) as client:
        assert [answer["y"][0] async for answer in client.model("m").stream(x=[1])] == expected


def failing(times: list[int], text: str, *parts: bytes) -> Parts:
    """Yield `parts`, then fail as often as `times` says."""

    def answers(context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from parts
        if times[0]:
            times[0] -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, text)
        yield end()

    return answers


def test_a_stream_that_no_server_began_goes_to_another(serve):
    """At once, and without an error."""
    full, free = serve(failing([9], "Exceeds maximum queue size")), serve(failing([0], "", part(1)))
    with connected(full, free) as client:
        for _ in range(4):
            assert [answer["y"][0] for answer in opened(client.model("m"))] == [1]
    assert full.num_streams > 0
    assert free.num_streams == 4


async def test_a_stream_that_no_server_began_is_tried_again_in_asyncio(serve):
    """As with threads; a refusal within the stream counts as much as one by its status."""
    told = [2]

    def answers(context: grpc.ServicerContext) -> Iterator[bytes]:
        if told[0]:
            told[0] -= 1
            yield refusal("Exceeds maximum queue size")
        else:
            yield part(1, final=True)

    server = serve(answers)
    async with AsyncClient(f"127.0.0.1:{server.port}", retry=Retry(first_pause_s=0.01)) as client:
        assert [answer["y"][0] async for answer in client.model("m").stream(x=[1])] == [1]
    assert server.num_streams == 3


@pytest.mark.parametrize(
    ("parts", "text", "error"),
    [((), "Socket closed", ServerUnavailable), ((part(1),), "Exceeds maximum queue size", Overloaded)],
)
def test_a_stream_that_may_have_run_is_not_sent_again(serve, parts, text, error):
    """Neither one that a server took and lost, nor one of which parts have come."""
    first, second = serve(failing([9], text, *parts)), serve(failing([9], text, *parts))
    with connected(first, second) as client, pytest.raises(error):
        list(opened(client.model("m")))
    assert first.num_streams + second.num_streams == 1


def test_what_may_run_twice_is_sent_again(serve):
    """A handle that is idempotent says so, as long as no part has come."""
    server = serve(failing([1], "Socket closed"))
    with connected(server, retry=Retry(first_pause_s=0.01)) as client:
        assert list(opened(client.model("m", idempotent=True))) == []
    assert server.num_streams == 2


def test_an_error_that_does_not_end_the_stream_ends_it_for_the_caller(serve):
    """The model may go on; nobody listens any more."""

    def going_on(context: grpc.ServicerContext) -> Iterator[bytes]:
        yield part(1)
        yield refusal("a row broke")
        yield from endless(context)

    server = serve(going_on)
    with connected(server) as client:
        stream = opened(client.model("m"))
        next(stream)
        with pytest.raises(InferenceFailed, match="a row broke"):
            next(stream)
        assert server.ended.acquire(timeout=30)
        assert client.servers[0].outstanding == 0


def test_streams_have_their_place_among_the_calls_in_flight(serve):
    """One that is open holds one; it is free when the stream ends."""
    server = serve(endless)
    with connected(server, limits=Limits(inflight=1)) as client:
        model = client.model("m")
        stream = opened(model)
        next(stream)
        with pytest.raises(DeadlineExceeded, match="1 calls were in flight"):
            next(opened(model, timeout_s=0.2))
        stream.close()
        assert next(opened(model))["y"] == 0


def test_nothing_is_sent_before_the_first_part_is_asked_for(serve):
    """A stream that nobody reads costs nothing."""
    server = serve(endless)
    with connected(server) as client:
        model = client.model("m")
        unread = opened(model)
        with opened(model):
            pass
        never = opened(model)
        never.cancel()
        with pytest.raises(Cancelled):
            next(never)
        assert next(opened(model))["y"] == 0
        assert server.num_streams == 1
        del unread

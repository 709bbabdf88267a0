"""The two sides of a comparison of clients: the same request made with naiad.client and with tritonclient.

Each is used as its documentation says: one client for all requests, and every answer read as an array.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tritonclient.grpc as peer_blocking
import tritonclient.grpc.aio as peer_asyncio
from measure import Work
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from naiad.client import AsyncBatched, AsyncClient, Client

Array = NDArray[Any]
Kind = Literal["numbers", "count", "objects", "fixed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """An input, described: it is made in the process that sends it."""

    name: str
    shape: tuple[int, ...]
    kind: Kind = "numbers"
    value: int = 0

    def array(self) -> Array:
        """Make it: random float32, one int32, or words of 16 bytes as objects or of a fixed width."""
        if self.kind == "numbers":
            return np.random.default_rng(0).random(self.shape, np.float32)
        if self.kind == "count":
            return np.full(self.shape, self.value, np.int32)
        words = np.array([b"%016d" % number for number in range(self.shape[0])])
        return words.astype(np.object_) if self.kind == "objects" else words


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What both sides send: to which model, and which output they read."""

    model: str
    inputs: tuple[Tensor, ...]
    output: str = "y"
    only: bool = False
    """Whether they ask for that output alone."""
    idempotent: bool = False
    """Whether naiad.client may take the answer's size from an earlier answer to the same shapes."""

    def arrays(self) -> dict[str, Array]:
        """Make the inputs."""
        return {tensor.name: tensor.array() for tensor in self.inputs}


@contextmanager
def ours_blocking(address: str, request: Request, num_threads: int, options: Mapping[str, Any]) -> Iterator[Work]:
    """naiad.client.Client."""
    arrays, output = request.arrays(), request.output
    with Client(address, **options) as client, _threads(num_threads) as repeated:
        model = client.model(request.model, idempotent=request.idempotent)
        if request.only:
            yield repeated(lambda: model.infer(arrays, outputs=(output,))[output])
        else:
            yield repeated(lambda: model(**arrays)[output])


@contextmanager
def peer_blocking_calls(address: str, request: Request, num_threads: int) -> Iterator[Work]:
    """tritonclient.grpc.InferenceServerClient."""
    arrays = request.arrays()
    with peer_blocking.InferenceServerClient(address) as client, _threads(num_threads) as repeated:
        yield repeated(lambda: client.infer(request.model, **_peer_tensors(request, arrays)).as_numpy(request.output))


@contextmanager
def ours_asyncio(
    address: str, request: Request, in_flight: int, options: Mapping[str, Any], batched: bool = False
) -> Iterator[Work]:
    """naiad.client.AsyncClient; ``batched`` sends the requests of concurrent callers together."""
    arrays, output = request.arrays(), request.output
    with asyncio.Runner() as runner:
        client = AsyncClient(address, **options)
        handle = client.model(request.model, idempotent=request.idempotent)
        model = handle.batched() if batched else handle
        call: Callable[..., Awaitable[Any]] = model

        async def once() -> object:
            return (await call(**arrays))[output]

        async def close() -> None:
            if isinstance(model, AsyncBatched):
                await model.close()
            await client.close()

        yield lambda count: runner.run(_in_flight(count, in_flight, once))
        runner.run(close())


@contextmanager
def peer_asyncio_calls(address: str, request: Request, in_flight: int) -> Iterator[Work]:
    """tritonclient.grpc.aio.InferenceServerClient."""
    arrays, output = request.arrays(), request.output
    with asyncio.Runner() as runner:

        async def connect() -> Any:
            return peer_asyncio.InferenceServerClient(address)

        client = runner.run(connect())

        async def once() -> object:
            return (await client.infer(request.model, **_peer_tensors(request, arrays))).as_numpy(output)

        yield lambda count: runner.run(_in_flight(count, in_flight, once))
        runner.run(client.close())


def _peer_tensors(request: Request, arrays: Mapping[str, Array]) -> dict[str, Any]:
    inputs = []
    for name, array in arrays.items():
        tensor = peer_blocking.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    outputs = [peer_blocking.InferRequestedOutput(request.output)] if request.only else None
    return {"inputs": inputs, "outputs": outputs}


@contextmanager
def ours_encoding(tensor: Tensor) -> Iterator[Work]:
    """The bytes of one input, as naiad.client puts them into a request."""
    from naiad.client._protocol.tensors import encode

    array = tensor.array()
    yield _one_by_one(lambda: encode(array, "BYTES"))


@contextmanager
def peer_encoding(tensor: Tensor) -> Iterator[Work]:
    """The bytes of one input, as tritonclient puts them into a request."""
    array = tensor.array()
    given = peer_blocking.InferInput("x", list(array.shape), "BYTES")
    yield _one_by_one(lambda: given.set_data_from_numpy(array))


def _one_by_one(once: Callable[[], object]) -> Work:
    def work(count: int) -> None:
        for _ in range(count):
            once()

    return work


@contextmanager
def _threads(num_threads: int) -> Iterator[Callable[[Callable[[], object]], Work]]:
    """Give what repeats a call: in this thread, or in so many that share the work."""
    if num_threads == 1:
        yield _one_by_one
        return
    with ThreadPoolExecutor(num_threads) as pool:

        def shared(once: Callable[[], object]) -> Work:
            def work(count: int) -> None:
                left = iter(range(count))
                for done in [pool.submit(_until_done, left, once) for _ in range(num_threads)]:
                    done.result()

            return work

        yield shared


def _until_done(left: Iterator[int], once: Callable[[], object]) -> None:
    for _ in left:
        once()


async def _in_flight(count: int, in_flight: int, once: Callable[[], Awaitable[object]]) -> None:
    """Keep as many requests in flight as long as there are any left."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await once()

    await asyncio.gather(*(worker() for _ in range(in_flight)))

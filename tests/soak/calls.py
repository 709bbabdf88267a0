"""What the soak test sends: requests by number, every hundredth of which goes wrong in one of six ways."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np

from naiad.client import (
    AsyncClient,
    Cancelled,
    Client,
    ClientError,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    ModelNotFound,
    SharedMemory,
)

FAILURES: dict[str, type[BaseException]] = {
    "refused by the server": InvalidInput,
    "failed in the model": InferenceFailed,
    "too late": DeadlineExceeded,
    "cancelled": Cancelled,
    "unknown model": ModelNotFound,
    "refused before it was sent": InvalidInput,
}
"""Every hundredth request, in turn, and what its caller gets."""
EVERY = 100
LARGE_EVERY = 10  # and those go through shared memory
NUM_THREADS = 8
NUM_TASKS = 16
TOO_SOON_S = 0.02
OPTIONS: dict[str, Any] = {"shared_memory": SharedMemory(min_tensor_bytes=1 << 14)}
SMALL = np.arange(16, dtype=np.float32)
LARGE = np.arange(1 << 13, dtype=np.float32)


class Unexpected(AssertionError):
    """A request ended in another way than it had to."""


def failure(number: int) -> str | None:
    """How the request of that number goes wrong, if it does."""
    return list(FAILURES)[number // EVERY % len(FAILURES)] if number % EVERY == EVERY - 1 else None


def array(number: int) -> np.ndarray[Any, Any]:
    """What a request sends that goes well."""
    return (LARGE if number % LARGE_EVERY == 0 else SMALL) + np.float32(number % 1000)


def check(number: int, y: np.ndarray[Any, Any]) -> None:
    """The answer is the answer to that very request."""
    if not np.array_equal(y, array(number) * 2):
        raise Unexpected(f"request {number}: expected {array(number)[:4] * 2}…, found {y[:4]}…")


class Threads:
    """Requests from a blocking client that threads share."""

    def __init__(self, url: str) -> None:
        self._client = Client(url, **OPTIONS)
        self._double = self._client.model("double", idempotent=True)
        self._wait = self._client.model("wait")
        self._pool = ThreadPoolExecutor(NUM_THREADS)

    def run(self, numbers: range) -> None:
        """Send the requests of these numbers."""
        left = iter(numbers)
        for worker in [self._pool.submit(self._work, left) for _ in range(NUM_THREADS)]:
            worker.result()

    def close(self) -> None:
        """Close the client and end the threads."""
        self._pool.shutdown()
        self._client.close()

    def _work(self, left: Iterator[int]) -> None:
        for number in left:
            how = failure(number)
            if how is None:
                check(number, self._double(x=array(number))["y"])
                continue
            try:
                self._fail(how)
            except FAILURES[how]:
                continue
            except ClientError as error:
                raise Unexpected(f"request {number}, {how}: {error!r}") from error
            raise Unexpected(f"request {number}, {how}: expected an error, found an answer")

    def _fail(self, how: str) -> None:
        if how == "cancelled":
            call = self._wait.submit({"x": SMALL})
            call.cancel()
            call.result()
        else:
            requests: dict[str, Callable[[], object]] = {
                "refused by the server": lambda: self._client.infer("double", {"x": SMALL[None]}),
                "failed in the model": lambda: self._double(x=-SMALL - 1),
                "too late": lambda: self._wait.infer({"x": SMALL}, timeout_s=TOO_SOON_S),
                "unknown model": lambda: self._client.infer("nobody", {"x": SMALL}),
                "refused before it was sent": lambda: self._double(x=SMALL.astype(np.float64)),
            }
            requests[how]()


class Tasks:
    """Requests from an asyncio client, in the one loop of the process: grpcio keeps every loop that it ever saw."""

    runner: ClassVar = asyncio.Runner()

    def __init__(self, url: str) -> None:
        self._client = AsyncClient(url, **OPTIONS)
        self._double = self._client.model("double", idempotent=True)
        self._wait = self._client.model("wait")

    def run(self, numbers: range) -> None:
        """Send the requests of these numbers."""
        self.runner.run(self._run(iter(numbers)))

    def close(self) -> None:
        """Close the client."""
        self.runner.run(self._client.close())

    async def _run(self, left: Iterator[int]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(NUM_TASKS):
                group.create_task(self._work(left))

    async def _work(self, left: Iterator[int]) -> None:
        for number in left:
            how = failure(number)
            if how is None:
                check(number, (await self._double(x=array(number)))["y"])
                continue
            try:
                await self._fail(how)
            except FAILURES[how]:
                continue
            except ClientError as error:
                raise Unexpected(f"request {number}, {how}: {error!r}") from error
            raise Unexpected(f"request {number}, {how}: expected an error, found an answer")

    async def _fail(self, how: str) -> None:
        requests: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "refused by the server": lambda: self._client.infer("double", {"x": SMALL[None]}),
            "failed in the model": lambda: self._double(x=-SMALL - 1),
            "too late": lambda: self._wait.infer({"x": SMALL}, timeout_s=TOO_SOON_S),
            "cancelled": self._cancelled,
            "unknown model": lambda: self._client.infer("nobody", {"x": SMALL}),
            "refused before it was sent": lambda: self._double(x=SMALL.astype(np.float64)),
        }
        await requests[how]()

    async def _cancelled(self) -> None:
        task = asyncio.ensure_future(self._wait(x=SMALL))
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            raise Cancelled("the task was cancelled") from None

"""A fake server and two clients that ask it, which know nothing of each other."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest
import tritonclient.grpc as tritonclient

from naiad.client import Client, ClientError, Retry
from naiad.client.testing import FakeModel, FakeTriton

DOUBLE = FakeModel(lambda x: {"y": 2 * x}, inputs={"x": "FP32[-1,3]"}, outputs={"y": "FP32[-1,3]"}, max_batch_size=8)
Ask = Callable[..., object]
"""Asks a server for the double of `[[1, 2, 3]]`; gives the values, or the error's status (or class, without one)."""


@pytest.fixture
def fake() -> Iterator[FakeTriton]:
    with FakeTriton({"double": DOUBLE}) as server:
        yield server


@pytest.fixture(params=["naiad", "tritonclient"])
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    """Both clients must find the fake to be a Triton."""
    with ExitStack() as opened:
        yield _naiad(opened, Retry(attempts=1)) if request.param == "naiad" else _tritonclient(opened)


@pytest.fixture(params=["naiad", "tritonclient"])
def ask_on(request: pytest.FixtureRequest) -> Iterator[Ask]:
    """As `ask`, but naiad's client may send again what has surely not run, as gRPC does by itself for tritonclient."""
    with ExitStack() as opened:
        yield _naiad(opened, Retry()) if request.param == "naiad" else _tritonclient(opened)


def _naiad(opened: ExitStack, retry: Retry) -> Ask:
    clients: dict[str, Client] = {}

    def ask(address: str, timeout_s: float = 10.0) -> object:
        if address not in clients:
            clients[address] = opened.enter_context(Client(f"grpc://{address}", retry=retry))
        try:
            return clients[address].infer("double", {"x": row()}, timeout_s=timeout_s)["y"].tolist()
        except ClientError as error:
            return error.status or type(error).__name__

    return ask


def _tritonclient(opened: ExitStack) -> Ask:
    clients: dict[str, tritonclient.InferenceServerClient] = {}

    def ask(address: str, timeout_s: float = 10.0) -> object:
        if address not in clients:
            clients[address] = opened.enter_context(tritonclient.InferenceServerClient(address))
        wanted = tritonclient.InferInput("x", [1, 3], "FP32")
        wanted.set_data_from_numpy(row())
        try:
            return clients[address].infer("double", [wanted], client_timeout=timeout_s).as_numpy("y").tolist()
        except tritonclient.InferenceServerException as error:
            return str(error.status()).removeprefix("StatusCode.")

    return ask


@pytest.fixture
def until_well() -> Callable[[Callable[[], object]], object]:
    """Ask again until the server is there: a channel of grpcio waits a moment before it connects again."""

    def ask_again(ask: Callable[[], object]) -> object:
        for _ in range(200):
            if (answer := ask()) != "UNAVAILABLE":
                return answer
            threading.Event().wait(0.05)
        return "UNAVAILABLE"

    return ask_again


def row() -> np.ndarray:
    return np.array([[1, 2, 3]], np.float32)

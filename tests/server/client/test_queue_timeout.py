"""How long a request may wait in the model's queue, on the real Triton."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from naiad.client import Client, DeadlineExceeded, Overloaded
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.request import NO_OPTIONS

WAIT_US = 100_000


def row(seconds: float) -> dict[str, np.ndarray]:
    return {"seconds": np.full((1, 1), seconds, np.float32)}


def by_parameter(client: Client, address: str) -> None:
    with pytest.raises(Overloaded, match="Request timeout expired"):
        client.infer("queued", row(0.001), parameters={"timeout": WAIT_US}, timeout_s=30)


def by_codec(client: Client, address: str) -> None:
    known = Contract.of(client.model_metadata("queued"), client.model_config("queued"))
    message = Codec("queued", "", known).encode(row(0.001), NO_OPTIONS, queue_timeout_us=WAIT_US)
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError, match="Request timeout expired"):
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message, timeout=30)


def by_deadline(client: Client, address: str) -> None:
    with pytest.raises((DeadlineExceeded, Overloaded)):
        client.model("queued").infer(row(0.001), timeout_s=WAIT_US / 1e6)


@pytest.mark.parametrize("send", [by_parameter, by_codec, by_deadline])
def test_a_request_that_expires_in_the_queue_never_runs(triton, url, address, send: Callable[[Client, str], None]):
    """While the model works, a request that may wait a tenth of a second is refused, and the model never sees it."""
    before = triton.infer("queued", row(0))["ran"][0, 0]
    with ThreadPoolExecutor(1) as pool:
        working: Future[object] = pool.submit(triton.infer, "queued", row(2.0))
        wait_until_busy(url)
        send(triton, address)
        working.result(timeout=30)
    assert triton.infer("queued", row(0))["ran"][0, 0] == before + 1


def wait_until_busy(url: str) -> None:
    """Return when the model works on the other request: one that takes no time then waits behind it."""
    with Client(url) as other:
        for _ in range(200):
            try:
                other.infer("queued", row(0), timeout_s=0.1)
            except DeadlineExceeded:
                return
    pytest.fail("the request never began")


def test_models_say_whether_requests_may_bring_their_own_limit(triton):
    """A model whose queue does not allow it is sent none."""
    contracts = {
        model: Contract.of(triton.model_metadata(model), triton.model_config(model)) for model in ("queued", "scale")
    }
    assert contracts["queued"].queue_timeout
    assert not contracts["scale"].queue_timeout
    plain = Codec("scale", "", contracts["scale"])
    x = {"x": np.ones((1, 3), np.float32)}
    assert plain.encode(x, NO_OPTIONS, queue_timeout_us=WAIT_US) == plain.encode(x, NO_OPTIONS)

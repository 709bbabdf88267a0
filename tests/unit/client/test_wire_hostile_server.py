"""A server that answers with anything, over real gRPC: typed errors, and a client that stays usable."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from hostile_answers import HOSTILE, PLAIN
from naiad.client import AsyncClient, Client, ClientError, InvalidInput, InvalidResponse

X = {"x": np.zeros(1, np.float32)}


class Anything(grpc.GenericRpcHandler):
    """Answers an inference with the hostile message that its id names, and everything else with nonsense."""

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self.infer if call.method.endswith("ModelInfer") else self.nonsense)

    def infer(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        return HOSTILE.get(pb.ModelInferRequest.FromString(message).id, PLAIN)

    def nonsense(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        return b"\xff\xff\xff"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((Anything(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"grpc://127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.mark.parametrize("kind", HOSTILE)
async def test_after_a_hostile_answer_the_next_one_is_read(url, kind):
    """By the blocking and the asyncio client, and into memory of the caller's."""
    out = {"y": np.zeros(1, np.float32)}
    with Client(url) as client:
        with pytest.raises(InvalidResponse):
            client.infer("m", X, request_id=kind)
        assert client.infer("m", X)["y"].tolist() == [0]
        with pytest.raises((InvalidResponse, InvalidInput)):  # it may be the buffer that does not fit such a shape
            client.infer("m", X, request_id=kind, out=out)
        assert client.infer("m", X, out=out)["y"].tolist() == [0]
    async with AsyncClient(url) as client:
        with pytest.raises(InvalidResponse):
            await client.infer("m", X, request_id=kind)
        assert (await client.infer("m", X))["y"].tolist() == [0]


def test_nonsense_instead_of_any_other_answer_is_a_typed_error(url):
    """Metadata, configuration, statistics, the index of models."""
    with Client(url) as client:
        for ask in (
            client.server_metadata,
            client.models,
            client.statistics,
            lambda: client.model_metadata("m"),
            lambda: client.model_config("m"),
            lambda: client.model("m")(x=[1]),
        ):
            with pytest.raises(ClientError) as caught:
                ask()
            assert isinstance(caught.value, InvalidResponse)
        assert client.infer("m", X)["y"].tolist() == [0]

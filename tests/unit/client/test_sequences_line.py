"""What a sequence sends over a real connection, and what it makes of a server's answers."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from naiad.client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    Overloaded,
    Retry,
    SequenceLost,
    ServerUnavailable,
)

CORRELATION_ID = {"name": "id", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_STRING"}]}
FULL = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
LOST = (grpc.StatusCode.UNAVAILABLE, "Socket closed")
DEAD = (grpc.StatusCode.INTERNAL, "Stub process 'm_0_0' is not healthy.")
FORGOTTEN = (
    grpc.StatusCode.INVALID_ARGUMENT,
    "sequence 7 to model 'm' must specify the START flag on the first request",
)
BROKEN = (grpc.StatusCode.INTERNAL, "the model broke")


class Server(grpc.GenericRpcHandler):
    """Serves one model and remembers what it was sent; answers with the statuses of `failures` first."""

    def __init__(self) -> None:
        self.requests: list[pb.ModelInferRequest] = []
        self.failures: list[tuple[grpc.StatusCode, str]] = []
        self.hold = threading.Event()
        self.hold.set()
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method.rpartition("/")[2]

        def answer(message: bytes, context: grpc.ServicerContext) -> bytes:
            found = self.infer(message, context) if method == "ModelInfer" else ANSWERS[method]
            return bytes(found.SerializeToString())

        return grpc.unary_unary_rpc_method_handler(answer)

    def infer(self, message: bytes, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        self.requests.append(pb.ModelInferRequest.FromString(message))
        if self.failures:
            context.abort(*self.failures.pop(0))
        self.hold.wait()
        return pb.ModelInferResponse(model_name="m", model_version="1")

    @property
    def flags(self) -> list[str]:
        """What the requests say about their sequence: S(tart), E(nd), B(oth) or neither."""
        said = [request.parameters for request in self.requests]
        return ["-SEB"[p["sequence_start"].bool_param + 2 * p["sequence_end"].bool_param] for p in said]

    def stop(self) -> None:
        self.hold.set()
        self._server.stop(None).wait()


def metadata() -> pb.ModelMetadataResponse:
    message = pb.ModelMetadataResponse(name="m", versions=["1"])
    message.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
    message.inputs.add(name="words", datatype="BYTES", shape=[-1])
    return message


ANSWERS = {
    "ModelMetadata": metadata(),
    "ModelConfig": pb.ModelConfigResponse(
        config={
            "name": "m",
            "sequence_batching": {"control_input": [CORRELATION_ID]},
            "input": [{"name": "x", "optional": True}, {"name": "words", "optional": True}],
        }
    ),
    "ServerLive": pb.ServerLiveResponse(live=True),
    "ServerReady": pb.ServerReadyResponse(ready=True),
}


@pytest.fixture
def serve() -> Iterator[Callable[[], Server]]:
    running: list[Server] = []

    def start() -> Server:
        running.append(Server())
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def server(serve) -> Server:
    return serve()


@pytest.fixture
def model(server: Server):
    with Client(f"127.0.0.1:{server.port}", retry=Retry(first_pause_s=0.01)) as client:
        yield client.model("m")


def test_the_end_repeats_the_last_request_with_zeros(server, model):
    """Names, types and shapes, with empty strings where there were strings."""
    x = np.ones((3, 2), np.float32)
    with model.sequence("caller 7") as sequence:
        sequence(x=np.ones((1, 2), np.float32))
        sequence(x=x, words=["a", "bc"])
    assert server.flags == ["S", "-", "E"]
    _, last, end = server.requests
    assert [(t.name, t.datatype, t.shape) for t in end.inputs] == [(t.name, t.datatype, t.shape) for t in last.inputs]
    assert list(end.raw_input_contents) == [bytes(24), bytes(8)]
    assert {request.parameters["sequence_id"].string_param for request in server.requests} == {"caller 7"}


def test_a_model_that_wants_texts_gets_one(server, model):
    """A random one of 32 characters; a number is refused before it is sent."""
    with model.sequence() as sequence:
        sequence(words=["a"])
    assert len(server.requests[0].parameters["sequence_id"].string_param) == 32
    with pytest.raises(InvalidInput, match="declares a text"):
        model.sequence(7)(words=["a"])
    assert server.flags == ["S", "E"]


def test_what_may_be_said_of_a_request_may_be_said_within_a_sequence(server, model):
    """Outputs, id, priority, parameters."""
    with model.sequence() as sequence:
        sequence.infer({"words": ["a"]}, request_id="r1", priority=2, parameters={"k": "v"}, end=True)
    (request,) = server.requests
    assert server.flags == ["B"]
    assert (request.id, request.parameters["priority"].uint64_param) == ("r1", 2)
    assert request.parameters["k"].string_param == "v"


@pytest.mark.parametrize("failure", [LOST, DEAD, FORGOTTEN])
async def test_a_server_that_cannot_have_the_state_any_more(server, model, failure):
    """The connection broke, the model's process died, or the sequence is unknown: nothing is sent after that."""
    with model.sequence(retry=True) as sequence:
        sequence(words=["a"])
        server.failures.append(failure)
        with pytest.raises(SequenceLost, match="begin a new sequence") as caught:
            sequence(words=["b"])
        assert isinstance(caught.value, ServerUnavailable)
        assert not caught.value.retryable
        with pytest.raises(SequenceLost):
            sequence(words=["c"])
    assert server.flags == ["S", "-"]
    async with AsyncClient(f"127.0.0.1:{server.port}") as client, client.model("m").sequence() as later:
        await later(words=["a"])
        server.failures.append(failure)
        with pytest.raises(SequenceLost):
            await later(words=["b"])
    assert server.flags == ["S", "-"] * 2


@pytest.mark.parametrize(("failure", "error"), [(FULL, Overloaded), (BROKEN, InferenceFailed)])
async def test_other_failures_leave_the_sequence_as_it_is(server, model, failure, error):
    """They are not retried; the next request goes on."""
    with model.sequence() as sequence:
        sequence(words=["a"])
        server.failures.append(failure)
        with pytest.raises(error):
            sequence(words=["b"])
        sequence(words=["c"])
    assert server.flags == ["S", "-", "-", "E"]
    async with AsyncClient(f"127.0.0.1:{server.port}") as client, client.model("m").sequence() as later:
        await later(words=["a"])
        server.failures.append(failure)
        with pytest.raises(error):
            await later(words=["b"])
    assert server.flags[4:] == ["S", "-", "E"]


def test_retries_on_request_repeat_only_what_surely_did_not_run(server, model):
    """A full queue, within the call."""
    with model.sequence(retry=True) as sequence:
        sequence(words=["a"])
        server.failures += [FULL, FULL]
        sequence(words=["b"])
        server.failures.append(BROKEN)
        with pytest.raises(InferenceFailed):
            sequence(words=["c"])
    assert server.flags == ["S", "-", "-", "-", "-", "E"]


def test_the_first_request_goes_elsewhere_while_no_server_has_it(serve):
    """Then the sequence stays where it was taken."""
    full, free = serve(), serve()
    full.failures += [FULL] * 9
    with Client([f"127.0.0.1:{full.port}", f"127.0.0.1:{free.port}"]) as client:
        for _ in range(2):
            with client.model("m").sequence() as sequence:
                sequence(words=["a"])
                sequence(words=["b"])
    assert free.flags == ["S", "-", "E"] * 2
    assert set(full.flags) == {"S"}


def test_a_sequence_that_did_not_begin_begins_with_the_next_request(server, model):
    """What was lost with its connection is not ended, but started again."""
    with model.sequence() as sequence:
        server.failures.append(LOST)
        with pytest.raises(ServerUnavailable) as caught:
            sequence(words=["a"])
        assert not isinstance(caught.value, SequenceLost)
        sequence(words=["a"])
    assert server.flags == ["S", "S", "E"]


async def test_a_first_request_that_may_have_run_is_ended(server, model):
    """One that took too long, or failed while it ran: the slot may be taken."""
    with model.sequence() as sequence:
        server.failures.append(BROKEN)
        with pytest.raises(InferenceFailed):
            sequence(words=["a"])
    assert server.flags == ["S", "B"]
    server.hold.clear()
    with pytest.raises(DeadlineExceeded), model.sequence(timeout_s=0.2) as sequence:
        threading.Timer(0.5, server.hold.set).start()
        sequence(words=["a"])
    assert server.flags[2:] == ["S", "B"]
    async with AsyncClient(f"127.0.0.1:{server.port}") as client, client.model("m").sequence() as later:
        server.failures.append(BROKEN)
        with pytest.raises(InferenceFailed):
            await later(words=["a"])
    assert server.flags[4:] == ["S", "B"]


def test_a_refused_first_request_is_not_ended(server, model):
    """The server has nothing of it."""
    with model.sequence() as sequence:
        server.failures.append((grpc.StatusCode.INVALID_ARGUMENT, "no"))
        with pytest.raises(InvalidInput):
            sequence(words=["a"])
    assert server.flags == ["S"]


async def test_an_end_that_fails_is_logged_and_does_not_hide_what_happened(server, model, caplog):
    """The error of the block comes out."""
    with pytest.raises(ZeroDivisionError), model.sequence("seven") as sequence:
        sequence(words=["a"])
        server.failures.append(BROKEN)
        1 / 0  # noqa: B018
    assert caplog.messages[0].startswith("sequence 'seven' of model 'm' was not ended: ")
    async with AsyncClient(f"127.0.0.1:{server.port}") as client, client.model("m").sequence() as later:
        await later(words=["a"])
        server.failures.append(BROKEN)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


async def test_a_closed_sequence_takes_no_more(server, model):
    """Closing twice does nothing."""
    sequence = model.sequence()
    sequence(words=["a"])
    sequence.close()
    sequence.close()
    with pytest.raises(InvalidInput, match="has ended"):
        sequence(words=["b"])
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        later = client.model("m").sequence()
        await later(words=["a"])
        await later.aclose()
        await later.aclose()
        with pytest.raises(InvalidInput, match="has ended"):
            await later(words=["b"])
    assert server.flags == ["S", "E"] * 2

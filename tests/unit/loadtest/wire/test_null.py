"""The null server: it answers whatever asks properly, outlives whatever does not, and ends with its parent."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from tritonclient.grpc import service_pb2

from naiad.client.testing import http2
from naiad.loadtest._wire.frames import settings
from naiad.loadtest._wire.null import NullServer
from wire_helpers import LONG_S, answer_to, content, ends_of, events_until, wire_to

ANSWER = service_pb2.ModelInferResponse(model_name="null", model_version="1").SerializeToString()
PARENT = """
import sys, time
from naiad.loadtest._wire.null import NullServer
with NullServer(b"answer") as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def null() -> Iterator[NullServer]:
    with NullServer(ANSWER) as server:
        yield server


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_every_request_gets_the_answer(null: NullServer, transport: str) -> None:
    """Many at once, small and large, on several connections."""
    with wire_to(null.url, transport, connections=2) as wire:
        prepared = wire.prepare(b"anything")
        for token in range(1_000):
            wire.send(prepared, token, LONG_S)
        wire.send(wire.prepare(bytes(5_000_000)), 1_000, LONG_S)
        wire.send(wire.prepare(b""), 1_001, LONG_S)
        ends = ends_of(wire, 1_002)
    assert {(end.status, end.message) for end in ends.values()} == {(0, ANSWER)}


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_large_answers_keep_to_the_clients_windows(transport: str) -> None:
    """Several large answers at once arrive whole."""
    with NullServer(content(3_000_000)) as server, wire_to(server.url, transport) as wire:
        for token in range(8):
            wire.send(wire.prepare(b"x"), token, LONG_S)
        ends = ends_of(wire, 8)
    assert all(bytes(end.message or b"") == content(3_000_000) for end in ends.values())


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_each_message_of_a_stream_gets_one_answer(null: NullServer, transport: str) -> None:
    """The answer repeats the request's id, as the answers of Triton do."""
    requests = [
        service_pb2.ModelInferRequest(model_name="m", id=f"id-{n}", raw_input_contents=[b"x"]) for n in range(9)
    ]
    with wire_to(null.url, transport) as wire:
        wire.open_stream(4, LONG_S)
        for request in requests:
            wire.write(wire.prepare(request.SerializeToString()), 4)
        wire.close_stream(4)
        events = events_until(wire, lambda events: any(event.ended for event in events))
    answers = [service_pb2.ModelStreamInferResponse.FromString(bytes(event.message or b"")) for event in events[:-1]]
    assert [answer.infer_response.id for answer in answers] == [request.id for request in requests]
    assert {answer.infer_response.model_name for answer in answers} == {"null"}
    assert events[-1].status == 0


def test_other_methods_are_refused(null: NullServer) -> None:
    """A client that asks for anything else is told what there is."""
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(null.url.removeprefix("grpc://")) as client:
        with pytest.raises(triton.InferenceServerException, match="ModelInfer and ModelStreamInfer only"):
            client.is_server_live()
        tensor = triton.InferInput("x", [1], "FP32")
        assert client.infer("m", [tensor]).get_response().model_name == "null"


def test_nothing_a_client_does_ends_it(null: NullServer) -> None:
    """Garbage, half a connection, forbidden frames, connections that vanish: the next client is served."""
    generator = random.Random(8)
    greeting = http2.PREFACE + settings({})
    opening = http2.headers(1, [(":path", "/inference.GRPCInferenceService/ModelInfer")])
    stream = http2.headers(1, [(":path", "/inference.GRPCInferenceService/ModelStreamInfer")])
    scripts = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        http2.PREFACE[:10],
        greeting + generator.randbytes(5_000),
        greeting + opening + http2.rst_stream(1),
        greeting + opening + http2.headers(1, [("x", "y")], end=True),
        greeting + stream + http2.data(1, b"\0\0\0\0\x05\x1a\xff\xff\xff\x0f", end=True),
        greeting + stream + http2.data(1, http2.message(b"\x1a\xff\xff\xff\xff\xff\xff\xff")) + http2.rst_stream(1),
        greeting + http2.headers(2, [(":path", "/")]),
        greeting + http2.headers(3, [("x", "y")]) + http2.headers(1, [("x", "y")]),
        greeting + http2.data(7, b"x"),
        greeting + settings({0x4: 0}) + opening + http2.data(1, http2.message(b""), end=True),
        greeting + settings({0x5: 1}),
    ]
    port = int(null.url.rpartition(":")[2])
    for script in scripts * 3:
        with socket.create_connection(("127.0.0.1", port), timeout=LONG_S) as client:
            client.sendall(script)
            if generator.random() < 0.5:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, no goodbye
    with wire_to(null.url) as wire:
        assert answer_to(wire, b"").message == ANSWER


def test_a_client_that_does_not_read_holds_nobody_up() -> None:
    """Answers that one client does not take leave the others alone."""
    with NullServer(content(500_000)) as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=LONG_S) as client:
            client.sendall(http2.PREFACE + settings({0x4: 1 << 30}) + http2.frame(0x8, 0, 0, b"\x3f\xff\xff\xff"))
            for number in range(1, 200, 2):
                path = [(":path", "/inference.GRPCInferenceService/ModelInfer")]
                client.sendall(http2.headers(number, path) + http2.data(number, http2.message(b""), end=True))
            with wire_to(server.url) as wire:
                assert bytes(answer_to(wire, b"").message or b"") == content(500_000)


def test_it_survives_an_interrupt_and_ends_with_the_block() -> None:
    """Ctrl-C goes to the whole group of processes, but the run still needs answers."""
    with NullServer(b"answer") as server:
        process = psutil.Process(server.pid)
        process.send_signal(signal.SIGINT)
        with wire_to(server.url) as wire:
            assert answer_to(wire, b"").message == b"answer"
    assert not process.is_running()


def test_it_ends_when_its_parent_is_killed() -> None:
    """No process is left behind by a parent that could not clean up."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([server], timeout=LONG_S)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE

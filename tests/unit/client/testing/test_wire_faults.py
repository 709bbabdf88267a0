"""What goes wrong on the wire, seen by two clients: a typed error or a right answer, and a client that stays usable."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from naiad.client import Client, ClientError, InvalidResponse, Retry, ServerUnavailable
from naiad.client.testing import FakeModel, FakeTriton, http2

GOOD = [[2, 4, 6]]


def page(stream: int, _: bytes) -> bytes:
    """What a gateway says whose server is away."""
    fields = [(":status", "503"), ("content-type", "text/html")]
    return http2.headers(stream, fields) + http2.data(stream, b"<h1>Service Unavailable</h1>", end=True)


FAULTS = {
    "dropped on arrival": (lambda fake: fake.drop(1), {"UNAVAILABLE"}),
    "dropped at the answer": (lambda fake: fake.drop(1, when="answer"), {"UNAVAILABLE"}),
    "half an answer, then cut": (lambda fake: fake.half_answer(1), {"UNAVAILABLE"}),
    "half an answer, then reset": (lambda fake: fake.half_answer(1, ending="reset"), {"INTERNAL"}),
    "half an answer, then silence": (lambda fake: fake.half_answer(1, ending="silence"), {"DEADLINE_EXCEEDED"}),
    "no trailers": (lambda fake: fake.no_trailers(1), {"UNKNOWN", "INTERNAL", "UNAVAILABLE"}),
    "endless headers": (lambda fake: fake.endless_headers(1), {"RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE"}),
    "a gateway's page": (lambda fake: fake.answer_frames(page, 1), {"UNAVAILABLE"}),
    "another status": (
        lambda fake: fake.answer_frames(
            lambda stream, _: http2.headers(stream, [*http2.RESPONSE, ("grpc-status", "99")], end=True), 1
        ),
        {"UNKNOWN"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_answer_is_an_error_with_a_status(fake, ask, until_well, fault):
    """The next call is answered, over the same connection or a new one."""
    assert ask(fake.grpc_address) == GOOD
    make, expected = FAULTS[fault]
    struck = make(fake)
    assert ask(fake.grpc_address, timeout_s=2.0) in expected
    assert struck.num_struck == 1
    assert not struck.active
    assert until_well(lambda: ask(fake.grpc_address)) == GOOD


def test_a_message_that_is_too_short_for_its_announcement_is_no_answer(fake):
    """The stream ends as if all were well."""
    with Client(fake.url) as client:
        fake.half_answer(1, ending="trailers")
        with pytest.raises(ClientError):
            client.infer("double", {"x": np.ones((1, 3), np.float32)})
        assert client.infer("double", {"x": np.ones((1, 3), np.float32)})["y"].shape == (1, 3)


def test_bytes_that_are_no_answer(fake):
    """Half a protobuf message, and bytes that were never one."""
    x = {"x": np.ones((1, 3), np.float32)}
    with Client(fake.url) as client:
        for make in (lambda: fake.truncate(1), lambda: fake.answer_bytes(b"\xff\xff\xff", 1)):
            fault = make()
            with pytest.raises(InvalidResponse):
                client.infer("double", x)
            assert fault.num_struck == 1
            assert client.infer("double", x)["y"].shape == (1, 3)


def test_an_oversize_answer_is_as_large_as_asked(fake, ask):
    """The right answer is in it, beside a field that nobody knows."""
    before = fake.line.num_bytes("to_client")
    fake.oversize(3 << 20, times=1)
    assert ask(fake.grpc_address) == GOOD
    assert fake.line.num_bytes("to_client") - before >= 3 << 20


def test_a_dropped_answer_was_computed_and_a_dropped_request_was_not():
    """For tests of what may be sent twice."""
    runs: list[int] = []

    def count(x: np.ndarray) -> dict[str, np.ndarray]:
        runs.append(1)
        return {"y": x}

    with FakeTriton({"count": count}) as fake:
        for when, expected in (("arrival", 0), ("answer", 1)):
            fake.drop(1, when=when)
            with Client(fake.url) as client, pytest.raises(ServerUnavailable):
                client.infer("count", {"x": np.ones((1, 1), np.float32)})
            assert len(runs) == expected


def test_a_goaway_loses_no_call(fake, ask_on):
    """Every call is answered once, on the old connection or a new one, and a new one is made."""
    number = 1
    assert ask_on(fake.grpc_address) == GOOD
    for _ in range(5):
        accepted = fake.line.num_accepted
        fake.goaway()
        while fake.line.num_accepted == accepted:
            assert ask_on(fake.grpc_address) == GOOD
            number += 1
    assert len(fake.calls()) == number


def test_an_abrupt_goaway_loses_calls_that_have_not_run(fake):
    """The client sends them again: each is answered, and none ran twice."""
    with Client(fake.url, retry=Retry(attempts=9, budget=1.0)) as client:
        for number in range(200):
            assert client.infer("double", {"x": np.full((1, 3), number, np.float32)})["y"][0, 0] == 2 * number
            fake.goaway(graceful=False)
    ran = [request.inputs["x"][0, 0] for request in fake.calls()]
    assert ran == list(range(200))
    assert fake.line.num_accepted > 1


def test_a_call_in_flight_outlives_a_goaway(fake):
    """It is answered on the old connection, while new calls take a new one."""
    x = {"x": np.ones((1, 3), np.float32)}
    with Client(fake.url) as client, ThreadPoolExecutor(1) as pool:
        client.infer("double", x)
        with fake.hang(times=1) as fault:
            waiting = pool.submit(client.infer, "double", x, timeout_s=60)
            fake.wait_for(2)
            fake.goaway()
            while fake.line.num_accepted == 1:
                client.infer("double", x)
            assert not waiting.done()
            fault.end()
            assert waiting.result(timeout=20)["y"][0, 0] == 2


def test_large_messages_pass_unchanged_while_faults_wait():
    """Looking for what to replace changes nothing else."""
    big = np.random.default_rng(0).random((3, 1_000_000), np.float32)
    model = FakeModel(lambda x: {"y": x}, inputs={"x": "FP32[-1,-1]"}, outputs={"y": "FP32[-1,-1]"})
    with FakeTriton({"same": model, "other": model}) as fake, Client(fake.url) as client:
        fake.half_answer(model="other")
        fake.half_answer(1, model="same", ending="reset")
        with pytest.raises(ClientError):
            client.infer("same", {"x": big})
        np.testing.assert_array_equal(client.infer("same", {"x": big})["y"], big)

"""Faults of requests, seen by two clients."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as tritonclient

from naiad.client import AccessDenied, Client, DeadlineExceeded, InferenceFailed, InvalidInput
from naiad.client.testing import FakeModel, FakeTriton

GOOD = [[2, 4, 6]]


def test_without_faults_it_is_a_triton(fake, ask):
    """Both clients get the answer, and the request is there to be looked at."""
    assert ask(fake.grpc_address) == GOOD
    (request,) = fake.calls()
    assert (request.model, request.method, request.status, request.cancelled) == ("double", "ModelInfer", "OK", False)
    assert request.inputs["x"].tolist() == [[1, 2, 3]]
    assert 0 < request.deadline_left_s <= 10
    assert repr(request) == "<Request ModelInfer of double: OK>"


def test_a_request_is_kept_with_all_that_came_with_it(fake):
    """Version, id, parameters, outputs, headers and every other method."""
    with Client(fake.url, metadata={"x-tenant": "blue"}) as client:
        client.infer(
            "double",
            {"x": np.ones((2, 3), np.float32)},
            version=1,
            request_id="r7",
            parameters={"mine": 1.5, "name": "a"},
            outputs=["y"],
        )
        client.server_metadata()
    request, other = fake.requests
    assert (request.version, request.request_id, request.outputs) == ("1", "r7", ("y",))
    assert {"mine": 1.5, "name": "a"}.items() <= request.parameters.items()
    assert request.metadata["x-tenant"] == "blue"
    assert (other.method, other.model, other.inputs, other.parameters) == ("ServerMetadata", None, {}, {})
    assert fake.calls("ServerMetadata") == (other,)
    fake.forget()
    assert fake.requests == ()


def test_tensors_in_shared_memory_are_kept_too():
    """What the client put there by itself, and what tritonclient put there."""
    from tritonclient.utils import shared_memory

    big = np.random.default_rng(0).random((8, 300_000), np.float32)
    key = f"/naiad-test-kit-{os.getpid()}"
    with FakeTriton({"sum": lambda x: {"y": x.sum(axis=1)}}) as server:
        with Client(server.url) as client:
            np.testing.assert_array_equal(client.infer("sum", {"x": big})["y"], big.sum(axis=1))
        (request,) = server.calls()
        assert "shared_memory_region" in request.message.inputs[0].parameters
        np.testing.assert_array_equal(request.inputs["x"], big)
        region = shared_memory.create_shared_memory_region("r", key, 12)
        try:
            shared_memory.set_shared_memory_region(region, [np.array([[1, 2, 3]], np.float32)])
            with tritonclient.InferenceServerClient(server.grpc_address) as client:
                client.register_system_shared_memory("r", key, 12)
                wanted = tritonclient.InferInput("x", [1, 3], "FP32")
                wanted.set_shared_memory("r", 12)
                assert client.infer("sum", [wanted]).as_numpy("y").tolist() == [6]
            server.restart()
            with tritonclient.InferenceServerClient(server.grpc_address) as client:
                assert not client.get_system_shared_memory_status().regions
        finally:
            shared_memory.destroy_shared_memory_region(region)
        assert server.calls()[-1].inputs["x"].tolist() == [[1, 2, 3]]


def test_requests_that_are_too_big_to_be_kept_go_first(fake, monkeypatch):
    """The oldest, until the rest is small enough; the latest is always there."""
    monkeypatch.setattr("naiad.client.testing._requests._MAX_KEPT_BYTES", 3000)
    with Client(fake.url, shared_memory=False) as client:
        for rows in (1, 2, 3, 4, 5, 6, 7, 8):
            client.infer("double", {"x": np.ones((rows, 3), np.float32)}, parameters={"ballast": "x" * 1000})
        assert [len(request.inputs["x"]) for request in fake.calls()] == [7, 8]
        client.infer("double", {"x": np.ones((1, 3), np.float32)}, parameters={"ballast": "x" * 9000})
        assert [len(request.inputs["x"]) for request in fake.calls()] == [1]


def test_it_fails_as_often_as_asked(fake, ask):
    """Three failures, then answers; one fault after the other."""
    first = fake.fail(times=2, status="RESOURCE_EXHAUSTED")
    fake.fail(times=1, status="INTERNAL", details="out of luck")
    answers = [ask(fake.grpc_address) for _ in range(4)]
    assert answers == ["RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED", "INTERNAL", GOOD]
    assert (first.num_struck, first.active) == (2, False)
    assert [request.status for request in fake.calls()] == [
        "RESOURCE_EXHAUSTED",
        "RESOURCE_EXHAUSTED",
        "INTERNAL",
        "OK",
    ]


def test_it_fails_every_now_and_then(fake, ask):
    """Each third request, whatever is in between."""
    fake.fail(every=3, times=2)
    assert [ask(fake.grpc_address) == GOOD for _ in range(10)] == [True, True, False] * 2 + [True] * 4


def test_a_fault_ends_with_its_block_or_when_all_is_healed(fake, ask):
    """The block, `end()` and `heal()`."""
    with fake.fail():
        assert ask(fake.grpc_address) == "UNAVAILABLE"
    assert ask(fake.grpc_address) == GOOD
    fault = fake.fail()
    fault.end()
    fault.end()
    assert ask(fake.grpc_address) == GOOD
    fake.fail()
    fake.hang()
    fake.heal()
    assert ask(fake.grpc_address) == GOOD


def test_a_fault_strikes_its_method_and_model_only():
    """Another model, and another method of the same model, are well."""
    with FakeTriton({"a": lambda x: {"y": x}, "b": lambda x: {"y": x}}) as fake, Client(fake.url) as client:
        fake.fail(model="a", status="INTERNAL")
        fake.fail(method="ServerMetadata", status="UNAUTHENTICATED")
        x = {"x": np.ones((1, 2), np.float32)}
        assert client.infer("b", x)["y"].shape == (1, 2)
        with pytest.raises(InferenceFailed, match="failed on purpose"):
            client.infer("a", x)
        assert client.model_metadata("a").name == "a"
        with pytest.raises(AccessDenied, match="failed on purpose"):
            client.server_metadata()


def test_a_delay_is_waited_for_and_a_deadline_cuts_it_short(fake, ask):
    """The answer comes later; who does not want to wait gets none, and the fake sees that the caller left."""
    late = fake.delay(0.3, times=1)
    assert ask(fake.grpc_address) == GOOD
    assert late.num_struck == 1
    fake.delay(60, times=1)
    assert ask(fake.grpc_address, timeout_s=0.2) == "DEADLINE_EXCEEDED"
    request = fake.calls()[-1]
    assert request.wait(10)
    assert request.cancelled
    assert ask(fake.grpc_address) == GOOD


def test_what_hangs_is_let_go_when_the_server_stops(fake, ask):
    """The caller gets an error instead of an endless wait."""
    with ThreadPoolExecutor(1) as pool:
        fake.hang()
        waiting = pool.submit(ask, fake.grpc_address, 60.0)
        fake.wait_for(1)
        fake.stop(grace_s=None)
        assert waiting.result(timeout=20) in ("CANCELLED", "UNAVAILABLE")


def test_a_port_can_be_chosen_and_must_be_free(fake):
    """A second server on it is refused, and leaves nothing behind."""
    port = int(fake.grpc_address.rpartition(":")[2])
    before = threading.active_count()
    with pytest.raises(OSError, match="in use"):
        FakeTriton(port=port)
    assert threading.active_count() <= before
    fake.stop()
    with FakeTriton({"same": lambda x: {"y": x}}, port=port) as other, Client(other.url) as client:
        assert other.grpc_address == fake.grpc_address
        assert client.live()


def test_a_stop_with_grace_lets_requests_finish(fake, ask):
    """What was in flight is answered, and nobody new gets in."""
    fake.delay(0.5)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, fake.grpc_address)
        fake.wait_for(1)
        fake.stop(grace_s=10)
        assert waiting.result(timeout=20) == GOOD
    assert ask(fake.grpc_address) == "UNAVAILABLE"


def test_a_killed_server_comes_back_on_the_same_port(fake, ask, until_well):
    """Requests in flight break, later ones are refused, and all is well after the restart."""
    address = fake.grpc_address
    assert ask(address) == GOOD
    with fake.hang(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, address, 60.0)
        fake.wait_for(2)
        fake.kill()
        assert waiting.result(timeout=20) == "UNAVAILABLE"
    assert ask(address) == "UNAVAILABLE"
    fake.restart()
    assert fake.grpc_address == address
    assert until_well(lambda: ask(address)) == GOOD


@pytest.mark.parametrize("stage", ["waiting", "unloading"])
def test_a_draining_server_refuses_and_recovers(fake, ask, stage):
    """Inference and readiness say so, each in its own way."""
    with fake.draining(stage), Client(fake.url) as client:
        assert ask(fake.grpc_address) == {"waiting": "UNAVAILABLE", "unloading": "NOT_FOUND"}[stage]
        assert not client.live()
        assert not client.ready()
    assert ask(fake.grpc_address) == GOOD


def test_threads_may_ask_and_break_it_at_once(fake):
    """Every request is counted once, struck or not."""
    with Client(fake.url) as client, ThreadPoolExecutor(16) as pool:
        fault = fake.fail(every=5, status="INTERNAL")

        def one(_: int) -> bool:
            try:
                return bool(client.infer("double", {"x": np.ones((1, 3), np.float32)})["y"][0, 0] == 2)
            except InferenceFailed:
                return False

        well = sum(pool.map(one, range(200)))
    assert (well, fault.num_struck, len(fake.calls())) == (160, 40, 200)


def test_waiting_for_requests_that_do_not_come_has_an_end(fake):
    """The error says what was expected and what was there."""
    with pytest.raises(
        TimeoutError, match=r"expected 2 requests of ModelInfer of model 'double' within 0\.1 s, found 0"
    ):
        fake.wait_for(2, model="double", timeout_s=0.1)


def test_only_the_latest_requests_are_kept():
    """A long test does not fill the memory."""
    with FakeTriton({"same": lambda x: {"y": x}}, keep_requests=3) as fake, Client(fake.url) as client:
        for number in range(5):
            client.infer("same", {"x": np.full((1, 1), number, np.float32)})
    assert [request.inputs["x"][0, 0] for request in fake.calls()] == [2, 3, 4]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda fake: fake.fail(times=0), "times is a whole number above 0"),
        (lambda fake: fake.fail(every=True), "every is a whole number above 0"),
        (lambda fake: fake.fail(status="BROKEN"), "name of a gRPC status like 'UNAVAILABLE', found 'BROKEN'"),
        (lambda fake: fake.fail(method="Infer"), "one of the methods ServerLive, .*, found 'Infer'"),
        (lambda fake: fake.fail(models="a"), "takes times, every, method and model, found models"),
        (lambda fake: fake.delay(-1), "number of seconds"),
        (lambda fake: fake.draining("dying"), "stages waiting, unloading, found 'dying'"),
        (lambda fake: fake.half_answer(ending="well"), "endings cut, reset, trailers, silence, found 'well'"),
        (lambda fake: fake.drop(when="never"), "'arrival' or 'answer'"),
        (lambda fake: fake.oversize(0), "below 2"),
        (lambda fake: fake.calls("Infer"), "one of the methods"),
        (lambda fake: fake.goaway(), "open connection"),
        (lambda fake: fake.line.cut_after(-1), "size_bytes"),
        (lambda fake: fake.line.cut_after(1, direction="up"), "directions to_client, to_server, found 'up'"),
        (lambda fake: fake.line.throttled(0), "bytes_per_s"),
        (lambda fake: FakeTriton(keep_requests=0), "keep_requests"),
    ],
)
def test_wrong_use_is_refused(fake, wrong, message):
    """The message says what would be right."""
    with pytest.raises(InvalidInput, match=message):
        wrong(fake)


def test_faults_say_what_they_are(fake):
    """For the output of a test that fails."""
    fault = fake.fail(times=3, status="UNAVAILABLE", model="double", every=2)
    assert repr(fault) == "<Fault fail UNAVAILABLE at ModelInfer of double, every=2, 3 times>"
    fault.end()
    assert repr(fault) == "<Fault fail UNAVAILABLE at ModelInfer of double, every=2, 3 times, over>"
    with fake.line.stalled("to_client") as trouble:
        assert repr(trouble) == "<Trouble stalled to_client>"
    assert repr(fake).startswith("<FakeTriton at 127.0.0.1:")


def test_a_queue_before_one_instance_lets_the_first_come_first():
    """A request waits for its turn, at most as long as its deadline."""
    gate = threading.Event()
    model = FakeModel(lambda x: {"y": x} if gate.wait(20) else {}, inputs={"x": "FP32[1]"}, instances=1)
    with FakeTriton({"slow": model}) as fake, Client(fake.url) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.infer, "slow", {"x": np.zeros(1, np.float32)})
        fake.wait_for(1)
        with pytest.raises(DeadlineExceeded):
            client.infer("slow", {"x": np.ones(1, np.float32)}, timeout_s=0.2)
        gate.set()
        assert first.result(timeout=20)["y"].tolist() == [0]

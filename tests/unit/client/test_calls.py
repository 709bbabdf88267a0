"""Calls to servers that fail, hang, leave and come back; each by threads and by asyncio."""

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from naiad.client import (
    AccessDenied,
    AsyncClient,
    Balancing,
    CallInfo,
    Cancelled,
    Client,
    ClientClosed,
    ClientError,
    DeadlineExceeded,
    Hedge,
    InvalidInput,
    InvalidResponse,
    Limits,
    ModelNotFound,
    Retry,
    ServerUnavailable,
    Timeout,
    Timing,
)
from naiad.client.testing import FakeModel, FakeTriton

ONE = {"x": np.ones((1, 3), np.float32)}
DOUBLE = FakeModel(lambda x: {"y": 2 * x}, inputs={"x": "FP32[-1,3]"}, outputs={"y": "FP32[-1,3]"}, max_batch_size=8)
Run = Callable[..., Any]


@pytest.fixture
def two() -> Iterator[tuple[FakeTriton, FakeTriton]]:
    with FakeTriton({"double": DOUBLE}) as first, FakeTriton({"double": DOUBLE}) as second:
        yield first, second


def urls(servers: tuple[FakeTriton, ...]) -> list[str]:
    return [server.url for server in servers]


def blocking(servers: Any, work: Callable[[Any], Any], **options: Any) -> Any:
    """Run `work` with a client whose calls block; what it returns or yields is its result."""
    with Client(servers, **options) as client:
        return work(client)


def looping(servers: Any, work: Callable[[Any], Any], **options: Any) -> Any:
    """Run the same `work` with a client in an event loop, through a face that waits for each call."""

    async def run() -> Any:
        async with AsyncClient(servers, **options) as client:
            return await asyncio.to_thread(work, Waiting(client, asyncio.get_running_loop()))

    return asyncio.run(run())


class Waiting:
    """Calls the asyncio client of another thread's loop, and waits."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target, self._loop = target, loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            if inspect.isawaitable(result):
                return asyncio.run_coroutine_threadsafe(_awaited(result), self._loop).result(60)
            return Waiting(result, self._loop) if hasattr(result, "infer") or hasattr(result, "only") else result

        return call


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


@pytest.fixture(params=[blocking, looping])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param


def infer(client: Any, **options: Any) -> Any:
    return client.infer("double", ONE, **options)


def counts(servers: tuple[FakeTriton, ...]) -> list[int]:
    return [len(server.calls()) for server in servers]


def test_calls_are_spread_over_the_servers(run, two):
    """One after the other, both get the same number."""
    run(urls(two), lambda client: [infer(client) for _ in range(10)])
    assert counts(two) == [5, 5]


def test_a_broken_connection_sends_the_call_to_another_server(run, two):
    """At once, and the server that may have run it does not get it again."""
    two[0].fail()
    two[1].fail(times=1)
    with pytest.raises(ServerUnavailable) as caught:
        run(urls(two), infer)
    assert not caught.value.unprocessed
    assert counts(two) == [1, 1]
    assert run(urls(two), infer)["y"].tolist() == [[2, 2, 2]]


def test_one_server_alone_gets_a_call_again_only_if_it_is_idempotent(run):
    """A broken connection does not tell whether the request ran."""
    with FakeTriton({"double": DOUBLE}) as fake:
        fake.fail(times=1)
        with pytest.raises(ServerUnavailable):
            run(fake.url, infer)
        assert len(fake.calls()) == 1
        fake.fail(times=2)
        assert run(fake.url, lambda client: infer(client, idempotent=True)).timing.num_attempts == 3


@pytest.mark.parametrize(
    ("status", "expected"), [("UNAUTHENTICATED", AccessDenied), ("PERMISSION_DENIED", AccessDenied)]
)
def test_a_refused_identity_is_not_tried_again(run, two, status, expected):
    """Neither there nor elsewhere: it would only look like an attack."""
    for fake in two:
        fake.fail(status=status)
    with pytest.raises(expected):
        run(urls(two), lambda client: infer(client, idempotent=True))
    assert sum(counts(two)) == 1


@pytest.mark.parametrize("stage", ["waiting", "unloading"])
def test_a_server_on_its_way_out_loses_no_call(run, two, stage):
    """Whatever it answers: its NOT_FOUND says nothing about the model."""
    two[0].draining(stage)
    answers = run(urls(two), lambda client: [infer(client)["y"].tolist() for _ in range(10)])
    assert answers == [[[2, 2, 2]]] * 10
    assert counts(two)[0] == 1  # then it was left alone


def test_a_model_that_is_not_there_is_not_looked_for_elsewhere(run, two):
    """A healthy server knows what it serves."""
    with pytest.raises(ModelNotFound):
        run(urls(two), lambda client: client.infer("nothing", ONE))
    assert sum(len(fake.calls(model="nothing")) for fake in two) == 1


def test_a_server_that_hangs_is_left_for_another(run, two):
    """Where an attempt has a limit of its own."""
    two[0].hang()
    two[1].hang(times=1)
    with pytest.raises(DeadlineExceeded):
        run(urls(two), infer, timeout=Timeout(total_s=5.0, attempt_s=0.2))
    two[0].heal()
    assert run(urls(two), infer, timeout=Timeout(total_s=5.0, attempt_s=2.0))


def test_a_server_that_comes_back_gets_calls_again(run, two):
    """On the same port, without a new client."""

    def work(client: Any) -> None:
        two[0].kill()
        for _ in range(5):
            infer(client)
        assert counts(two) == [0, 5]
        two[0].restart()
        while not two[0].calls():
            infer(client)

    run(urls(two), work, balancing=Balancing(eject_s=0.05))


def test_an_open_circuit_refuses_without_a_call(run):
    """With `all_ejected="refuse"`, until a trial succeeds."""
    with FakeTriton({"double": DOUBLE}) as fake:
        fake.fail(times=1)

        def work(client: Any) -> None:
            with pytest.raises(ServerUnavailable, match="lost while it had"):
                infer(client)
            with pytest.raises(ServerUnavailable, match=r"no server of .* is used now"):
                infer(client)
            assert len(fake.calls()) == 1

        run(
            fake.url,
            work,
            balancing=Balancing(all_ejected="refuse", eject_s=30, max_eject_s=30),
            retry=Retry(attempts=1),
        )


def test_a_slow_server_is_overtaken_by_another(run, two):
    """After the usual time a second one is asked, and the first is told that nobody waits any more."""

    def work(client: Any) -> None:
        for _ in range(80):
            infer(client)
        for fake in two:
            fake.forget()
        two[0].hang()
        for _ in range(4):
            assert infer(client, timeout_s=20)["y"].tolist() == [[2, 2, 2]]
        overtaken = two[0].wait_for(1)
        assert overtaken
        assert counts(two)[1] == 4

    run(urls(two), work, hedge=Hedge(), balancing=Balancing(policy="round_robin"))
    assert all(call.ended.wait(10) and call.cancelled for call in two[0].calls())


def test_a_hedged_call_survives_the_failure_of_either_server(run, two):
    """Retries go on below it."""

    def work(client: Any) -> None:
        for _ in range(80):
            infer(client)
        two[0].fail()
        for _ in range(10):
            infer(client)

    run(urls(two), work, hedge=Hedge(), balancing=Balancing(eject_s=0.01))


def test_no_more_calls_are_in_flight_than_the_limit_says(run):
    """Others wait, within their deadline."""
    with FakeTriton({"double": DOUBLE}) as fake:
        fake.hang(times=2)

        def work(client: Any) -> None:
            with ThreadPoolExecutor() as pool:
                stuck = [pool.submit(infer, client, timeout_s=3.0) for _ in range(2)]
                fake.wait_for(2)
                with pytest.raises(DeadlineExceeded, match=r"Limits\.inflight") as caught:
                    infer(client, timeout_s=0.1)
                assert caught.value.unprocessed
                waiting = pool.submit(infer, client, timeout_s=20.0)
                for call in stuck:
                    with pytest.raises(DeadlineExceeded, match="got no answer"):
                        call.result()
                waiting.result()
            assert len(fake.calls()) == 3

        run(fake.url, work, limits=Limits(inflight=2))


def test_an_answer_larger_than_the_limit_is_refused(run):
    """With a typed error, and the client stays usable."""
    with FakeTriton({"grow": lambda x: {"y": np.zeros((1, int(x.ravel()[0])), np.float32)}}) as fake:

        def work(client: Any) -> None:
            with pytest.raises(InvalidResponse, match="larger than max"):
                client.infer("grow", {"x": np.full((1, 1), 100_000, np.float32)})
            assert client.infer("grow", {"x": np.full((1, 1), 10, np.float32)})["y"].shape == (1, 10)

        run(fake.url, work, limits=Limits(max_response_bytes=100_000))


def test_a_function_names_the_servers_of_the_moment(run, two):
    """Those that are gone get no calls any more, and their connection is closed."""
    listed = [two[0].url]

    def work(client: Any) -> None:
        infer(client)
        assert counts(two) == [1, 0]
        listed[:] = [two[1].url]
        while not two[1].calls():
            infer(client)
        known = counts(two)[0]
        infer(client)
        assert counts(two)[0] == known
        assert [state.address for state in client.servers] == [two[1].url]

    run(lambda: listed, work, balancing=Balancing(refresh_s=0.01))


def test_a_function_that_fails_later_does_not_end_the_calls(run, two):
    """The servers that are known stay."""
    calls = iter([[two[0].url]])

    def servers() -> list[str]:
        return next(calls)

    run(servers, lambda client: [infer(client) for _ in range(50)], balancing=Balancing(refresh_s=0.001))
    assert counts(two)[0] == 50


def test_one_of_several_servers_can_be_addressed(run, two):
    """With the same connection; closing the view closes nothing."""

    def work(client: Any) -> None:
        one = client.only(two[1].url)
        for _ in range(4):
            infer(one)
        one.close()
        infer(client)
        with pytest.raises(InvalidInput, match="expected one of this client's servers"):
            client.only("elsewhere:8001")

    run(urls(two), work)
    assert counts(two)[1] >= 4


def test_models_are_loaded_on_every_server_and_statistics_added(run, two):
    """A fleet is one service."""

    def work(client: Any) -> None:
        for _ in range(6):
            infer(client)
        client.unload("double")
        client.load("double")
        assert all(server.calls("RepositoryModelLoad") for server in two)
        (stats,) = client.statistics("double")
        assert stats.inference_count == sum(
            client.only(server.url).statistics("double")[0].inference_count for server in two
        )
        two[1].fail(method="RepositoryModelLoad", status="INTERNAL")
        with pytest.raises(ClientError) as caught:
            client.load("double")
        assert caught.value.endpoint == two[1].url
        assert caught.value.__notes__ == ["1 of 2 servers did it"]

    run(urls(two), work)


def test_another_version_makes_the_handle_ask_again(run, monkeypatch):
    """Also when the request does not fit the old one any more: it is not refused on old knowledge."""
    monkeypatch.setattr("naiad.client._model.handle._OLD_S", 0.0)
    with FakeTriton({"double": DOUBLE}) as fake:

        def work(client: Any) -> None:
            model = client.model("double")
            model.infer(ONE)
            fake.serve("double", FakeModel(lambda x: {"y": x}, inputs={"x": "FP32[-1,5]"}, versions=("2",)))
            assert model.infer({"x": np.ones((1, 5), np.float32)})["y"].shape == (1, 5)
            with pytest.raises(InvalidInput, match="has the shape"):
                model.infer(ONE)

        run(fake.url, work)


def test_servers_that_differ_in_their_versions_are_asked_again_once(run):
    """While a version is rolled out, each answer of another version than the described one would cost two questions."""
    old, new = (FakeModel(lambda x: {"y": x}, inputs={"x": "FP32[-1,3]"}, versions=(number,)) for number in "12")
    with FakeTriton({"double": old}) as first, FakeTriton({"double": new}) as second:

        def work(client: Any) -> None:
            model = client.model("double")
            for _ in range(20):
                model.infer(ONE)

        run(urls((first, second)), work)
        assert sum(len(fake.calls("ModelMetadata")) for fake in (first, second)) <= 3


def test_observers_see_every_attempt_and_the_end(run, two):
    """And their headers travel."""
    two[0].fail(method="ModelInfer", times=1)
    two[1].fail(method="ModelInfer", times=1)
    seen: list[Any] = []

    class Seen:
        def call(self, info: CallInfo) -> Any:
            seen.append((info.method, info.model, info.request_bytes > 0))
            return self

        def attempt(self, endpoint: str, number: int) -> dict[str, str]:
            seen.append(("attempt", number))
            return {"x-seen": str(number)}

        def attempt_failed(self, error: ClientError) -> None:
            seen.append(type(error))

        def done(self, timing: Timing, response_bytes: int, error: BaseException | None) -> None:
            seen.append((timing.num_attempts, response_bytes > 0, error))

    run(urls(two), lambda client: infer(client, idempotent=True), observers=[Seen()])
    assert seen == [
        ("ModelInfer", "double", True),
        ("attempt", 1),
        ServerUnavailable,
        ("attempt", 2),
        ServerUnavailable,
        ("attempt", 3),
        (3, True, None),
    ]
    headers = sorted(call.metadata["x-seen"] for server in two for call in server.calls())
    assert headers == ["1", "2", "3"]


def test_a_result_says_where_the_time_went(run, two):
    """The parts add up to the whole."""
    two[0].delay(0.05)
    two[1].delay(0.05)
    timing = run(urls(two), infer).timing
    assert timing.rpc_s >= 0.05
    parts = timing.encode_s + timing.waiting_s + timing.rpc_s + timing.decode_s
    assert parts == pytest.approx(timing.total_s, rel=0.01, abs=1e-4)
    assert timing.endpoint in urls(two)


def test_a_closed_client_says_so(run):
    """Also a call that waits while it is closed."""
    with FakeTriton({"double": DOUBLE}) as fake:
        fake.hang(times=1)

        def work(client: Any) -> None:
            with ThreadPoolExecutor() as pool:
                stuck = pool.submit(infer, client, timeout_s=30)
                fake.wait_for(1)
                client.close()
                for call in (stuck.result, lambda: infer(client)):
                    with pytest.raises(ClientClosed, match="make a new one"):
                        call()

        run(fake.url, work)


def test_many_threads_share_a_client(two):
    """Each gets its own answers."""
    with Client(urls(two)) as client:
        model = client.model("double")

        def work(number: int) -> bool:
            x = np.full((1, 3), number, np.float32)
            return all((model(x=x + i)["y"] == 2 * (x + i)).all() for i in range(50))

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(work, range(16)))
    assert sum(state.outstanding for state in client.servers) == 0


def test_a_submitted_call_runs_while_its_caller_does_something_else(two):
    """And takes retries with it."""
    two[0].fail(times=1)
    two[1].fail(times=1)
    with Client(urls(two)) as client:
        model = client.model("double", idempotent=True)
        done = threading.Event()
        calls = [model.submit({"x": np.full((1, 3), i, np.float32)}) for i in range(20)]
        calls[-1].when_done(done.set)
        assert [call.result()["y"][0, 0] for call in calls] == [2 * i for i in range(20)]
        assert done.wait(10)
        assert calls[0].done()
        assert calls[0].result() is calls[0].result()


def test_a_submitted_call_can_be_cancelled_on_the_server():
    """Its result says who did it."""
    with FakeTriton({"double": DOUBLE}) as fake, Client(fake.url) as client:
        fake.hang(times=1)
        call = client.model("double").submit(ONE)
        fake.wait_for(1)
        call.cancel()
        with pytest.raises(Cancelled, match=r"Call\.cancel"):
            call.result()
        assert fake.calls()[0].ended.wait(10)
        assert fake.calls()[0].cancelled
        wait_until(lambda: client.servers[0].outstanding == 0)


def test_a_submitted_call_that_nobody_asks_for_does_not_count_for_ever(two):
    """Neither one that was answered nor one that was cancelled: its server would get fewer calls from then on."""
    two[0].hang()
    with Client(urls(two)) as client:
        model = client.model("double")
        model.infer(ONE)
        calls = [model.submit(ONE) for _ in range(10)]
        for call in calls:
            call.cancel()
        del calls, call
        ended = threading.Event()
        model.submit(ONE).when_done(ended.set)
        two[0].heal()
        assert ended.wait(10)
        for server in two:
            for request in server.calls():
                assert request.ended.wait(10)
        wait_until(lambda: all(state.outstanding == 0 for state in client.servers))


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_submitted_call_gives_its_place_back_even_if_nobody_asks_for_its_result():
    """Otherwise a forgotten call would block the client for ever."""
    with FakeTriton({"double": DOUBLE}) as fake, Client(fake.url, limits=Limits(inflight=1)) as client:
        model = client.model("double")
        for _ in range(5):
            model.submit(ONE)
        assert model.submit(ONE).result()

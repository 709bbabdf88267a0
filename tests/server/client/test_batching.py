"""Callers that share requests, by threads and by tasks, on the real Triton."""

import asyncio
import gc
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from naiad.client import (
    AsyncBatched,
    AsyncClient,
    Batched,
    CallInfo,
    Cancelled,
    Client,
    ClientClosed,
    ClientError,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    InvalidResponse,
    Overloaded,
    Result,
    Timing,
)
from rows_helpers import num_cancelled, num_requests, wait_until_busy

HELD = 100.8
"""A row that keeps the model busy for most of a second."""
FOREVER = 400.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not come")


def interrupt_main() -> None:
    """Ctrl-C, as the main thread gets it."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class Threads:
    """Callers in threads of their own."""

    def __init__(self, url: str) -> None:
        self.client = Client(url)
        self.pool = ThreadPoolExecutor(64)

    def start(self, batched: Batched, *arguments: Any, **keywords: Any) -> "Future[Result]":
        return self.pool.submit(batched.infer, *arguments, **keywords)

    def run(self, ended: None) -> None:
        """What blocks has ended already."""

    def end(self) -> None:
        self.client.close()
        self.pool.shutdown()


class Tasks:
    """Callers as tasks of an event loop, which runs in another thread."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.client = AsyncClient(url)

    def start(self, batched: AsyncBatched, *arguments: Any, **keywords: Any) -> "Future[Result]":
        return asyncio.run_coroutine_threadsafe(batched.infer(*arguments, **keywords), self.loop)

    def run(self, waiting: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(waiting, self.loop).result(60)

    def end(self) -> None:
        self.run(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Crowd:
    """Callers of one model, the same for either client."""

    def __init__(self, callers: Any, model: str, *, idempotent: bool = False, **options: Any) -> None:
        self.callers = callers
        self.client = callers.client
        self.batched = self.client.model(model, idempotent=idempotent).batched(**options)

    def ask(self, value: float, **keywords: Any) -> "Future[Result]":
        """One row, in the background."""
        return self.start({"x": [[value]]}, **keywords)

    def start(self, inputs: dict[str, Any], **keywords: Any) -> "Future[Result]":
        future: Future[Result] = self.callers.start(self.batched, inputs, **keywords)
        return future

    def queue_up(self, *values: float, **keywords: Any) -> "list[Future[Result]]":
        """Rows that come one after the other while the only place is taken."""
        return [self.queue_one({"x": [[value]]}, **keywords) for value in values]

    def queue_one(self, inputs: dict[str, Any], **keywords: Any) -> "Future[Result]":
        number = self.batched.num_waiting
        future = self.start(inputs, **keywords)
        until(lambda: self.batched.num_waiting > number or future.done())
        return future

    def hold(self, value: float = HELD) -> "Future[Result]":
        """Take the place, so that those who come meanwhile wait for each other."""
        number = self.batched.num_batches
        future = self.ask(value)
        until(lambda: self.batched.num_batches > number and self.num_outstanding == 1)
        return future

    @property
    def num_outstanding(self) -> int:
        return sum(server.outstanding for server in self.client.servers)

    def close(self) -> None:
        self.callers.run(self.batched.close())


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "tasks"])
def callers(request: pytest.FixtureRequest, url: str) -> Iterator[Any]:
    callers = request.param(url)
    yield callers
    callers.end()


@pytest.fixture
def crowd(callers: Any) -> Callable[..., Crowd]:
    """`crowd(**options)`: callers of `rows` who share one request at a time."""
    return lambda model="rows", **options: Crowd(callers, model, **{"inflight": 1, **options})


def sizes(futures: "list[Future[Result]]") -> list[int]:
    return [int(future.result(60)["size"][0, 0]) for future in futures]


def test_everybody_gets_their_own_rows_with_far_fewer_requests(crowd, url):
    """Sixteen callers, a thousand requests of one to three rows: the server runs a fraction."""
    callers = crowd("scale", inflight=2)
    before = num_requests(url, "scale")

    def rows(number: int) -> np.ndarray:
        return np.full((1 + number % 3, 3), number, np.float32)

    def sixteen(numbers: range) -> None:
        futures = {number: callers.start({"x": rows(number)}) for number in numbers}
        for number, future in futures.items():
            answer = future.result(60)
            np.testing.assert_array_equal(answer["y"], rows(number) * 3)
            assert answer["y"].flags.writeable
            assert (answer.model_name, answer.model_version) == ("scale", "2")
            assert answer.timing.total_s >= answer.timing.rpc_s > 0

    for start in range(0, 1000, 16):
        sixteen(range(start, min(start + 16, 1000)))
    assert callers.batched.num_requests == 1000
    assert num_requests(url, "scale") - before == callers.batched.num_batches
    assert callers.batched.num_batches < 700
    assert callers.batched.mean_rows > 2.5
    callers.close()


def test_those_who_come_while_one_is_under_way_travel_together(crowd):
    """Whoever comes alone goes at once; nobody waits for company."""
    callers = crowd()
    first = callers.hold()
    others = callers.queue_up(*range(10))
    assert sizes([first]) == [1]
    assert sizes(others) == [10] * 10
    assert [int(other.result()["y"][0, 0]) for other in others] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert (callers.batched.num_requests, callers.batched.num_batches, callers.batched.mean_rows) == (11, 2, 5.5)


def test_answers_do_not_share_memory(crowd):
    """What one caller writes into its answer, no other sees."""
    callers = crowd()
    callers.hold()
    one, other = (future.result(60)["y"] for future in callers.queue_up(1, 2))
    assert not np.shares_memory(one, other)
    assert one.base is None
    one += 100
    assert other[0, 0] == 4


def test_first_come_first_served(crowd):
    """As many as fit, in the order of their arrival."""
    callers = crowd(max_rows=4)
    callers.hold()
    assert sizes(callers.queue_up(*range(10))) == [4, 4, 4, 4, 4, 4, 4, 4, 2, 2]


def test_a_request_never_has_more_rows_than_the_model_takes(crowd):
    """Whatever was wished for; one with more than was wished for goes by itself."""
    callers = crowd(max_rows=1000)
    callers.hold()
    assert sizes([callers.queue_one({"x": np.zeros((7, 1), np.float32)}) for _ in range(3)]) == [14, 14, 7]
    callers = crowd(max_rows=2)
    callers.hold()
    assert sizes([callers.queue_one({"x": np.zeros((rows, 1), np.float32)}) for rows in (1, 5, 1)]) == [1, 5, 1]


def test_requests_that_ask_for_something_else_travel_apart(crowd):
    """Each kind together, the kind that waits longest first."""
    callers = crowd()
    callers.hold()
    plain = callers.queue_up(1, 1)
    other = callers.queue_up(1, 1, 1, outputs=["y", "size"])
    plain += callers.queue_up(1)
    assert sizes(plain) == [3, 3, 3]
    assert sizes(other) == [3, 3, 3]
    assert [list(future.result()) for future in other] == [["y", "size"]] * 3


def test_wrong_input_is_its_callers_error_alone(crowd, url):
    """It is refused before it meets the others, and they are together as if it had never come."""
    callers = crowd()
    callers.hold()
    before = num_requests(url, "scale")
    good = callers.queue_up(1, 2)
    with pytest.raises(InvalidInput, match=r"has the shape \[\?, 1\], found \[1, 2\]"):
        callers.start({"x": [[1, 2]]}).result(60)
    with pytest.raises(InvalidInput, match=r"no input 'q'"):
        callers.start({"q": [[1]]}).result(60)
    assert sizes(good) == [2, 2]
    assert num_requests(url, "scale") == before


def test_what_the_server_refuses_does_not_fail_the_neighbours(crowd):
    """The refused batch was not run: each of its requests is sent again by itself."""
    callers = crowd()
    callers.hold()
    good, bad, fine = callers.queue_up(1, -1, 3)
    assert sizes([good, fine]) == [1, 1]
    assert (good.result()["y"][0, 0], fine.result()["y"][0, 0]) == (2, 6)
    with pytest.raises(InvalidInput, match="a row of -1"):
        bad.result(60)


def test_what_breaks_the_model_fails_all_unless_it_may_run_twice(crowd):
    """Only `idempotent` lets the others run a second time."""
    callers = crowd()
    callers.hold()
    errors = [future.exception(60) for future in callers.queue_up(1, -2, 3)]
    assert [type(error) for error in errors] == [InferenceFailed] * 3
    assert len({id(error) for error in errors}) == 3
    callers = crowd(idempotent=True)
    callers.hold()
    good, bad, fine = callers.queue_up(1, -2, 3)
    assert sizes([good, fine]) == [1, 1]
    with pytest.raises(InferenceFailed, match="a row of -2"):
        bad.result(60)


def test_outputs_that_cannot_be_told_apart_fail_all_and_say_why(crowd):
    """One sum for everybody is nobody's."""
    callers = crowd("uneven")
    assert callers.ask(1).result(60)["total"].tolist() == [[1]]
    with Client(callers.client.url) as client:
        busy = client.model("uneven").submit({"x": [[1]]})
        both = [callers.start({"x": [[1], [1]]}) for _ in range(2)]
        errors = [future.exception(60) for future in both]
        busy.result()
    assert all(isinstance(error, InvalidResponse) and "cannot be told apart" in str(error) for error in errors)


def test_a_caller_whose_deadline_passes_leaves_and_its_rows_are_not_sent(crowd):
    """The error says that it waited for the others; they travel without it."""
    callers = crowd()
    callers.hold()
    patient = callers.queue_up(1, 2)
    hasty = callers.queue_up(3, timeout_s=0.1)
    with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s \(the request waited to be sent"):
        hasty[0].result(60)
    assert sizes(patient) == [2, 2]


def test_a_caller_whose_deadline_passes_on_the_way_leaves_the_others_alone(crowd):
    """Each has its own time, whoever came first and whoever did the sending."""
    callers = crowd()
    callers.hold()
    hasty = callers.queue_up(HELD, 1, timeout_s=1.0)
    patient = callers.queue_up(2)
    more_hasty = callers.queue_up(3, timeout_s=1.2)
    for future in (*hasty, *more_hasty):
        with pytest.raises(DeadlineExceeded, match="was sent with others"):
            future.result(60)
    assert sizes(patient) == [4]


def test_a_batch_that_nobody_waits_for_is_cancelled_on_the_server(crowd, url):
    """And its place is free for the next."""
    before = num_cancelled(url)
    callers = crowd()
    alone = callers.ask(FOREVER, timeout_s=1.0)
    wait_until_busy(url)
    with pytest.raises(DeadlineExceeded):
        alone.result(60)
    assert num_cancelled(url) == before + 1
    assert sizes([callers.ask(1)]) == [1]
    until(lambda: callers.num_outstanding == 0)


def test_more_than_may_wait_are_turned_away(crowd):
    """At once; those who wait are served."""
    callers = crowd(max_waiting=2)
    callers.hold()
    waiting = callers.queue_up(1, 2)
    with pytest.raises(Overloaded, match="as many as max_waiting allows"):
        callers.ask(3).result(60)
    assert sizes(waiting) == [2, 2]


def test_a_batch_waits_for_company_if_it_is_asked_to(crowd):
    """Until it is full, or until the first one has waited long enough."""
    callers = crowd(max_wait_s=300.0, max_rows=3, inflight=2)
    assert sizes(callers.queue_up(1, 2, 3)) == [3, 3, 3]
    with pytest.raises(DeadlineExceeded):
        callers.ask(1, timeout_s=0.2).result(60)
    callers = crowd(max_wait_s=0.05, max_rows=3)
    assert sizes([callers.ask(1)]) == [1]


def test_closing_serves_those_who_wait_and_takes_no_more(crowd):
    """Also those who wait for company that will not come now."""
    callers = crowd()
    first = callers.hold()
    others = callers.queue_up(1, 2)
    callers.close()
    assert first.done()
    assert sizes(others) == [2, 2]
    with pytest.raises(ClientClosed, match="make a new one"):
        callers.ask(1).result(60)
    callers = crowd(max_wait_s=300.0)
    alone = callers.ask(1)
    until(lambda: callers.batched.num_waiting == 1)
    callers.close()
    assert sizes([alone]) == [1]
    callers.close()


def test_a_client_that_is_closed_ends_the_wait_of_all(crowd, callers, url):
    """Of those on the way and of those who are not."""
    us = crowd()
    first = us.ask(FOREVER)
    wait_until_busy(url)
    waiting = us.queue_up(1, 2)
    us.callers.run(us.client.close())
    for future in (first, *waiting):
        assert isinstance(future.exception(60), (ClientClosed, Cancelled))
    assert us.batched.num_waiting == 0
    num_cancelled(url)  # is answered: nothing runs any more


def test_a_model_without_a_batch_dimension_is_refused(crowd):
    """With what to do instead."""
    with pytest.raises(InvalidInput, match="call the model itself"):
        crowd("maybe").start({"a": [1, 2]}).result(60)


def test_options_are_checked(triton):
    """When they are given."""
    for options in ({"inflight": 0}, {"max_rows": 0}, {"max_wait_s": -1}, {"max_waiting": 0}):
        with pytest.raises(InvalidInput, match=next(iter(options))):
            triton.model("rows").batched(**options)
        with pytest.raises(InvalidInput, match=next(iter(options))):
            AsyncClient(triton.url).model("rows").batched(**options)


def test_a_crowd_of_all_kinds_leaves_nothing_behind(crowd):
    """Hasty, wrong and breaking callers among five hundred: everybody has an outcome, then all is quiet."""
    callers = crowd(inflight=3, idempotent=True)
    dice = random.Random(0)
    futures = []
    for number in range(500):
        value = dice.choice([number % 90] * 12 + [-1, -2, 100.02])
        futures.append((value, callers.ask(value, timeout_s=dice.choice([0.005, 0.05, 30.0, 30.0, 30.0]))))
    num_answers = 0
    for value, future in futures:
        error = future.exception(60)
        if error is None:
            num_answers += 1
            assert future.result()["y"][0, 0] == np.float32(value) * 2
        elif value == -1:
            assert isinstance(error, (InvalidInput, DeadlineExceeded))
        elif value == -2:
            assert isinstance(error, (InferenceFailed, DeadlineExceeded))
        else:
            assert isinstance(error, DeadlineExceeded), error
    assert num_answers > 100
    until(lambda: callers.num_outstanding == 0)
    assert callers.batched.num_waiting == 0
    assert sizes([callers.ask(1)]) == [1]
    callers.close()


async def test_a_task_that_is_cancelled_leaves_the_others_alone(url):
    """Before its rows are sent and after."""
    async with AsyncClient(url) as client, client.model("rows").batched(inflight=1) as batched:
        first = asyncio.create_task(batched(x=[[HELD]]))
        while not batched.num_batches:
            await asyncio.sleep(0.005)
        one, two, three = (asyncio.create_task(batched(x=[[HELD]])) for _ in range(3))
        while batched.num_waiting < 3:
            await asyncio.sleep(0.005)
        two.cancel()
        await first
        while batched.num_batches < 2:
            await asyncio.sleep(0.005)
        three.cancel()
        answer = await one
        assert answer["size"].tolist() == [[2]]
        for task in (two, three):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert batched.num_requests == 3


class Watching:
    """An observer that does something when an answer has come, before those whom it is for get theirs."""

    def __init__(self) -> None:
        self.when_answered: Callable[[], object] = bool

    def call(self, info: CallInfo) -> "Watching":
        return self

    def attempt(self, endpoint: str, number: int) -> dict[str, str]:
        return {}

    def attempt_failed(self, error: ClientError) -> None:
        """Nothing fails here."""

    def done(self, timing: Timing, response_bytes: int, error: BaseException | None) -> None:
        self.when_answered()


async def test_a_task_that_is_cancelled_in_the_moment_of_the_answer_leaves_the_others_alone(url):
    """The answer is there, the task does not know yet that it is cancelled."""
    watching = Watching()
    async with AsyncClient(url, observers=[watching]) as client, client.model("rows").batched() as batched:
        await batched(x=[[0]])
        one, two = (asyncio.create_task(batched(x=[[number]])) for number in (1, 2))
        watching.when_answered = one.cancel
        assert (await two)["size"].tolist() == [[2]]
        with pytest.raises(asyncio.CancelledError):
            await one


async def test_tasks_that_are_cancelled_before_their_rows_leave_take_no_place(url):
    """In the very turn of the loop in which they came, as often as it happens."""
    async with AsyncClient(url) as client, client.model("rows").batched(inflight=1) as batched:
        await batched(x=[[0]])
        for turns in (0, 1, 2, 3, 0, 1, 2, 3):
            task = asyncio.create_task(batched(x=[[FOREVER]]))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await batched(x=[[1]]))["y"].tolist() == [[2]]


async def test_cancelling_all_tasks_of_a_batch_cancels_it_on_the_server(url):
    """The last one to leave turns off the light."""
    before = await asyncio.to_thread(num_cancelled, url)
    async with AsyncClient(url) as client, client.model("rows").batched() as batched:
        await batched(x=[[0]])  # who comes first asks for the metadata
        tasks = [asyncio.create_task(batched(x=[[FOREVER]])) for _ in range(3)]
        await asyncio.to_thread(wait_until_busy, url)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert batched.num_batches == 2
    assert await asyncio.to_thread(num_cancelled, url) == before + 1


async def test_callers_of_one_turn_of_the_loop_travel_together_at_once(url):
    """Without a place being taken and without waiting for a time."""
    async with AsyncClient(url) as client, client.model("rows").batched() as batched:
        await batched(x=[[0]])
        answers = await asyncio.gather(*(batched(x=[[number]]) for number in range(16)))
    assert [int(answer["size"][0, 0]) for answer in answers] == [16] * 16
    assert batched.num_batches == 2


def test_batching_belongs_to_a_loop_until_that_is_closed(url):
    """Another loop may have it then, as it may have the client."""
    client = AsyncClient(url)
    batched = client.model("rows").batched()

    async def once() -> float:
        return float((await batched(x=[[1]]))["y"][0, 0])

    assert [asyncio.run(once()), asyncio.run(once())] == [2.0, 2.0]

    async def twice() -> None:
        await once()
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(asyncio.run, once())
            with pytest.raises(InvalidInput, match="make one for each loop"):
                await asyncio.wrap_future(other)
        await client.close()

    asyncio.run(twice())


def test_an_interrupted_thread_leaves_the_others_alone(triton):
    """Ctrl-C while it waits to be sent, with the others behind it."""
    batched = triton.model("rows").batched(inflight=1)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batched, x=[[HELD]])
        until(lambda: batched.num_batches == 1)
        other = pool.submit(batched, x=[[1]])
        until(lambda: batched.num_waiting == 1)

        def interrupt() -> None:
            until(lambda: batched.num_waiting == 2)
            interrupt_main()

        interrupter = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            batched(x=[[2]])
        interrupter.result()
        assert other.result(60)["size"].tolist() == [[1]]
        first.result(60)
    batched.close()


def test_an_interrupted_thread_that_was_alone_ends_its_request(triton, url):
    """Ctrl-C while the answer is on its way: it is cancelled on the server, and the next one is served."""
    before = num_cancelled(url)
    batched = triton.model("rows").batched(inflight=1)
    with ThreadPoolExecutor(1) as pool:

        def interrupt() -> None:
            wait_until_busy(url)
            interrupt_main()

        interrupter = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            batched(x=[[FOREVER]])
        interrupter.result()
    assert num_cancelled(url) == before + 1
    assert batched(x=[[1]])["y"].tolist() == [[2]]
    batched.close()
    until(lambda: triton.servers[0].outstanding == 0)


def test_an_interrupted_thread_that_waits_for_company_makes_room(triton):
    """Ctrl-C while it waits for others to come along: the next one is served."""
    batched = triton.model("rows").batched(inflight=1, max_wait_s=300.0, max_rows=2)
    with ThreadPoolExecutor(1) as pool:

        def interrupt() -> None:
            until(lambda: batched.num_waiting == 1)
            interrupt_main()

        interrupter = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            batched(x=[[1]])
        interrupter.result()
    assert batched(x=[[1], [2]])["y"].tolist() == [[2], [4]]
    batched.close()


def in_a_process(code: str, url: str) -> None:
    """Run a program: it ends with 0."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), url], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_greenlets_share_requests(url):
    """With gevent's patches, as in a worker of a web server."""
    in_a_process(
        """
        import gevent.monkey
        gevent.monkey.patch_all()
        import sys
        import gevent
        from naiad.client import Client, DeadlineExceeded
        with Client(sys.argv[1]) as client, client.model("rows").batched(inflight=1) as batched:
            first = gevent.spawn(batched, x=[[100.8]])
            while not batched.num_batches:
                gevent.sleep(0.01)
            others = [gevent.spawn(batched, x=[[number]]) for number in range(12)]
            hasty = gevent.spawn(batched, x=[[1]], timeout_s=0.05)
            gevent.joinall([first, *others, hasty], timeout=60)
            assert [int(other.value["y"][0, 0]) for other in others] == [number * 2 for number in range(12)]
            assert batched.num_batches == 2, batched.num_batches
            assert isinstance(hasty.exception, DeadlineExceeded)
        """,
        url,
    )


def test_a_forked_child_begins_anew(url):
    """What waits in the parent does not wait in the child, and the place taken there is free here."""
    in_a_process(
        """
        import os, sys, threading, time, warnings
        from naiad.client import Client
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: a fork while threads run
        client = Client(sys.argv[1])
        batched = client.model("rows").batched(inflight=1)
        waiting = threading.Thread(target=batched, kwargs={"x": [[101.0]]})
        waiting.start()
        while not batched.num_batches:
            time.sleep(0.01)
        child = os.fork()
        if child == 0:
            right = batched(x=[[3]])["y"].tolist() == [[6]] and batched.num_batches == 1
            os._exit(0 if right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        waiting.join()
        assert batched(x=[[4]])["y"].tolist() == [[8]]
        batched.close()
        client.close()
        """,
        url,
    )


def test_requests_are_freed_without_the_garbage_collector(crowd):
    """Of calls that went well, and of one that gave up: what is large is gone with its caller."""
    callers = crowd()
    callers.ask(1).result(60)
    seen = list[weakref.ref[np.ndarray]]()

    def outcomes(*values: float, **keywords: Any) -> list[bool]:
        callers.hold()
        futures = []
        for value in values:
            x = np.full((1, 1), value, np.float32)
            seen.append(weakref.ref(x))
            futures.append(callers.queue_one({"x": x}, **keywords))
        return [future.exception(60) is None for future in futures]

    gc.disable()
    try:
        assert outcomes(1, 2, 3) == [True, True, True]
        assert outcomes(1, timeout_s=0.05) == [False]
        callers.close()
        until(lambda: not any(x() is not None for x in seen))
    finally:
        gc.enable()


def test_errors_have_the_fields_of_those_of_the_model(crowd):
    """So that a log line looks the same."""
    callers = crowd()
    callers.hold()
    error = callers.queue_up(1, timeout_s=0.05)[0].exception(60)
    assert isinstance(error, ClientError)
    assert (error.model, error.endpoint) == ("rows", callers.client.url)

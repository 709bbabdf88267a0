"""Sequences on the real Triton, with both of its strategies."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import client_models
from naiad.client import (
    AsyncClient,
    AsyncSequence,
    Client,
    DeadlineExceeded,
    InvalidInput,
    Model,
    Sequence,
    SequenceLost,
)
from naiad.server import EmbeddedTriton

STRATEGIES = ("totals_direct", "totals_oldest")


@pytest.fixture(params=STRATEGIES)
def model(request: pytest.FixtureRequest, triton: Client) -> Model:
    return triton.model(request.param)


def row(*numbers: int) -> np.ndarray:
    return np.array([numbers], np.int32)


def add(sequence: Sequence, number: int, **options: object) -> int:
    return int(sequence.infer({"x": row(number)}, **options)["total"][0, 0])


async def add_async(sequence: AsyncSequence, number: int, **options: object) -> int:
    return int((await sequence.infer({"x": row(number)}, **options))["total"][0, 0])


def num_known(model: Model) -> int:
    """How many sequences the model remembers, besides the one that asks."""
    with model.sequence() as sequence:
        return int(sequence.infer({"x": row(0)}, end=True)["known"][0, 0])


def num_requests(model: Model) -> int:
    """How many the server has counted, as soon as it counts no more: it does so a little after it has answered."""
    counts = [-1, -2]
    while counts[-1] != counts[-2]:
        (statistics,) = model._client.statistics(model.name)
        counts.append(statistics.inference_count)
        time.sleep(0.2)
    return counts[-1]


def test_a_sequence_has_a_memory_and_an_end(model):
    """From its first request to the one that says so; nothing is sent after that."""
    with model.sequence() as sequence:
        assert [add(sequence, number) for number in (1, 2, 3)] == [1, 3, 6]
        assert sequence(x=row(4))["total"] == 10
        assert add(sequence, 5, end=True) == 15
        assert num_known(model) == 0
        before = num_requests(model)
        with pytest.raises(InvalidInput, match="has ended"):
            add(sequence, 6)
    assert num_requests(model) == before


async def test_a_sequence_in_asyncio(url, model):
    """As with threads."""
    async with AsyncClient(url) as triton, triton.model(model.name).sequence() as sequence:
        assert [await add_async(sequence, number) for number in (1, 2, 3)] == [1, 3, 6]
        assert (await sequence(x=row(4)))["total"] == 10
    assert num_known(model) == 0


def test_sequences_do_not_mix(model):
    """Two at once, request by request."""
    with model.sequence() as first, model.sequence() as second:
        for number in range(1, 6):
            assert add(first, 1) == number
            assert add(second, 10) == 10 * number
    assert num_known(model) == 0


def test_leaving_the_block_makes_room_for_others(model):
    """A third sequence waits for one of the model's two slots, and has it as soon as a block is left without an end."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        first, second = (stack.enter_context(model.sequence()) for _ in range(2))
        add(first, 1)
        add(second, 2)
        third = stack.enter_context(model.sequence())
        waiting = pool.submit(add, third, 7)
        assert not waiting.done()
        first.close()
        assert waiting.result(30) == 7
        assert add(second, 1) == 3


async def test_leaving_the_block_makes_room_in_asyncio(url, model):
    """Also when the block is left by an error, or by the cancellation of its task."""
    begun = asyncio.Event()

    async def abandoned(handle) -> None:
        async with handle.sequence() as sequence:
            await add_async(sequence, 1)
            begun.set()
            await asyncio.sleep(60)

    async with AsyncClient(url) as triton:
        handle = triton.model(model.name)
        task = asyncio.create_task(abandoned(handle))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ZeroDivisionError):
            async with handle.sequence() as sequence:
                1 // (await add_async(sequence, 1) - 1)
    assert num_known(model) == 0


def test_a_sequence_may_be_left_to_the_models_idle_time_out(model):
    """Where its end has a meaning that the caller does not want, it keeps its slot."""
    with model.sequence(end_on_exit=False) as sequence:
        add(sequence, 1)
        assert num_known(model) == 1
    assert num_known(model) == 1
    model.infer({"x": row(1)}, sequence_id=sequence.sequence_id, sequence_end=True)
    assert num_known(model) == 0


def test_a_block_without_requests_sends_nothing(model):
    """No end either."""
    before = num_requests(model)
    with model.sequence() as sequence:
        assert sequence.sequence_id is None
    with pytest.raises(InvalidInput), model.sequence() as sequence:
        sequence(y=row(1))
    assert num_requests(model) == before


def test_the_end_has_the_shape_of_the_last_request(model):
    """A model with dynamic shapes takes it."""
    with model.sequence() as sequence:
        assert sequence(x=row(1, 2, 3))["total"].tolist() == [[1, 2, 3]]
        assert sequence(x=[[4, 5, 6]])["total"].tolist() == [[5, 7, 9]]
    assert num_known(model) == 0


def test_a_sequence_has_the_name_that_it_is_given(triton):
    """If the model can tell it from others: Triton would cut a number that is too long, and make a 0 of a text."""
    direct, oldest = (triton.model(name) for name in STRATEGIES)
    with direct.sequence(2**63 - 1) as sequence:
        add(sequence, 1)
        assert direct.infer({"x": row(2)}, sequence_id=2**63 - 1)["total"] == 3
    with oldest.sequence(2**31 - 1) as sequence:
        add(sequence, 1)
        assert oldest.infer({"x": row(2)}, sequence_id=2**31 - 1)["total"] == 3
    with pytest.raises(InvalidInput, match="of 31 bits"), oldest.sequence(2**31) as sequence:
        add(sequence, 1)
    with pytest.raises(InvalidInput, match="declares a number"), direct.sequence("seven") as sequence:
        add(sequence, 1)
    for wrong in (0, -1, 2**63, "", True, 1.5):
        with pytest.raises(InvalidInput, match="sequence_id is"):
            direct.sequence(wrong)


def test_random_names_differ(triton):
    """As many bits are used as the model declares."""
    for name, num_bits in zip(STRATEGIES, (63, 31), strict=True):
        seen = set()
        for _ in range(5):
            with triton.model(name).sequence() as sequence:
                add(sequence, 1, end=True)
            assert 0 < sequence.sequence_id < 2**num_bits
            seen.add(sequence.sequence_id)
        assert len(seen) == 5


def test_threads_share_a_sequence_one_request_at_a_time(model):
    """No number is lost or counted twice, and each caller sees another total."""
    with model.sequence() as sequence, ThreadPoolExecutor(16) as pool:
        totals = list(pool.map(lambda _: add(sequence, 1), range(100)))
    assert sorted(totals) == list(range(1, 101))


async def test_tasks_share_a_sequence_one_request_at_a_time(url, model):
    """As threads do."""
    async with AsyncClient(url) as triton, triton.model(model.name).sequence() as sequence:
        totals = await asyncio.gather(*(add_async(sequence, 1) for _ in range(100)))
    assert sorted(totals) == list(range(1, 101))


async def test_a_sequence_that_the_server_has_forgotten_is_lost(url, model, caplog):
    """As after an idle time; the error says so again and again, and nothing is sent at the end of the block."""
    with model.sequence() as sequence:
        add(sequence, 1)
        model.infer({"x": row(0)}, sequence_id=sequence.sequence_id, sequence_end=True)
        with pytest.raises(SequenceLost, match="begin a new sequence") as caught:
            add(sequence, 1)
        assert not caught.value.retryable
        assert caught.value.model == model.name
        before = num_requests(model)
        with pytest.raises(SequenceLost):
            add(sequence, 1)
    assert num_requests(model) == before
    async with AsyncClient(url) as triton, triton.model(model.name).sequence() as later:
        await add_async(later, 1)
        model.infer({"x": row(0)}, sequence_id=later.sequence_id, sequence_end=True)
        with pytest.raises(SequenceLost):
            await add_async(later, 1)
    assert caplog.messages == []


def test_plain_keywords_still_make_a_sequence(model):
    """Whoever wants to do it by hand."""
    assert model.infer({"x": row(1)}, sequence_id=4711, sequence_start=True)["total"] == 1
    assert model.infer({"x": row(2)}, sequence_id=4711, sequence_end=True)["total"] == 3


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[EmbeddedTriton]]:
    """Two servers of stateful models."""
    client_models.write_stateful(tmp_path / "repository")
    servers = [EmbeddedTriton(tmp_path / "repository", supervise=False) for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(EmbeddedTriton.start, servers))
    yield servers
    with ThreadPoolExecutor() as pool:
        list(pool.map(EmbeddedTriton.stop, servers))


async def test_a_sequence_stays_on_one_server_and_dies_with_it(pair, caplog):
    """Whatever the balancing does with others; new ones begin elsewhere."""
    urls = [server.grpc_url for server in pair]
    with contextlib.ExitStack() as stack:
        triton = stack.enter_context(Client(urls))
        model = triton.model("totals_direct")
        sequences = [stack.enter_context(model.sequence()) for _ in range(4)]
        homes: dict[Sequence, str] = {}
        for number in range(1, 9):
            for sequence in sequences:
                result = sequence(x=row(1))
                assert result["total"] == number
                assert homes.setdefault(sequence, result.timing.endpoint) == result.timing.endpoint
        assert sorted(homes.values()) == sorted(urls * 2)
        os.kill(pair[0].pid, signal.SIGKILL)
        for sequence, home in homes.items():
            if home == urls[0]:
                with pytest.raises(SequenceLost, match=urls[0]):
                    add(sequence, 1)
            else:
                assert add(sequence, 1) == 9
                sequence.close()
        for _ in range(4):
            with model.sequence() as sequence:
                assert sequence(x=row(5)).timing.endpoint == urls[1]
    async with AsyncClient(urls[1]) as client, client.model("totals_direct").sequence() as last:
        await add_async(last, 1)
        os.kill(pair[1].pid, signal.SIGKILL)
        with pytest.raises(SequenceLost, match=urls[1]):
            await add_async(last, 1)
    assert not any("was not ended" in message for message in caplog.messages)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections for as long as the test lasts."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


async def test_a_sequence_begins_at_a_server_that_answers(url, address, model, closed_port):
    """As long as no server has its first request, others are tried, whatever the rules for retries say."""
    urls = [f"grpc://127.0.0.1:{closed_port}", f"grpc://{address}"]
    with Client(urls) as triton:
        for _ in range(4):
            with triton.model(model.name).sequence() as sequence:
                assert [add(sequence, 1), add(sequence, 1)] == [1, 2]
    async with AsyncClient(urls) as triton:
        for _ in range(4):
            async with triton.model(model.name).sequence() as sequence:
                assert [await add_async(sequence, 1), await add_async(sequence, 1)] == [1, 2]


def test_a_request_that_waits_too_long_is_a_time_out(model):
    """The limit of the sequence, or of the request."""
    with model.sequence() as first, model.sequence() as second:
        add(first, 1)
        add(second, 1)
        with pytest.raises(DeadlineExceeded), model.sequence(timeout_s=0.3, end_on_exit=False) as third:
            add(third, 1)
        with pytest.raises(DeadlineExceeded), model.sequence(end_on_exit=False) as third:
            add(third, 1, timeout_s=0.3)


def test_a_sequence_that_cannot_be_ended_is_only_logged(url, caplog):
    """The block's own outcome counts."""
    with Client(url) as triton:
        with triton.model("totals_direct").sequence() as sequence:
            add(sequence, 1)
            threading.Thread(target=triton.close).start()
            while not triton._caller._closed:
                pass
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "was not ended" in caplog.text
    with Client(url) as triton:
        triton.model("totals_direct").infer({"x": row(0)}, sequence_id=sequence.sequence_id, sequence_end=True)

"""Two real servers, of which one is killed, told to stop, or replaced under load: no request may be lost."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ha_models import processed, write_journal
from naiad.client import AsyncClient, Client
from naiad.server import EmbeddedTriton

NUM_REQUESTS = 3000
IN_FLIGHT = 16


class Fleet:
    """Two servers of one repository, each on a port that it keeps."""

    def __init__(self, folder: Path) -> None:
        self.journals = folder / "journals"
        self._repository = folder / "repository"
        write_journal(self._repository, self.journals)
        with ThreadPoolExecutor() as pool:
            self.servers = list(pool.map(self._started, [0, 0]))

    @property
    def urls(self) -> list[str]:
        return [server.grpc_url for server in self.servers]

    def replace(self, number: int) -> None:
        """Stop a server as a rolling restart does, and start another one on its port."""
        port = int(self.servers[number].grpc_address.rpartition(":")[2])
        self.servers[number].stop()
        self.servers[number] = self._started(port)

    def close(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(EmbeddedTriton.stop, self.servers))

    def _started(self, port: int) -> EmbeddedTriton:
        return EmbeddedTriton(self._repository, grpc_port=port, supervise=False).start()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path)
    yield found
    found.close()


def kill(fleet: Fleet) -> None:
    os.kill(fleet.servers[0].pid, signal.SIGKILL)


def terminate(fleet: Fleet) -> None:
    os.kill(fleet.servers[0].pid, signal.SIGTERM)


def roll(fleet: Fleet) -> None:
    fleet.replace(0)
    fleet.replace(1)


class Disturbance:
    """Runs beside the load, from the moment that a third of the requests has been answered."""

    def __init__(self, act: Callable[[Fleet], None], fleet: Fleet) -> None:
        self._thread = threading.Thread(target=act, args=(fleet,))
        self._begun = False

    def answered(self, count: int) -> None:
        if count >= NUM_REQUESTS // 3 and not self._begun:
            self._begun = True
            self._thread.start()

    @property
    def over(self) -> bool:
        return self._begun and not self._thread.is_alive()


def assert_nothing_ran_twice(fleet: Fleet, num_sent: int) -> None:
    journals = processed(fleet.journals)
    for journal in journals:
        assert len(journal) == len(set(journal)), "a server has processed a request twice"
    assert {number for journal in journals for number in journal} == set(range(num_sent))


@pytest.mark.parametrize("act", [kill, terminate, roll])
async def test_no_request_of_an_asyncio_client_fails(fleet: Fleet, act: Callable[[Fleet], None]) -> None:
    """All are answered, rightly, and no server has processed one of them twice."""
    disturbance = Disturbance(act, fleet)
    num_sent = num_answered = 0
    async with AsyncClient(fleet.urls, timeout=30) as triton:
        model = triton.model("journal")

        async def worker() -> None:
            nonlocal num_sent, num_answered
            while num_sent < NUM_REQUESTS or not disturbance.over:
                number = num_sent
                num_sent += 1
                assert (await model(number=[number]))["double"].tolist() == [number * 2]
                num_answered += 1
                disturbance.answered(num_answered)

        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    assert num_answered == num_sent >= NUM_REQUESTS
    assert_nothing_ran_twice(fleet, num_sent)


@pytest.mark.parametrize("act", [kill, terminate, roll])
def test_no_request_of_threads_fails(fleet: Fleet, act: Callable[[Fleet], None]) -> None:
    """All are answered, rightly, and no server has processed one of them twice."""
    disturbance = Disturbance(act, fleet)
    lock, errors = threading.Lock(), list[BaseException]()
    num_sent = num_answered = 0

    def worker() -> None:
        nonlocal num_sent, num_answered
        try:
            while True:
                with lock:
                    if num_sent >= NUM_REQUESTS and disturbance.over:
                        return
                    number = num_sent
                    num_sent += 1
                assert model(number=[number])["double"].tolist() == [number * 2]
                with lock:
                    num_answered += 1
                    disturbance.answered(num_answered)
        except BaseException as error:  # a failure in a thread has to reach the test
            errors.append(error)

    with Client(fleet.urls, timeout=30) as triton:
        model = triton.model("journal")
        threads = [threading.Thread(target=worker) for _ in range(IN_FLIGHT)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert num_answered == num_sent >= NUM_REQUESTS
    assert_nothing_ran_twice(fleet, num_sent)

"""A replica goes away under load: no caller notices."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from deploy_helpers import endpoint
from gateway_helpers import infer_message, open_service, outcomes
from naiad.deploy.gateway import Gateway
from naiad.server import EmbeddedTriton

NUM_REQUESTS = 1200
NUM_HTTP_REQUESTS = 600
NUM_THREADS = 8


@pytest.fixture
def pair(tiny_repository: Path) -> Iterator[tuple[EmbeddedTriton, EmbeddedTriton]]:
    """Two servers that a test may end; nobody starts them again."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(EmbeddedTriton(tiny_repository, supervise=False)) for _ in range(2))
        yield first, second


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.timeout(120)
def test_a_server_that_ends_under_load_costs_no_request(
    pair: tuple[EmbeddedTriton, EmbeddedTriton], ending: signal.Signals
) -> None:
    """Killed, or asked to end and then answering NOT_FOUND at once: every request is answered by the other one."""
    members = {"main": [endpoint(f"main-{number}", triton) for number, triton in enumerate(pair)]}
    with Gateway(open_service(), endpoints=members) as gateway:
        found = outcomes(gateway.grpc_url, infer_message(), NUM_REQUESTS, midway=lambda: os.kill(pair[0].pid, ending))
    assert found == {"OK": NUM_REQUESTS}


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.timeout(120)
def test_a_server_that_ends_under_http_load_costs_no_request(
    pair: tuple[EmbeddedTriton, EmbeddedTriton], ending: signal.Signals
) -> None:
    """The same for REST calls: cut off connections and refused ones are tried again elsewhere."""
    members = {"main": [endpoint(f"main-{number}", triton) for number, triton in enumerate(pair)]}
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0, 0]}]}
    numbers = iter(range(NUM_HTTP_REQUESTS))

    def send(client: httpx.Client) -> Counter[int]:
        found: Counter[int] = Counter()
        for number in numbers:
            if number == NUM_HTTP_REQUESTS // 3:
                os.kill(pair[0].pid, ending)
            found[client.post("/v2/models/identity/infer", json=body).status_code] += 1
        return found

    with (
        Gateway(open_service(), endpoints=members) as gateway,
        httpx.Client(base_url=gateway.http_url, timeout=20) as client,
        ThreadPoolExecutor(NUM_THREADS) as threads,
    ):
        found = sum((each.result() for each in [threads.submit(send, client) for _ in range(NUM_THREADS)]), Counter())
    assert found == {200: NUM_HTTP_REQUESTS}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.timeout(120)
def test_a_replica_that_is_taken_out_under_load_costs_no_request(
    tritons: tuple[EmbeddedTriton, EmbeddedTriton], host: str
) -> None:
    """Also where replicas are known by name, and their whole cluster is replaced; afterwards nothing reaches it."""
    members = [replace(endpoint(f"main-{number}", triton), host=host) for number, triton in enumerate(tritons)]
    out = [replace(members[0], admitted=False), members[1]]
    with Gateway(open_service(), endpoints={"main": members}) as gateway:
        found = outcomes(
            gateway.grpc_url,
            infer_message(),
            NUM_REQUESTS,
            midway=lambda: gateway.reload(open_service(), {"main": out}),
        )
        assert found == {"OK": NUM_REQUESTS}
        before = count_requests(gateway)
        assert outcomes(gateway.grpc_url, infer_message(), 50, midway=lambda: None) == {"OK": 50}
        after = count_requests(gateway)
    assert sorted(now - then for now, then in zip(after, before, strict=True)) == [0, 50]


def count_requests(gateway: Gateway) -> list[int]:
    """Requests that each replica was sent by gRPC so far."""
    hosts = sorted((host for host in gateway._run.admin.hosts() if host.cluster == "main-grpc"), key=lambda h: h.port)
    return [host.num_requests for host in hosts]


@pytest.mark.timeout(60)
def test_a_pool_without_any_healthy_replica_says_unavailable(
    pair: tuple[EmbeddedTriton, EmbeddedTriton],
) -> None:
    """Callers get UNAVAILABLE, which clients retry."""
    members = {"main": [endpoint("main-0", pair[0])]}
    with Gateway(open_service(), endpoints=members) as gateway:
        os.kill(pair[0].pid, signal.SIGKILL)
        found = outcomes(gateway.grpc_url, infer_message(), 3, midway=lambda: None, num_threads=1)
    assert found == {"UNAVAILABLE": 3}

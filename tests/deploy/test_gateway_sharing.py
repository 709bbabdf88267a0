"""Canary and shadow: who gets which share of the traffic, and what a broken pool costs the callers of the others."""

import math
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway_helpers import INFER, channel, infer_message, open_service, status_of
from launcher_helpers import eventually
from naiad.deploy.gateway import Gateway
from naiad.deploy.place import Endpoint
from naiad.deploy.service import Canary, Pool, Service, Shadow
from recording_upstream import RecordingUpstream

POOLS = (Pool(name="main"), Pool(name="next"))
NUM_REQUESTS = 600
NUM_SIGMAS = 5


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, RecordingUpstream]]:
    with ExitStack() as stack:
        yield {pool.name: stack.enter_context(RecordingUpstream()) for pool in POOLS}


@pytest.fixture(scope="module")
def gateway(upstreams: dict[str, RecordingUpstream]) -> Iterator[Gateway]:
    """Changed by each test with `reload`."""
    with Gateway(open_service(pools=POOLS), endpoints=members(upstreams)) as running:
        yield running


def members(upstreams: dict[str, RecordingUpstream]) -> dict[str, list[Endpoint]]:
    return {name: [upstream.endpoint(f"{name}-0")] for name, upstream in upstreams.items()}


def canary(percent: float, *models: str) -> Service:
    return open_service(pools=POOLS, canary=Canary(pool="next", weight_percent=percent, models=models or ("*",)))


def answered(
    gateway: Gateway,
    upstreams: dict[str, RecordingUpstream],
    num: int,
    model: str = "resnet",
    header: str | None = None,
) -> Counter[str]:
    """How many of so many inferences reached each pool; all must succeed."""
    before = {name: num_inferences(upstream) for name, upstream in upstreams.items()}
    metadata = [("x-naiad-canary", header)] if header else []
    with channel(gateway.grpc_url) as opened:
        for _ in range(num):
            assert status_of(opened, infer_message(model), metadata=metadata) == "OK"
    return Counter({name: num_inferences(upstream) - before[name] for name, upstream in upstreams.items()})


def num_inferences(upstream: RecordingUpstream) -> int:
    return sum(arrival.path == INFER for arrival in upstream.arrivals)


def test_a_caller_chooses_the_canary_by_a_header(gateway: Gateway, upstreams: dict[str, RecordingUpstream]) -> None:
    """`always` and `never` are obeyed to the last request, whatever the weight."""
    gateway.reload(canary(50))
    assert answered(gateway, upstreams, 40, header="always") == {"main": 0, "next": 40}
    assert answered(gateway, upstreams, 40, header="never") == {"main": 40, "next": 0}


def test_the_canary_gets_its_share(gateway: Gateway, upstreams: dict[str, RecordingUpstream]) -> None:
    """The share is the weight, within five standard deviations of the binomial distribution."""
    percent = 20.0
    gateway.reload(canary(percent))
    found = answered(gateway, upstreams, NUM_REQUESTS)
    expected, deviation = NUM_REQUESTS * 0.2, math.sqrt(NUM_REQUESTS * 0.2 * 0.8)
    assert found["main"] + found["next"] == NUM_REQUESTS
    assert abs(found["next"] - expected) < NUM_SIGMAS * deviation


def test_a_canary_of_all_takes_all(gateway: Gateway, upstreams: dict[str, RecordingUpstream]) -> None:
    """At 100 percent nothing reaches the main pool: the way to promote a whole pool."""
    gateway.reload(canary(100))
    assert answered(gateway, upstreams, 40) == {"main": 0, "next": 40}


def test_only_the_models_of_the_canary_take_part(gateway: Gateway, upstreams: dict[str, RecordingUpstream]) -> None:
    """Others stay where they are, also if the caller asks; a dot in a name is no pattern."""
    gateway.reload(canary(100, "resnet*", "v1.bert"))
    for model, pool in (("resnet50", "next"), ("v1.bert", "next"), ("v1xbert", "main"), ("other", "main")):
        assert answered(gateway, upstreams, 5, model)[pool] == 5, model
    assert answered(gateway, upstreams, 5, "other", header="always")["main"] == 5


def test_a_dead_canary_costs_no_request(gateway: Gateway, upstreams: dict[str, RecordingUpstream]) -> None:
    """Its share goes to the main pool; who insists on the canary learns that it is gone."""
    gone = {"next": [Endpoint(name="next-0", host="127.0.0.1", grpc_port=1, http_port=1)]}
    gateway.reload(canary(50), {**members(upstreams), **gone})
    assert answered(gateway, upstreams, 60)["main"] == 60
    with channel(gateway.grpc_url) as opened:
        status = status_of(opened, infer_message("resnet"), metadata=[("x-naiad-canary", "always")])
    assert status == "UNAVAILABLE"
    gateway.reload(canary(0), members(upstreams))


def test_the_shadow_gets_a_copy(gateway: Gateway, upstreams: dict[str, RecordingUpstream]) -> None:
    """Every inference of its models arrives twice, with the same body; those of other models once."""
    gateway.reload(open_service(pools=POOLS, shadow=Shadow(pool="next", models=("resnet",))))
    start = num_inferences(upstreams["next"])
    assert answered(gateway, upstreams, 30)["main"] == 30
    eventually(lambda: num_inferences(upstreams["next"]) - start == 30, "thirty copies")
    copies = [arrival.body for arrival in upstreams["next"].arrivals if arrival.path == INFER][start:]
    assert set(copies) == {infer_message("resnet")}
    assert answered(gateway, upstreams, 5, "other") == {"main": 5, "next": 0}


@pytest.mark.parametrize("how", ["dead", "silent"])
def test_a_broken_shadow_does_not_touch_callers(
    gateway: Gateway, upstreams: dict[str, RecordingUpstream], how: str, tmp_path: Path
) -> None:
    """Nobody listens, or somebody who accepts connections and never says a word: every caller has its answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        port = silent.getsockname()[1] if how == "silent" else 1
        broken = {"next": [Endpoint(name="next-0", host="127.0.0.1", grpc_port=port, http_port=port)]}
        gateway.reload(open_service(pools=POOLS, shadow=Shadow(pool="next")), {**members(upstreams), **broken})
        assert answered(gateway, upstreams, 300)["main"] == 300
        gateway.reload(open_service(pools=POOLS), members(upstreams))

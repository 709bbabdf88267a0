"""In which order a running Envoy gets changed files, and how it is seen that it has them."""

import json
from dataclasses import replace

import pytest

from naiad.deploy._envoy.options import check_endpoints
from naiad.deploy._envoy.ports import free, is_free
from naiad.deploy._envoy.steps import BOOTSTRAP, steps
from naiad.deploy._envoy.updates import resource_names, versioned
from naiad.deploy._gateway import render_gateway
from naiad.deploy.errors import GatewayError
from naiad.deploy.place import Endpoint, Place
from naiad.deploy.service import Canary, Pool, Service

MAIN = Endpoint(name="main-0", host="127.0.0.1", grpc_port=1, http_port=2)
NEXT = Endpoint(name="next-0", host="127.0.0.1", grpc_port=3, http_port=4)
ONE = Service(tls=False)
TWO = replace(ONE, pools=(*ONE.pools, Pool(name="next")), canary=Canary(pool="next", weight_percent=10.0))


def rendered(service: Service, *endpoints: Endpoint) -> dict[str, str]:
    members = {pool.name: (endpoint,) for pool, endpoint in zip(service.pools, endpoints, strict=True)}
    place = Place(config_dir="/config", secrets_dir="/secrets", endpoints=members)
    return render_gateway(service, place)


def names(before: dict[str, str], after: dict[str, str]) -> list[list[str]]:
    return [sorted(step) for step in steps(before, after)]


def test_nothing_changed_is_no_step() -> None:
    """A file that says the same is left alone."""
    assert names(rendered(ONE, MAIN), rendered(ONE, MAIN)) == []


def test_draining_a_replica_changes_its_endpoints_only() -> None:
    """Nothing else is read again."""
    before, after = rendered(ONE, MAIN), rendered(ONE, replace(MAIN, admitted=False))
    assert names(before, after) == [["endpoints-main-grpc.yaml"], ["endpoints-main-http.yaml"]]


def test_a_pool_that_comes_is_there_before_requests_are_sent_to_it() -> None:
    """Endpoints, clusters, routes."""
    order = [name for step in names(rendered(ONE, MAIN), rendered(TWO, MAIN, NEXT)) for name in step]
    assert order.index("endpoints-next-grpc.yaml") < order.index("clusters.yaml") < order.index("routes.yaml")


def test_a_pool_that_goes_stays_until_no_request_is_sent_to_it() -> None:
    """Clusters come first with both, and last without it."""
    before, after = rendered(TWO, MAIN, NEXT), rendered(ONE, MAIN)
    found = list(steps(before, after))
    assert resource_names(found[0]["clusters.yaml"]) >= resource_names(before["clusters.yaml"])
    assert list(found[-1]) == ["clusters.yaml"]
    assert resource_names(found[-1]["clusters.yaml"]) == resource_names(after["clusters.yaml"])


def test_what_envoy_reads_once_is_never_a_step() -> None:
    """A change of the bootstrap takes a restart."""
    assert names(rendered(ONE, MAIN), rendered(replace(ONE, name="other"), MAIN)) in ([], [["listeners.yaml"]])
    assert BOOTSTRAP in rendered(ONE, MAIN)


def test_a_file_carries_the_version_of_its_text() -> None:
    """The same text has the same version, another one has another."""
    texts = [json.dumps({"resources": [{"name": name}]}) for name in "aba"]
    assert versioned(texts[0]) == versioned(texts[2]) != versioned(texts[1])


@pytest.mark.parametrize(
    ("endpoints", "said"),
    [
        ({}, "none of main"),
        ({"main": ()}, "none of main"),
        ({"main": (MAIN,), "side": (NEXT,)}, "pools main"),
        ({"main": (MAIN, MAIN)}, "name of its own"),
    ],
)
def test_endpoints_are_those_of_the_pools(endpoints: dict[str, tuple[Endpoint, ...]], said: str) -> None:
    """What cannot be balanced is refused."""
    with pytest.raises(GatewayError, match=said):
        check_endpoints(ONE, endpoints)


def test_a_free_port_is_free_and_none_that_is_taken() -> None:
    """Two in a row differ."""
    first = free("127.0.0.1", set())
    assert is_free("127.0.0.1", first)
    assert free("127.0.0.1", {first}) != first

"""The gateway's files: what a service and a place become."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import yaml

from gateway_matrix import POOLS, SERVICES, make_place
from naiad.deploy._gateway import render_gateway
from naiad.deploy.service import Canary, Identity, Limits, Rights, Service, Shadow

UNDECIDED = "undecided"


@cache
def rendered(service: Service) -> dict[str, str]:
    return render_gateway(service, make_place(service))


@cache
def loaded(service: Service) -> dict[str, Any]:
    return parsed(rendered(service))


def parsed(files: Mapping[str, str]) -> dict[str, Any]:
    return {name: yaml.load(text, yaml.CSafeLoader) for name, text in files.items()}


def routes(service: Service) -> list[Any]:
    found: list[Any] = loaded(service)["routes.yaml"]["resources"][0]["virtual_hosts"][0]["routes"]
    return found


def walk(node: Any) -> Iterator[Any]:
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def values(node: Any, key: str) -> list[Any]:
    return [each[key] for each in walk(node) if isinstance(each, dict) and key in each]


@pytest.mark.parametrize("name", SERVICES)
def test_the_same_service_is_the_same_text(name: str) -> None:
    """Rendered files can be committed and compared."""
    service = SERVICES[name]
    assert render_gateway(service, make_place(service)) == rendered(service)


@pytest.mark.parametrize("name", SERVICES)
def test_every_file_that_is_named_is_rendered(name: str) -> None:
    """Envoy waits for ever for a file that never comes."""
    files = loaded(SERVICES[name])
    named = {source["path"].removeprefix("/config/") for source in values(files, "path_config_source")}
    assert named == set(files) - {"envoy.yaml"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_cluster_that_is_named_is_there(name: str) -> None:
    """But the one that nothing may reach."""
    files = loaded(SERVICES[name])
    there = {cluster["name"] for cluster in files["clusters.yaml"]["resources"]}
    named = {found for found in values(files["routes.yaml"], "cluster") if isinstance(found, str)}
    for weighted in values(files["routes.yaml"], "weighted_clusters"):
        named |= {cluster["name"] for cluster in weighted["clusters"]}
    assert named - {UNDECIDED} <= there
    assert UNDECIDED not in there


@pytest.mark.parametrize("name", SERVICES)
def test_only_what_was_allowed_has_a_route(name: str) -> None:
    """A request that no filter decided about ends at a cluster that does not exist."""
    *allowed, last = routes(SERVICES[name])
    assert last["route"]["cluster"] == UNDECIDED
    assert all(route["match"]["dynamic_metadata"] for route in allowed)


def test_files_say_who_made_them() -> None:
    """Whoever opens one learns that it is no place for changes."""
    for text in rendered(Service()).values():
        assert text.startswith("# Made by `naiad deploy render`")


def test_a_replica_that_is_not_admitted_is_drained() -> None:
    """Envoy finishes what it has and sends nothing new; the others are as they were."""
    for protocol in ("grpc", "http"):
        assignment = loaded(Service())[f"endpoints-main-{protocol}.yaml"]["resources"][0]
        statuses = [each["health_status"] for each in assignment["endpoints"][0]["lb_endpoints"]]
        assert statuses == ["HEALTHY", "DRAINING"]


def test_taking_a_replica_out_changes_nothing_but_endpoints() -> None:
    """With known addresses neither clusters nor routes are touched, so no connection is."""
    service = Service()
    place = make_place(service)
    back = tuple(replace(endpoint, admitted=True) for endpoint in place.endpoints["main"])
    before, after = (render_gateway(service, each) for each in (place, replace(place, endpoints={"main": back})))
    assert {name for name in before if before[name] != after[name]} == {
        "endpoints-main-grpc.yaml",
        "endpoints-main-http.yaml",
    }


def test_names_are_looked_up() -> None:
    """A container's name becomes its addresses while the gateway runs; no file of endpoints is needed."""
    service = Service()
    files = parsed(render_gateway(service, make_place(service, host="triton")))
    assert {cluster["type"] for cluster in files["clusters.yaml"]["resources"]} == {"STRICT_DNS"}
    assert not [name for name in files if name.startswith("endpoints-")]


def test_health_is_asked_by_http_for_both_protocols() -> None:
    """Triton closes that port first when it ends."""
    assignment = loaded(Service())["endpoints-main-grpc.yaml"]
    assert set(map(str, values(assignment, "health_check_config"))) == {"{'port_value': 8000}"}
    assert set(values(loaded(Service())["clusters.yaml"], "http_health_check")[0].values()) == {"/v2/health/ready"}


def test_the_weights_of_a_canary_are_exact() -> None:
    """To a hundredth of a percent."""
    weights = [
        [cluster["weight"] for cluster in found["clusters"]]
        for found in values(routes(SERVICES["canary"]), "weighted_clusters")
    ]
    assert weights
    assert all(pair == [8766, 1234] for pair in weights)


def test_changes_of_a_server_are_never_sent_twice() -> None:
    """Model control, shared memory and streams are sent again only if they never arrived."""
    service = Service(pools=POOLS, canary=Canary(pool="next", weight_percent=5), shadow=Shadow(pool="dark"))
    for route in routes(service)[:-1]:
        path = route["match"].get("safe_regex", {}).get("regex", "")
        if "Load" in path or path.endswith(("Stream" + "Infer", "generate_stream")):
            assert route["route"]["retry_policy"]["retry_on"] == "connect-failure,refused-stream"
            assert "request_mirror_policies" not in route["route"]


def test_only_inferences_go_to_the_shadow() -> None:
    """Not what reads, changes or streams."""
    mirrored = [route for route in routes(SERVICES["shadow"]) if "request_mirror_policies" in route["route"]]
    paths = {route["match"]["safe_regex"]["regex"].rpartition("/")[2] for route in mirrored}
    assert paths == {"ModelInfer", "(?:infer|generate)"}


def test_a_stream_has_no_time_limit_but_the_callers() -> None:
    """It may last as long as it says something."""
    service = Service(limits=Limits(response_timeout_s=7))
    limits = {
        route["match"].get("safe_regex", {}).get("regex", ""): route["route"]["timeout"]
        for route in routes(service)[:-1]
    }
    assert {timeout for path, timeout in limits.items() if "tream" in path} == {"0s"}
    assert limits["/inference.GRPCInferenceService/ModelInfer"] == "7s"


@pytest.mark.parametrize(
    ("certificates", "required", "files"),
    [
        ("none", False, {"certificates.yaml"}),
        ("optional", False, {"certificates.yaml", "clients.yaml"}),
        ("required", True, {"certificates.yaml", "clients.yaml"}),
    ],
)
def test_client_certificates_are_asked_for_as_the_service_says(
    certificates: Any, required: bool, files: set[str]
) -> None:
    """None, if there is one, or always."""
    found = loaded(Service(client_certificates=certificates))
    assert {name for name in found if name in ("certificates.yaml", "clients.yaml")} == files
    assert values(found["listeners.yaml"], "require_client_certificate") == [required]


def test_nothing_secret_is_rendered() -> None:
    """Files name where secrets lie; nothing of an identity's credential is in them."""
    service = Service(identities=(Identity(name="web", rights=Rights(admin=True)),))
    text = "".join(rendered(service).values())
    assert "/secrets/tls.key" in text
    assert "inline_bytes" not in text
    assert "PRIVATE" not in text

"""`routes.yaml`: which pool answers what, how long it may take, and what is tried again.

A request is looked at twice. First nothing is known but its path, and every route ends in a refusal; `authorize.yaml`
then decides about it, puts the model into `x-naiad-model`, marks the request as allowed and has it looked at again.
"""

from collections.abc import Iterator

from naiad.deploy._gateway._document import Message, from_file, resources, seconds, typed
from naiad.deploy._gateway.calls import CALLS, Call
from naiad.deploy._gateway.clusters import cluster_name, fallback_name
from naiad.deploy._gateway.dead_stubs import MARK
from naiad.deploy._gateway.identity import allowed
from naiad.deploy._gateway.retries import retry_policy
from naiad.deploy._gateway.sharing import Share, shares
from naiad.deploy.place import Place
from naiad.deploy.service import Limits, Service

ROUTES = "routes"
_MIB = 1 << 20
_SLACK = 64 << 10
_CHANGE_TIMEOUT_S = 900.0
"""Loading a large model takes minutes."""


def route_source(place: Place) -> Message:
    """How the listener finds the routes."""
    return {"route_config_name": ROUTES, "config_source": from_file(place.config_dir, "routes.yaml")}


def render_routes(service: Service, place: Place) -> dict[str, str]:
    """Return `routes.yaml`."""
    host = {
        "name": "service",
        "domains": ["*"],
        "request_body_buffer_limit": body_limit(service.limits),
        "response_headers_to_remove": ["server", "x-envoy-upstream-healthchecked-cluster", MARK],
        "routes": [*_allowed_routes(service), _undecided()],
    }
    configuration = typed("envoy.config.route.v3.RouteConfiguration", name=ROUTES, virtual_hosts=[host])
    return {"routes.yaml": resources([configuration])}


def body_limit(limits: Limits) -> int:
    """Bytes of a request that are kept, to look into it and to send it again: the largest one, and its frame."""
    return int(limits.request_mb * _MIB) + _SLACK


def _allowed_routes(service: Service) -> Iterator[Message]:
    for call in CALLS:
        for share in shares(service, call):
            match = {**call.match(), "dynamic_metadata": allowed()}
            match["headers"] = [*match.get("headers", ()), *share.headers]
            yield {"match": match, "route": {**_target(share, call), **_treatment(service, call, share)}}


def _target(share: Share, call: Call) -> Message:
    if not share.weights:
        return {"cluster": cluster_name(share.pool, call.protocol)}
    main, canary = share.weights
    names = (cluster_name(share.pool, call.protocol), fallback_name(share.canary, call.protocol))
    clusters = [{"name": name, "weight": weight} for name, weight in zip(names, (main, canary), strict=True)]
    return {"weighted_clusters": {"clusters": clusters}}


def _treatment(service: Service, call: Call, share: Share) -> Message:
    treatment: Message = {**_time_limits(service.limits, call), "retry_policy": retry_policy(call)}
    if share.shadow:
        treatment["request_mirror_policies"] = [_mirror(share, call)]
    return treatment


def _time_limits(limits: Limits, call: Call) -> Message:
    if call.kind == "stream":
        # 0 as the bound of grpc-timeout is none: the caller's own deadline holds.
        return {"timeout": "0s", "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}}
    longest_s = limits.response_timeout_s
    if call.kind == "change":
        longest_s = max(longest_s, _CHANGE_TIMEOUT_S)
    longest = seconds(longest_s)
    return {
        "timeout": longest,
        "max_stream_duration": {"max_stream_duration": longest, "grpc_timeout_header_max": longest},
    }


def _mirror(share: Share, call: Call) -> Message:
    fraction = {"numerator": round(share.shadow_percent * 10_000), "denominator": "MILLION"}
    return {
        "cluster": cluster_name(share.shadow, call.protocol),
        "runtime_fraction": {"default_value": fraction},
        "trace_sampled": False,
        "disable_shadow_host_suffix_append": True,
    }


def _undecided() -> Message:
    # A route with a cluster, though there is none of that name: only such a route gives a request the buffer limit.
    return {
        "match": {"prefix": "/"},
        "route": {"cluster": "undecided", "cluster_not_found_response_code": "NOT_FOUND"},
    }

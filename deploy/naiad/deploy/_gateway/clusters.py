"""`clusters.yaml` and `endpoints-….yaml`: pools of replicas, each once for gRPC and once for HTTP.

The settings that decide what a failure costs were measured: `docs/why.md`, "Deploy".
"""

import ipaddress
from typing import Literal

from naiad.deploy._gateway._document import Message, from_file, resources, typed
from naiad.deploy._gateway.dead_stubs import http_filters
from naiad.deploy._gateway.sockets import keepalive_options
from naiad.deploy.place import Endpoint, Place
from naiad.deploy.service import Limits, Pool, Service

_CLUSTER = "envoy.config.cluster.v3.Cluster"
_ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MIB = 1 << 20
_NUM_RETRIES = 1024
_MAX_OUTBOUND_FRAMES = 100_000
_NUM_BROKEN_ANSWERS = 10

Protocol = Literal["grpc", "http"]
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")


def cluster_name(pool: str, protocol: Protocol) -> str:
    """What Envoy calls a pool; also the label `envoy_cluster_name` of its metrics."""
    return f"{pool}-{protocol}"


def fallback_name(pool: str, protocol: Protocol) -> str:
    """A pool as long as one of its replicas is healthy, and the main pool else."""
    return f"{pool}-or-main-{protocol}"


def render_clusters(service: Service, place: Place) -> dict[str, str]:
    """Return the files of all pools."""
    files: dict[str, str] = {}
    clusters = []
    for pool in service.pools:
        endpoints = tuple(place.endpoints.get(pool.name, ()))
        for protocol in PROTOCOLS:
            name = cluster_name(pool.name, protocol)
            assignment = _assignment(name, endpoints, protocol)
            if _addresses_known(endpoints):
                files[f"endpoints-{name}.yaml"] = resources([typed(_ASSIGNMENT, **assignment)])
                source = from_file(place.config_dir, f"endpoints-{name}.yaml")
                found: Message = {"type": "EDS", "eds_cluster_config": {"eds_config": source}}
            else:
                found = {
                    "type": "STRICT_DNS",
                    "dns_lookup_family": "V4_PREFERRED",  # Triton listens on IPv4
                    "dns_refresh_rate": "5s",
                    "dns_failure_refresh_rate": {"base_interval": "0.5s", "max_interval": "2s"},
                    "load_assignment": assignment,
                }
            clusters.append(_cluster(name, protocol, service.limits, found, shadow=_is_shadow(service, pool)))
    if service.canary is not None:
        clusters += [_fallback(service.canary.pool, service.pools[0].name, protocol) for protocol in PROTOCOLS]
    if place.collector:
        clusters.append(_collector(*place.collector))
    return {**files, "clusters.yaml": resources(clusters)}


def _is_shadow(service: Service, pool: Pool) -> bool:
    return service.shadow is not None and service.shadow.pool == pool.name


def _addresses_known(endpoints: tuple[Endpoint, ...]) -> bool:
    return all(_is_address(endpoint.host) for endpoint in endpoints)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _assignment(name: str, endpoints: tuple[Endpoint, ...], protocol: Protocol) -> Message:
    found = [_endpoint(endpoint, protocol) for endpoint in endpoints]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": found}]}


def _endpoint(endpoint: Endpoint, protocol: Protocol) -> Message:
    port = endpoint.grpc_port if protocol == "grpc" else endpoint.http_port
    return {
        "endpoint": {
            "address": {"socket_address": {"address": endpoint.host, "port_value": port}},
            # gRPC, too, is asked for its health by HTTP: on SIGTERM Triton closes that port at once, and goes on to
            # accept gRPC.
            "health_check_config": {"port_value": endpoint.http_port},
        },
        "health_status": "HEALTHY" if endpoint.admitted else "DRAINING",
        "metadata": {"filter_metadata": {"naiad": {"replica": endpoint.name}}},
    }


def _cluster(name: str, protocol: Protocol, limits: Limits, found: Message, *, shadow: bool) -> Message:
    num_requests = min(limits.num_pending, 256) if shadow else limits.num_pending
    return typed(
        _CLUSTER,
        name=name,
        **found,
        connect_timeout="1s",
        lb_policy="LEAST_REQUEST",
        # With no replica healthy all are tried; with one, only that.
        common_lb_config={"healthy_panic_threshold": {"value": 1}},
        # What is not in the list any more gets nothing any more, however healthy it is.
        ignore_health_on_host_removal=True,
        per_connection_buffer_limit_bytes=16 * _MIB,  # all streams to a replica share a connection
        health_checks=[_health_check()],
        outlier_detection=_outliers(),
        circuit_breakers={"thresholds": [_thresholds(num_requests)]},
        typed_extension_protocol_options={_HTTP_OPTIONS: _http_options(protocol)},
        # A machine that vanished: what it had in hand is sent to another after seconds.
        upstream_bind_config={"socket_options": keepalive_options(idle_s=5, interval_s=2)},
    )


def _health_check() -> Message:
    return {
        "timeout": "2s",
        "interval": "0.5s",
        "no_traffic_interval": "0.5s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/v2/health/ready"},
        # A Triton that ends waits for the end of every HTTP connection, idle ones too, until its exit time-out.
        "reuse_connection": False,
    }


def _outliers() -> Message:
    """A replica that cannot be reached is left out at once, one whose models only break after a while.

    Its answers count only where they say that something broke (`_broken`): a full queue is no reason to leave a replica
    out, the others would be full the sooner.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 2,
        "enforcing_consecutive_local_origin_failure": 100,
        "consecutive_5xx": _NUM_BROKEN_ANSWERS,
        "enforcing_consecutive_5xx": 100,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "base_ejection_time": "5s",
        "max_ejection_time": "30s",
        "max_ejection_percent": 50,
        "always_eject_one_host": True,
        "interval": "1s",
    }


def _broken(protocol: Protocol) -> Message:
    """Answers that count as failures of a replica: INTERNAL. By HTTP, Triton says 500 of malformed requests, too."""
    header = {"name": "grpc-status", "string_match": {"exact": "13"}}
    if protocol == "http":
        header = {"name": ":status", "string_match": {"exact": "502"}}
    return {"error_matcher": {"http_response_headers_match": {"headers": [header]}}}


def _thresholds(num_requests: int) -> Message:
    return {
        "max_connections": num_requests,
        "max_pending_requests": num_requests,
        "max_requests": num_requests,
        "max_retries": _NUM_RETRIES,
    }


def _http_options(protocol: Protocol) -> Message:
    if protocol == "grpc":
        options = {
            "initial_stream_window_size": _MIB,
            "initial_connection_window_size": 16 * _MIB,
            # When deadlines of a thousand requests expire at once, each is cancelled with a frame. At the usual 1,000
            # Envoy would end the connection to the replica, and the callers' with it, for a flood of its own.
            "max_outbound_frames": _MAX_OUTBOUND_FRAMES,
            "max_outbound_control_frames": _MAX_OUTBOUND_FRAMES,
        }
        explicit: Message = {"http2_protocol_options": options}
    else:
        explicit = {"http_protocol_options": {}}
    if protocol == "grpc":
        return typed(_HTTP_OPTIONS, explicit_http_config=explicit)
    # Idle connections would keep a Triton from ending (see the health check).
    idle = {"idle_timeout": "1s"}
    return typed(
        _HTTP_OPTIONS, common_http_protocol_options=idle, explicit_http_config=explicit, http_filters=http_filters()
    )


def _fallback(pool: str, main: str, protocol: Protocol) -> Message:
    names = [cluster_name(pool, protocol), cluster_name(main, protocol)]
    config = typed("envoy.extensions.clusters.aggregate.v3.ClusterConfig", clusters=names)
    return typed(
        _CLUSTER,
        name=fallback_name(pool, protocol),
        connect_timeout="1s",
        lb_policy="CLUSTER_PROVIDED",
        cluster_type={"name": "envoy.clusters.aggregate", "typed_config": config},
    )


def _collector(host: str, port: int) -> Message:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    options = typed(_HTTP_OPTIONS, explicit_http_config={"http2_protocol_options": {}})
    return typed(
        _CLUSTER,
        name="collector",
        type="STATIC" if _is_address(host) else "STRICT_DNS",
        connect_timeout="1s",
        load_assignment={"cluster_name": "collector", "endpoints": [{"lb_endpoints": [endpoint]}]},
        typed_extension_protocol_options={_HTTP_OPTIONS: options},
    )

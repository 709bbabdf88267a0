"""`listeners.yaml`: the one port that callers see, and what a request must be like to be looked at."""

from naiad.deploy._gateway._document import Message, resources, seconds, typed
from naiad.deploy._gateway.access_log import connection_logs, request_logs, trace_id_filter
from naiad.deploy._gateway.certificates import transport_socket
from naiad.deploy._gateway.clusters import cluster_name
from naiad.deploy._gateway.identity import filters
from naiad.deploy._gateway.replies import HEALTH_PATH, local_replies
from naiad.deploy._gateway.routes import route_source
from naiad.deploy._gateway.sockets import keepalive_options
from naiad.deploy._gateway.tracing import tracing
from naiad.deploy.place import Place
from naiad.deploy.service import Limits, Service

_MIB = 1 << 20
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_MAX_HEADERS = 100
_RESET_BURST, _RESETS_PER_S = 10_000, 1_000
_CONNECTION_LIFE = "3600s"
"""A revoked client certificate is noticed when its connection is made anew; requests in flight end before."""
_IDLE_LIFE = "900s"


def render_listeners(service: Service, place: Place) -> dict[str, str]:
    """Return `listeners.yaml`."""
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": _manager(service, place)}
    chain: Message = {"filters": [manager]}
    if service.tls:
        chain["transport_socket"] = transport_socket(service, place)
        chain["transport_socket_connect_timeout"] = seconds(service.limits.header_timeout_s)
    listener = typed(
        "envoy.config.listener.v3.Listener",
        name="service",
        address={"socket_address": {"address": place.host, "port_value": place.port}},
        per_connection_buffer_limit_bytes=4 * _MIB,
        socket_options=keepalive_options(),
        filter_chains=[chain],
    )
    if service.tls:
        listener["access_log"] = connection_logs(place)
    return {"listeners.yaml": resources([listener])}


def _manager(service: Service, place: Place) -> Message:
    return typed(
        _MANAGER,
        stat_prefix="service",
        codec_type="AUTO",
        rds=route_source(place),
        http_filters=_filters(service, place),
        access_log=request_logs(place),
        local_reply_config=local_replies(service.limits),
        **_paths_and_headers(),
        **_protocols(service.limits),
        **_time_limits(service.limits),
        **tracing(service, place),
    )


def _filters(service: Service, place: Place) -> list[Message]:
    own_trace_id = [] if place.collector else [trace_id_filter()]
    router = typed("envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True)
    return [
        _health(service),
        *own_trace_id,
        *filters(service, place),
        {"name": "envoy.filters.http.router", "typed_config": router},
    ]


def _health(service: Service) -> Message:
    """GET /healthz: whether a replica of the main pool is healthy, for whoever balances between gateways."""
    main = service.pools[0].name
    path = {"name": ":path", "string_match": {"exact": HEALTH_PATH}}
    healthy = {cluster_name(main, "grpc"): {"value": 1}}
    config = typed(
        "envoy.extensions.filters.http.health_check.v3.HealthCheck",
        pass_through_mode=False,
        cluster_min_healthy_percentages=healthy,
        headers=[path],
    )
    return {"name": "envoy.filters.http.health_check", "typed_config": config}


def _paths_and_headers() -> Message:
    return {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        # Nobody outside is trusted: addresses are those of the connections, and Envoy's own headers, by which callers
        # from private addresses could choose retries and time-outs, are removed from every request.
        "use_remote_address": True,
        "early_header_mutation_extensions": [_without_envoy_headers()],
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "request_id_extension": {
            "typed_config": typed(
                "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                pack_trace_reason=False,  # it would change the caller's id
                use_request_id_for_trace_sampling=False,
            )
        },
    }


def _without_envoy_headers() -> Message:
    removal = {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}}
    config = typed("envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation", mutations=[removal])
    return {"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": config}


def _protocols(limits: Limits) -> Message:
    return {
        "max_request_headers_kb": limits.header_kb,
        "common_http_protocol_options": {
            "idle_timeout": _IDLE_LIFE,
            "max_connection_duration": _CONNECTION_LIFE,
            "max_headers_count": _MAX_HEADERS,
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "http_protocol_options": {"accept_http_10": False, "allow_chunked_length": False},
        "http2_protocol_options": {
            "max_concurrent_streams": limits.num_concurrent_streams,
            "initial_stream_window_size": _MIB,
            "initial_connection_window_size": 16 * _MIB,
            "allow_connect": False,
            # Deadlines of many requests expire together, and each is a reset. After 1,000 of them, and 33 a second, the
            # connection would end, with what else is under way on it. Whoever resets most of what it has begun within
            # the last second is still sent away.
            "stream_reset_burst": _RESET_BURST,
            "stream_reset_rate": _RESETS_PER_S,
            # Floods: frames that cost us something and the caller nothing.
            "max_outbound_frames": 10_000,
            "max_outbound_control_frames": 1_000,
            "max_consecutive_inbound_frames_with_empty_payload": 1,
            "connection_keepalive": {"interval": "60s", "timeout": "20s", "interval_jitter": {"value": 15}},
        },
    }


def _time_limits(limits: Limits) -> Message:
    return {
        "request_headers_timeout": seconds(limits.header_timeout_s),
        "stream_idle_timeout": seconds(limits.stream_idle_timeout_s),
        "drain_timeout": "5s",
    }

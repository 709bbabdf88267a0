"""`listeners.yaml`: the one port that callers see, and what a request must be like to be looked at."""

from naiad.deploy._gateway._document import Message, resources, seconds, typed
from naiad.deploy._gateway.access_log import access_logs
from naiad.deploy._gateway.certificates import transport_socket
from naiad.deploy._gateway.identity import filters
from naiad.deploy._gateway.routes import route_source
from naiad.deploy.place import Place
from naiad.deploy.service import Service

_MIB = 1 << 20
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


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
        enable_reuse_port=False,  # else two gateways could share a port unnoticed
        per_connection_buffer_limit_bytes=4 * _MIB,
        filter_chains=[chain],
    )
    return {"listeners.yaml": resources([listener])}


def _manager(service: Service, place: Place) -> Message:
    limits = service.limits
    return typed(
        _MANAGER,
        stat_prefix="service",
        codec_type="AUTO",
        rds=route_source(place),
        http_filters=[*filters(service, place), _router()],
        access_log=access_logs(place),
        http2_protocol_options={
            "max_concurrent_streams": limits.num_concurrent_streams,
            "initial_stream_window_size": _MIB,
            "initial_connection_window_size": 16 * _MIB,
        },
        request_headers_timeout=seconds(limits.header_timeout_s),
        stream_idle_timeout=seconds(limits.stream_idle_timeout_s),
        max_request_headers_kb=limits.header_kb,
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
    )


def _router() -> Message:
    router = typed("envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True)
    return {"name": "envoy.filters.http.router", "typed_config": router}

"""What Prometheus reads at the gateway.

Beside Envoy's own metrics (`envoy_cluster_…{envoy_cluster_name="<pool>-grpc"}` and `-http`, `envoy_http_…`,
`envoy_listener_…`), per request that was allowed:

    envoy_naiad_request_duration_us_bucket{model, right, le}    first byte in to last byte out; also _sum, _count
    envoy_naiad_requests{model, right, code, grpc_code}         code: HTTP status; grpc_code: number, "-" for HTTP
    envoy_naiad_request_bytes{model}, envoy_naiad_response_bytes{model}
    envoy_naiad_identity_requests{identity, code, grpc_code}    all requests, also those refused (identity "-")

`model` is "-" for calls that concern no model. Requests for models that do not exist are only counted by identity:
anybody could make up names.
"""

from naiad.deploy._gateway._document import Message, typed
from naiad.deploy.place import Place

_BUCKETS_US = (
    *(250, 500, 750, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 40_000, 50_000),
    *(75_000, 100_000, 150_000, 200_000, 300_000, 500_000, 750_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000),
    *(5_000_000, 7_500_000, 10_000_000, 20_000_000, 30_000_000, 60_000_000),
)
_BUCKETS_MS = (
    0.5,
    1,
    2,
    3,
    5,
    7.5,
    10,
    15,
    20,
    30,
    50,
    75,
    100,
    150,
    200,
    300,
    500,
    1000,
    2000,
    5000,
    10000,
    30000,
    60000,
)


def stats_config() -> Message:
    """Buckets of the histograms: fine where inferences are."""
    return {
        "histogram_bucket_settings": [
            {"match": {"suffix": "duration_us"}, "buckets": list(_BUCKETS_US)},
            {"match": {"safe_regex": {"regex": ".*"}}, "buckets": list(_BUCKETS_MS)},
        ]
    }


def metrics_listener(place: Place) -> Message:
    """GET /metrics and /ready, of the administration; nothing else of it can be reached from outside."""
    manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="metrics",
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        request_headers_timeout="5s",
        stream_idle_timeout="30s",
        common_http_protocol_options={"idle_timeout": "120s", "headers_with_underscores_action": "REJECT_REQUEST"},
        route_config={
            "name": "metrics",
            "virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": [*_admin_routes()]}],
        },
        http_filters=[
            {
                "name": "envoy.filters.http.router",
                "typed_config": typed("envoy.extensions.filters.http.router.v3.Router"),
            }
        ],
    )
    return {
        "name": "metrics",
        "address": {"socket_address": {"address": place.metrics_host, "port_value": place.metrics_port}},
        "enable_reuse_port": False,
        "ignore_global_conn_limit": True,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def metrics_cluster(place: Place) -> Message:
    """Envoy's administration, for its own listener."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": place.admin}}}}
    return {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "admin", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _admin_routes() -> list[Message]:
    get = [{"name": ":method", "string_match": {"exact": "GET"}}]
    paths = {"/metrics": "/stats/prometheus", "/ready": "/ready"}
    return [
        {
            "match": {"path": path, "headers": get},
            "route": {"cluster": "admin", "prefix_rewrite": target, "timeout": "10s"},
        }
        for path, target in paths.items()
    ]

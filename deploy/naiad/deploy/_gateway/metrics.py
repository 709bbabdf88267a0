"""What Prometheus reads at the gateway.

Beside Envoy's own metrics (`envoy_cluster_…{envoy_cluster_name="<pool>-grpc"}` and `-http`, `envoy_http_…`,
`envoy_listener_…`), per request that was allowed:

    envoy_naiad_request_duration_us_bucket{model, right, le}    first byte in to last byte out; also _sum, _count
    envoy_naiad_requests{model, right, cluster, code, grpc_code} code: HTTP status; grpc_code: number, none for HTTP
    envoy_naiad_request_bytes{model}, envoy_naiad_response_bytes{model}
    envoy_naiad_identity_requests{identity, code, grpc_code}    all requests, also those refused
    envoy_naiad_refused_requests                                requests that no replica was asked about: no right to
                                                                them, too many, too large

Durations are of answers that are no error (a refusal is quick, and says nothing about the service), and not of streams.
`cluster` is where the request was sent: `<pool>-grpc`, `<pool>-http`, for the canary `<pool>-or-main-…`.

Labels are empty, which is the same as absent, where there is nothing to say: `model` for calls that concern no model,
`identity` where it was not established. Requests for models that do not exist are only counted by identity:
anybody could make up names.
"""

from naiad.deploy._gateway._document import Message, typed
from naiad.deploy.place import Place

_BUCKETS_US = (
    *(250, 500, 750, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 40_000, 50_000),
    *(75_000, 100_000, 150_000, 200_000, 300_000, 500_000, 750_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000),
    *(5_000_000, 7_500_000, 10_000_000, 20_000_000, 30_000_000, 60_000_000),
)
_MAX_SERIES = 20_000
"""Beyond that, new ones are not counted: an upper bound for the gateway's memory."""
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
            {"match": {"prefix": "naiad.request_duration_us"}, "buckets": list(_BUCKETS_US)},
            {"match": {"safe_regex": {"regex": ".*"}}, "buckets": list(_BUCKETS_MS)},
        ]
    }


def metric_logs() -> list[Message]:
    """The metrics per request, as access logs (that is what Envoy calls what looks at a request at its end)."""
    model = {"name": "model", "value_format": "%DYNAMIC_METADATA(naiad:model)%"}
    right = {"name": "right", "value_format": "%DYNAMIC_METADATA(naiad:right)%"}
    identity = {"name": "identity", "value_format": "%DYNAMIC_METADATA(naiad:identity)%"}
    codes = [
        {"name": "code", "value_format": "%RESPONSE_CODE%"},
        {"name": "grpc_code", "value_format": "%GRPC_STATUS_NUMBER%"},
    ]
    cluster = {"name": "cluster", "value_format": "%UPSTREAM_CLUSTER%"}
    duration = {
        "stat": {"name": "request_duration_us", "tags": [model, right]},
        "unit": "Microseconds",
        "value_format": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    }
    durations = _stats(histograms=[duration])
    per_model = _stats(
        counters=[
            {"stat": {"name": "requests", "tags": [model, right, cluster, *codes]}, "value_fixed": 1},
            {"stat": {"name": "request_bytes", "tags": [model]}, "value_format": "%BYTES_RECEIVED%"},
            {"stat": {"name": "response_bytes", "tags": [model]}, "value_format": "%BYTES_SENT%"},
        ],
    )
    counters = [{"stat": {"name": "identity_requests", "tags": [identity, *codes]}, "value_fixed": 1}]
    per_identity = _stats(counters=counters)
    refused = _stats(counters=[{"stat": {"name": "refused_requests"}, "value_fixed": 1}])
    return [
        {**durations, "filter": {"and_filter": {"filters": [_was_allowed(), *_answered_at_once()]}}},
        {**per_model, "filter": {"and_filter": {"filters": [_was_allowed(), _model_exists()]}}},
        {**per_identity, "filter": {"not_health_check_filter": {}}},
        {**refused, "filter": {"and_filter": {"filters": [{"not_health_check_filter": {}}, _was_refused()]}}},
    ]


def _stats(**stats: list[Message]) -> Message:
    scope = {"prefix": "naiad", "max_counters": _MAX_SERIES, "max_histograms": _MAX_SERIES}
    config = typed("envoy.extensions.access_loggers.stats.v3.Config", stats_scope=scope, **stats)
    return {"name": "envoy.access_loggers.stats", "typed_config": config}


def _was_allowed() -> Message:
    matcher = {"filter": "naiad", "path": [{"key": "allowed"}], "value": {"string_match": {"exact": "yes"}}}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _was_refused() -> Message:
    matcher = {"filter": "naiad", "path": [{"key": "denied"}], "value": {"present_match": True}}
    denied = {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}
    limited = {"response_flag_filter": {"flags": ["RL"]}}
    return {"or_filter": {"filters": [denied, limited, _status("EQ", 413)]}}


def _model_exists() -> Message:
    """Triton answers NOT_FOUND for a model that it does not have, by HTTP 400 or 404."""
    over_http = {"or_filter": {"filters": [_status("LE", 399), _status("GE", 405)]}}
    over_grpc = {"grpc_status_filter": {"statuses": ["NOT_FOUND"], "exclude": True}}
    return {"and_filter": {"filters": [over_http, over_grpc]}}


def _answered_at_once() -> list[Message]:
    """One answer, which is no error: by HTTP as its status says, by gRPC also by its own."""
    is_grpc = {
        "name": "content-type",
        "string_match": {"prefix": "application/grpc"},
        "treat_missing_header_as_empty": True,
    }
    ok = [
        {"grpc_status_filter": {"statuses": ["OK"]}},
        {"header_filter": {"header": {**is_grpc, "invert_match": True}}},
    ]
    is_stream = {"name": ":path", "string_match": {"safe_regex": {"regex": ".*(ModelStreamInfer|generate_stream)"}}}
    unary = {"header_filter": {"header": {**is_stream, "invert_match": True}}}
    return [_status("LE", 399), {"or_filter": {"filters": ok}}, unary]


def _status(op: str, value: int) -> Message:
    comparison = {"op": op, "value": {"default_value": value, "runtime_key": "unused"}}
    return {"status_code_filter": {"comparison": comparison}}


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

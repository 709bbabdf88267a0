"""The access log: one JSON object a line for each request, allowed or refused; it is the audit trail.

    time            when the request began, UTC
    identity        who called; null where that was not established. never a key or a token
    model, version  as the request named them
    right           what the call needs: infer, observe, admin, see (metadata), any
    denied          why the gateway refused it, one word; null where it did not
    method, path    the path without its query; of gRPC the path is the method
    protocol        HTTP/1.1 or HTTP/2
    status          HTTP status; of gRPC almost always 200
    grpc_status     number; null for HTTP
    flags, details  what Envoy did: %RESPONSE_FLAGS%, %RESPONSE_CODE_DETAILS%
    bytes_in, bytes_out    bodies
    duration_ms     first byte in to last byte out
    attempts        1 and the retries; 0 where no replica was asked
    pool, replica, upstream    who answered
    request_id, trace_id       the caller's where it gave them (x-request-id, traceparent)
    client          address and port
    certificate     SHA-256 of the client's certificate

A connection that never became a request, as one whose TLS handshake failed, has a line with `tls_failure`.
"""

from naiad.deploy._gateway._document import Message, typed
from naiad.deploy._gateway.metrics import metric_logs
from naiad.deploy.place import Place

_REQUEST = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "identity": "%DYNAMIC_METADATA(naiad:identity)%",
    "model": "%DYNAMIC_METADATA(naiad:model)%",
    "version": "%DYNAMIC_METADATA(naiad:version)%",
    "right": "%DYNAMIC_METADATA(naiad:right)%",
    "denied": "%DYNAMIC_METADATA(naiad:denied)%",
    "method": "%REQ(:METHOD):32%",
    "path": "%PATH(NQ):300%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "pool": "%UPSTREAM_CLUSTER%",
    "replica": "%UPSTREAM_METADATA(naiad:replica)%",
    "upstream": "%UPSTREAM_HOST%",
    "request_id": "%REQ(X-REQUEST-ID):64%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "certificate": "%DOWNSTREAM_PEER_FINGERPRINT_256%",
    "user_agent": "%REQ(USER-AGENT):200%",
}
_CONNECTION = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "tls_failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "certificate": "%DOWNSTREAM_PEER_FINGERPRINT_256%",
    "duration_ms": "%DURATION%",
}


def request_logs(place: Place) -> list[Message]:
    """The log of requests, and the metrics that are made of the same facts."""
    trace = "%TRACE_ID%" if place.collector else "%DYNAMIC_METADATA(naiad:trace_id):32%"
    log = _file(place, {**_REQUEST, "trace_id": trace})
    return [{**log, "filter": {"not_health_check_filter": {}}}, *metric_logs()]


def connection_logs(place: Place) -> list[Message]:
    """The log of handshakes that failed."""
    failed = typed(
        "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        expression="has(connection.transport_failure_reason) && connection.transport_failure_reason != ''",
    )
    extension = {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": failed}
    return [{**_file(place, _CONNECTION), "filter": {"extension_filter": extension}}]


def trace_id_filter() -> Message:
    """Takes the trace's id out of `traceparent` (W3C Trace Context), where no tracer does."""
    rule = {
        "header": "traceparent",
        "on_header_present": {
            "metadata_namespace": "naiad",
            "key": "trace_id",
            "regex_value_rewrite": {
                "pattern": {"regex": "^[0-9a-f]{2}-([0-9a-f]{32})-.*$"},
                "substitution": r"\1",
            },
        },
    }
    config = typed("envoy.extensions.filters.http.header_to_metadata.v3.Config", request_rules=[rule])
    return {"name": "envoy.filters.http.header_to_metadata", "typed_config": config}


def _file(place: Place, line: Message) -> Message:
    config = typed(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=place.access_log,
        log_format={"json_format": line},
    )
    return {"name": "envoy.access_loggers.file", "typed_config": config}

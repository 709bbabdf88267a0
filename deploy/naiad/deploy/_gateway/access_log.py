"""The access log: one JSON object a line for each request, allowed or refused; it is the audit trail."""

from naiad.deploy._gateway._document import Message, typed
from naiad.deploy.place import Place

_LINE = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "identity": "%DYNAMIC_METADATA(naiad:identity)%",
    "model": "%DYNAMIC_METADATA(naiad:model)%",
    "version": "%DYNAMIC_METADATA(naiad:version)%",
    "right": "%DYNAMIC_METADATA(naiad:right)%",
    "denied": "%DYNAMIC_METADATA(naiad:denied)%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",
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
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace_id": "%TRACE_ID%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "certificate": "%DOWNSTREAM_PEER_FINGERPRINT_256%",
    "user_agent": "%REQ(USER-AGENT):200%",
}


def access_logs(place: Place) -> list[Message]:
    """The log of requests."""
    return [_file(place, _LINE)]


def _file(place: Place, line: Message) -> Message:
    config = typed(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=place.access_log,
        log_format={"json_format": line},
    )
    return {"name": "envoy.access_loggers.file", "typed_config": config}

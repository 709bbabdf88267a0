"""What callers read when the gateway itself answers: gRPC codes that clients act on rightly, short JSON for HTTP."""

from naiad.deploy._gateway._document import Message
from naiad.deploy.service import Limits

_INVALID_ARGUMENT, _DEADLINE_EXCEEDED, _RESOURCE_EXHAUSTED, _INTERNAL, _UNAVAILABLE = 3, 4, 8, 13, 14
HEALTH_PATH = "/healthz"


def local_replies(limits: Limits) -> Message:
    """The `local_reply_config`; the first mapper that fits is it."""
    late = f"no answer in time; the service gives up after {limits.response_timeout_s:g} s, or when you say"
    large = f"the request is larger than {limits.request_mb:g} MiB"
    full = "the service is full: as many requests wait as may"
    headers = f"the headers are larger than {limits.header_kb} KiB, or more than allowed"
    return {
        "mappers": [
            _as_decided(),
            {"filter": _path(HEALTH_PATH), "body_format_override": _text()},
            *_both(_status(413), _RESOURCE_EXHAUSTED, large),
            *_both(_status(504), _DEADLINE_EXCEEDED, late),
            *_both(_status(408), _DEADLINE_EXCEEDED, late, http=504),
            *_both(_flag("UO"), _RESOURCE_EXHAUSTED, full),
            *_both(_status(431), _RESOURCE_EXHAUSTED, headers),
            *_both(_status(400), _INVALID_ARGUMENT, "the request is malformed"),
            *_both(_status(503), _UNAVAILABLE, "no replica can answer now; try again"),
            _for_grpc(_status(500), _INTERNAL),
            {"filter": _grpc(), "body_format_override": _text()},
        ],
        "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}},
    }


def _as_decided() -> Message:
    """A refusal of `authorize.yaml` is complete; nothing is changed."""
    matcher = {"filter": "naiad", "path": [{"key": "denied"}], "value": {"present_match": True}}
    found = {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}
    return {"filter": found, "body_format_override": {**_text(), "content_type": "application/json"}}


def _both(found: Message, grpc_status: int, message: str, *, http: int | None = None) -> list[Message]:
    plain: Message = {"filter": found, "body": {"inline_string": message}}
    if http:
        plain["status_code"] = http
    return [{**_for_grpc(found, grpc_status), "body": {"inline_string": message}}, plain]


def _for_grpc(found: Message, grpc_status: int) -> Message:
    header = {"key": "grpc-status", "value": str(grpc_status)}
    return {
        "filter": {"and_filter": {"filters": [_grpc(), found]}},
        "headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        "body_format_override": _text(),
    }


def _text() -> Message:
    return {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}}


def _grpc() -> Message:
    return {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}}


def _status(code: int) -> Message:
    return {
        "status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": code, "runtime_key": "unused"}}}
    }


def _path(path: str) -> Message:
    return {"header_filter": {"header": {"name": ":path", "string_match": {"exact": path}}}}


def _flag(flag: str) -> Message:
    return {"response_flag_filter": {"flags": [flag]}}

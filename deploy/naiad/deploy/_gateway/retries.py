"""What is tried again, on another replica.

An inference leaves no trace in a server: one that was cut off, or that met a server which is ending or broken, runs
again elsewhere. A change of a server's state, or a stream, is only sent again if it never left.
"""

from naiad.deploy._gateway._document import Message
from naiad.deploy._gateway.calls import Call
from naiad.deploy._gateway.dead_stubs import DEAD_STUB, MARK

_NUM_RETRIES = 3
_NUM_SELECTIONS = 32
"""Draws for a retry until one is another replica. A replica that is ending looks least busy: of two drawn at random it
wins, so that with two replicas a draw yields the other one only every fourth time."""


def retry_policy(call: Call) -> Message:
    """The retry policy of a kind of calls."""
    if call.kind in ("change", "stream"):
        return {"retry_on": "connect-failure,refused-stream", **_elsewhere()}
    if call.protocol == "grpc":
        # On SIGTERM Triton answers NOT_FOUND for all its models, at once, until it has ended.
        headers = [_has("grpc-status", exact="5"), _has("grpc-message", contains=DEAD_STUB)]
        conditions = "connect-failure,refused-stream,reset,unavailable,retriable-headers"
        return {"retry_on": conditions, "retriable_headers": headers, **_elsewhere()}
    conditions = "connect-failure,refused-stream,reset,retriable-status-codes,retriable-headers"
    return {
        "retry_on": conditions,
        "retriable_status_codes": [502, 503],
        "retriable_headers": [{"name": MARK, "present_match": True}],
        **_elsewhere(),
    }


def _elsewhere() -> Message:
    previous = {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        },
    }
    return {
        "num_retries": _NUM_RETRIES,
        "retry_host_predicate": [previous],
        "host_selection_retry_max_attempts": _NUM_SELECTIONS,
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
    }


def _has(name: str, **match: str) -> Message:
    return {"name": name, "string_match": match}

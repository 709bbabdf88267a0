"""Traces: W3C Trace Context in and out, spans to the collector."""

from naiad.deploy._gateway._document import Message, typed
from naiad.deploy.place import Place
from naiad.deploy.service import Service

_TAGS = ("identity", "model", "version")


def tracing(service: Service, place: Place) -> Message:
    """The field `tracing` of the connection manager; nothing without a collector: headers pass as they are."""
    if place.collector is None:
        return {}
    config = typed(
        "envoy.config.trace.v3.OpenTelemetryConfig",
        grpc_service={"envoy_grpc": {"cluster_name": "collector"}, "timeout": "1s"},
        service_name=service.name,
    )
    return {
        "tracing": {
            "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": config},
            "random_sampling": {"value": service.trace_percent},
            "spawn_upstream_span": True,
            "custom_tags": [_tag(name) for name in _TAGS],
        }
    }


def _tag(name: str) -> Message:
    key = {"key": "naiad", "path": [{"key": name}]}
    return {"tag": f"naiad.{name}", "metadata": {"kind": {"request": {}}, "metadata_key": key}}

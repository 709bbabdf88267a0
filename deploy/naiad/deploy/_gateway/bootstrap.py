"""`envoy.yaml`: what Envoy reads once, at its start."""

from naiad.deploy._gateway._document import Message, document, from_file, typed
from naiad.deploy._gateway.metrics import metrics_cluster, metrics_listener, stats_config
from naiad.deploy.place import Place
from naiad.deploy.service import Limits, Service

_MIB = 1 << 20
_RUNTIME = {
    # Patterns of many models are a long regular expression; Envoy's own bound is that of a short one.
    "re2.max_program_size.error_level": 100_000,
}


def render_bootstrap(service: Service, place: Place) -> dict[str, str]:
    """Return `envoy.yaml`."""
    bootstrap = {
        "node": {"id": "gateway", "cluster": service.name},
        "admin": {"address": {"pipe": {"path": place.admin, "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": from_file(place.config_dir, "listeners.yaml"),
            "cds_config": from_file(place.config_dir, "clusters.yaml"),
        },
        "static_resources": {
            "listeners": [metrics_listener(place)],
            "clusters": [metrics_cluster(place)],
        },
        "stats_config": stats_config(),
        "overload_manager": _overload(service.limits),
        "layered_runtime": {"layers": [{"name": "fixed", "static_layer": _RUNTIME}]},
    }
    return {"envoy.yaml": document(bootstrap)}


def _overload(limits: Limits) -> Message:
    return {
        "refresh_interval": "0.25s",
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.fixed_heap",
                "typed_config": typed(
                    "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    max_heap_size_bytes=limits.memory_mb * _MIB,
                ),
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": typed(
                    "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=limits.num_connections,
                ),
            },
        ],
        "actions": [
            _action("shrink_heap", at=0.8),
            _scaled_action("reset_high_memory_stream", begin=0.9, full=1.0),
            _action("stop_accepting_requests", at=0.85),
        ],
    }


def _action(name: str, *, at: float) -> Message:
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": at}}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}


def _scaled_action(name: str, *, begin: float, full: float) -> Message:
    scaled = {"scaling_threshold": begin, "saturation_threshold": full}
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "scaled": scaled}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}

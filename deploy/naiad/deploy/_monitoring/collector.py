"""The OpenTelemetry collector's configuration: takes traces of the gateway and of Triton, and passes them on."""

from typing import Any

from naiad.deploy._monitoring.targets import COLLECTOR_PORT


def configuration() -> dict[str, Any]:
    """The content of `collector.yml`.

    Traces go to a file that is turned over by size, so that the service is complete by itself; an operator who has a
    place for traces adds an exporter to it. Needs the distribution `contrib`, which has the file exporter.
    """
    own = {"host": "0.0.0.0", "port": COLLECTOR_PORT}  # noqa: S104 - in a container of an internal network
    return {
        "extensions": {"health_check": {"endpoint": "0.0.0.0:13133"}},
        "receivers": {
            "otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}, "http": {"endpoint": "0.0.0.0:4318"}}}
        },
        "processors": {
            # First in the pipeline: refuses spans before memory runs out, and whoever sent them goes on without.
            "memory_limiter": {"check_interval": "1s", "limit_percentage": 75, "spike_limit_percentage": 20},
            "batch": {"timeout": "5s", "send_batch_size": 512, "send_batch_max_size": 2048},
        },
        "exporters": {"file": {"path": "/traces/traces.jsonl", "rotation": {"max_megabytes": 32, "max_backups": 3}}},
        "service": {
            "extensions": ["health_check"],
            "pipelines": {
                "traces": {"receivers": ["otlp"], "processors": ["memory_limiter", "batch"], "exporters": ["file"]}
            },
            "telemetry": {
                "logs": {"level": "warn"},
                "metrics": {"readers": [{"pull": {"exporter": {"prometheus": own}}}]},
            },
        },
    }

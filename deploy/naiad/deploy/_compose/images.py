"""The images, each pinned to a release that was looked at; `naiad deploy render` puts another one in every file."""

from typing import Final

GATEWAY: Final = "envoyproxy/envoy:v1.40.2"
"""The newest fixes of the minor release whose binary the tests run. The Ubuntu image, not the distroless one: draining
before the end needs a shell in it."""
PROMETHEUS: Final = "prom/prometheus:v3.13.3"
"""Of the line with long support (until July 2027)."""
ALERTMANAGER: Final = "prom/alertmanager:v0.33.1"
GRAFANA: Final = "grafana/grafana:12.4.5"
"""The last line of 12, which has the data source for Prometheus built in: there is no way out to fetch a plugin."""
COLLECTOR: Final = "otel/opentelemetry-collector-contrib:0.160.0"


def triton(release: str) -> str:
    """NVIDIA's image with all backends."""
    return f"nvcr.io/nvidia/tritonserver:{release}-py3"

"""How Prometheus writes things."""

from naiad.deploy.place import Endpoint


def duration(seconds: float) -> str:
    """A duration, in the largest unit that holds it in whole numbers: `15s`, `2m`, `1h`, `500ms`."""
    milliseconds = max(1, round(seconds * 1000)) if seconds else 0
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % size == 0 and (milliseconds or unit == "s"):
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def number(value: float) -> str:
    """A number without a point where it needs none, and without noise in its last digits."""
    return f"{value:.10g}"


def metrics_address(endpoint: Endpoint) -> str:
    """Host and port of a replica's metrics."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.metrics_port}"

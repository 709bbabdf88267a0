"""How are the GPUs? These panels have data on machines with NVIDIA GPUs only."""

from naiad.deploy._monitoring.panels import Json, Panel, Query, Row, Variable, dashboard
from naiad.deploy.service import Service

HERE = 'replica=~"$replica"'
LEGEND = "{{replica}} {{gpu_uuid}}"


def gpu(service: Service) -> Json:
    """The page of the GPUs."""
    panels = (
        _panel(
            "Utilisation",
            "Share of the time in which something ran on the GPU.",
            "percentunit",
            f"nv_gpu_utilization{{{HERE}}}",
            1,
        ),
        _panel("Memory in use", "By everything on the GPU.", "bytes", f"nv_gpu_memory_used_bytes{{{HERE}}}"),
        _panel(
            "Memory in use, as a share",
            "At 95 % an alert tells.",
            "percentunit",
            f"nv_gpu_memory_used_bytes{{{HERE}}} / (nv_gpu_memory_total_bytes{{{HERE}}} > 0)",
            1,
        ),
        _panel("Power", "What the GPU draws.", "watt", f"nv_gpu_power_usage{{{HERE}}}"),
        _panel(
            "Power, as a share of the limit",
            "At 1 the GPU slows down to stay within it.",
            "percentunit",
            f"nv_gpu_power_usage{{{HERE}}} / (nv_gpu_power_limit{{{HERE}}} > 0)",
            1,
        ),
        _panel(
            "Energy",
            "Power by the counter of energy.",
            "watt",
            f"rate(nv_energy_consumption{{{HERE}}}[$__rate_interval])",
        ),
    )
    return dashboard(
        uid="naiad-gpu",
        title=f"{service.name}: GPUs (needs NVIDIA GPUs)",
        description="What Triton reports of the GPUs it sees. Empty without NVIDIA GPUs, and under MIG. Replicas that "
        "share a GPU report it each.",
        rows=[Row(title="Needs NVIDIA GPUs", panels=panels)],
        variables=[Variable(name="replica", metric="nv_inference_request_success")],
    )


def _panel(title: str, text: str, unit: str, expression: str, most: float | None = None) -> Panel:
    return Panel(
        title=title, description=text, unit=unit, most=most, queries=(Query(expression=expression, legend=LEGEND),)
    )

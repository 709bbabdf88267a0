"""Which nodes of a graph run on the GPU: ONNX Runtime gives the CPU those that the provider does not know."""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naiad.export._runtime.place import CPU_PROVIDER, Place
from naiad.export._runtime.session import profiled
from naiad.export.report import Finding

_MAX_SHOWN = 8


def providers_of_nodes(path: Path, feeds: Mapping[str, Any], *, level: int, place: Place) -> dict[str, Counter[str]]:
    """Run a graph once and return the number of nodes by provider and operator, of the graph as it was optimised."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = profiled(path, Path(folder) / "profile", level=level, place=place)
        runtime.run(None, dict(feeds))
        events = json.loads(Path(runtime.end_profiling()).read_text(encoding="utf-8"))
    found: dict[str, dict[str, str]] = {}
    for event in events:
        about = event.get("args", {})
        if event.get("cat") == "Node" and about.get("provider"):
            found.setdefault(about["provider"], {})[f"{about.get('node_index')} {event['name']}"] = about["op_name"]
    return {provider: Counter(nodes.values()) for provider, nodes in found.items()}


def findings(nodes: Mapping[str, Counter[str]], place: Place) -> tuple[Finding, ...]:
    """Say which operators are not on the GPU."""
    left = nodes.get(CPU_PROVIDER, Counter())
    if not left:
        return ()
    every = sum(sum(counts.values()) for counts in nodes.values())
    shown = ", ".join(f"{operator} {count}" for operator, count in left.most_common(_MAX_SHOWN))
    more = f" and {len(left) - _MAX_SHOWN} more" if len(left) > _MAX_SHOWN else ""
    if left.total() == every:
        message = (
            f"no node of this graph runs on the GPU: {place.name} has kernels for none of {shown}{more}; serve it on "
            "CPUs, with the accelerator cpu"
        )
    else:
        message = (
            f"{left.total()} of {every} nodes run on the CPU: {shown}{more}. Arithmetic on shapes belongs there; any "
            "other operator costs a copy in each direction, and rules out CUDA graphs"
        )
    return (Finding(check="not on the GPU", message=message),)

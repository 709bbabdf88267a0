"""Instances and threads for the cores of the machine that will serve.

Instances times threads should not exceed the cores: two instances of two threads on two cores gave half the
throughput of one. A model that is done in a few milliseconds gets one thread: a second one spins between requests.
Then the server's own work (gRPC, queues) takes five to eight times the CPU of the model's process, hence one
instance for every eight cores. A slow model gets threads, as many as still help, and instances for the remaining cores.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export.errors import InvalidExport
from naiad.export.report import BatchLatency, Choice

_SINGLE_THREAD_MS = 5.0
"""Below this latency at the largest batch a second thread costs more than it gives."""
_CORES_PER_SMALL_INSTANCE = 8
_MOST_THREADS = 8
"""Operators of one batch hardly scale beyond; further cores serve further requests better."""
_INSTANCE_BYTES = 64 << 20
"""Of an instance without its weights: the runtime, and the process where there is one for each."""
_WEIGHT_COPIES = 2
"""Weights are held once for each instance, and a second time in the layout that the runtime computes with."""
_MEMORY_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Instances:
    """How many instances, each with how many threads."""

    count: int
    threads: int
    """0 for all cores of the machine that serves."""
    reason: str


def derive(latency: Sequence[BatchLatency], size_bytes: int, cores: int | None) -> Instances:
    """Return instances and threads for a machine with `cores`; None for this machine's.

    Raises:
        InvalidExport: `cores` is not a positive number.
    """
    if cores is not None and (isinstance(cores, bool) or cores < 1):
        raise InvalidExport(f"cores must be at least 1; found {cores}")
    available = cores or this_machines_cores()
    slowest_ms = max((item.median_ms for item in latency), default=0.0)
    if slowest_ms < _SINGLE_THREAD_MS:
        threads, count = 1, max(1, available // _CORES_PER_SMALL_INSTANCE)
        reason = f"the largest batch takes {slowest_ms:.2g} ms on one thread; the server's own work fills other cores"
    else:
        threads = min(available, _MOST_THREADS)
        count = max(1, available // threads)
        reason = f"the largest batch takes {slowest_ms:.3g} ms on one thread, and instances × threads = cores"
    fitting = _fitting(size_bytes)
    if fitting < count:
        count, reason = fitting, f"{reason}; more instances would take over half of the memory"
    # All cores of whichever machine serves, unless one was named or several instances share them.
    portable = count == 1 and threads == available and cores is None and threads > 1
    return Instances(count=count, threads=0 if portable else threads, reason=f"{available} cores: {reason}")


def on_gpu() -> Instances:
    """Return what a model gets on each GPU: one instance computes while the other takes its next batch."""
    return Instances(count=2, threads=1, reason="on each GPU: one computes while the other takes its next batch")


def apply(config: Any, instances: Instances, *, gpu_only: bool = False) -> None:
    """Write them into a configuration. KIND_AUTO takes a GPU where there is one; `gpu_only` does not load elsewhere."""
    kinds = model_config_pb2.ModelInstanceGroup
    config.instance_group.add(count=instances.count, kind=kinds.KIND_GPU if gpu_only else kinds.KIND_AUTO)
    if instances.threads:
        config.parameters["intra_op_thread_count"].string_value = str(instances.threads)


def explain(instances: Instances) -> Choice:
    """Return what was chosen and why, for the report."""
    threads = f"{instances.threads} thread{'s' if instances.threads > 1 else ''}" if instances.threads else "all cores"
    return Choice(field="instance_group", value=f"{instances.count} × {threads}", reason=instances.reason)


def this_machines_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fitting(size_bytes: int) -> int:
    each = _WEIGHT_COPIES * size_bytes + _INSTANCE_BYTES
    return max(1, int(_memory_bytes() * _MEMORY_SHARE // each))


def _memory_bytes() -> int:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:  # a container's own limit
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return physical

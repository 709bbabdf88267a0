"""CUDA graphs: a run is recorded once for each set of shapes and replayed, which saves the host launching each kernel.

Written into a configuration only where it was tried: every case of the verification, answered by a replay.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from naiad.export._capture.graph import Graph
from naiad.export._configure.places import with_graphs
from naiad.export._runtime.place import Place
from naiad.export._runtime.session import replayed, session
from naiad.export._runtime.turns import geometric_mean, in_turns
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples
from naiad.export._verify.parity import compare
from naiad.export.report import Choice, Finding, Tolerance

PARAMETER = "naiad.cuda_graph"
_MIN_GAIN = 1.0


def is_fixed(graph: Graph, samples: Samples) -> bool:
    """Whether all dimensions of inputs and outputs but the batch are fixed."""
    dims = [dim for shape in (*graph.inputs.values(), *graph.outputs.values()) for dim in shape]
    return all(isinstance(dim, int) or dim == samples.batch for dim in dims)


def attempt(
    path: Path,
    samples: Samples,
    answers: Sequence[Answer],
    tolerance: Tolerance,
    feeds: Mapping[int, Mapping[str, Any]],
    *,
    level: int,
    place: Place,
) -> tuple[Choice | None, tuple[Finding, ...]]:
    """Verify and time a graph as it is replayed; return the choice, or why it was not made."""
    there = with_graphs(place)
    compared = compare(path, samples, answers, tolerance, model=path.name, level=level, place=there, replay=True)
    if compared.failure is not None:
        return None, (Finding(check="CUDA graphs", message=f"left off: {compared.failure.reason}"),)
    plain, kept = session(path, num_threads=1, level=level, place=place), replayed(path, level=level, place=there)
    if place.memory == "cuda" and (host := kept.on_host()):
        message = f"left off: {', '.join(host)} stays in the memory of the host, where nothing is replayed"
        return None, (Finding(check="CUDA graphs", message=message),)
    turns = in_turns(plain, kept, feeds)
    speed = geometric_mean([item.speed_up for item in turns.values()])
    if speed < _MIN_GAIN:
        return None, (Finding(check="CUDA graphs", message=f"left off: {speed:.2f} times as fast with them, no gain"),)
    reason = f"all dimensions but the batch are fixed; verified on the GPU, and {speed:.2f} times as fast there"
    return Choice(field=PARAMETER, value="true", reason=reason), ()

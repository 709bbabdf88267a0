"""What the configuration of a graph will have, so that candidates are compared as they will be served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._configure import instances as _instances
from naiad.export._configure import settings as _settings
from naiad.export._runtime import measure as _measure
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """How ONNX Runtime will be set up."""

    samples: Samples
    answers: Sequence[Answer]
    fixed_threads: int | None
    """Where the user, or an earlier version, has said so; None to derive them from the latency."""
    level: int
    """`optimization.graph.level`."""
    cores: int | None

    def num_threads(self, path: Path) -> int:
        """Return the threads of one instance of this graph, at most as many as this machine has cores."""
        here = _instances.this_machines_cores()
        if self.fixed_threads is not None:
            return min(self.fixed_threads, here)
        latency = _measure.measure(path, self.samples, self.answers)
        size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
        return min(_instances.derive(latency, size, self.cores).threads, here)


def served(
    published: Any, settings: Mapping[str, object], samples: Samples, answers: Sequence[Answer], cores: int | None
) -> Served:
    """Return the set-up for a model; `published` is the configuration of its earlier versions, None without one."""
    config = model_config_pb2.ModelConfig()
    if published is not None:
        config.CopyFrom(published)
    _settings.apply(config, settings)
    threads = config.parameters["intra_op_thread_count"].string_value
    return Served(
        samples=samples,
        answers=answers,
        fixed_threads=int(threads) if threads.isdigit() else None,
        level=config.optimization.graph.level,
        cores=cores,
    )

"""Completes a configuration from the graph, to the result that NVIDIA's C++ backend gives."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from _ort_config import ModelConfig
from _ort_errors import ConfigurationError, mismatch
from _ort_graph import Graph, TensorInfo

DEFAULT_MAX_BATCH_SIZE: Final = 4
"""Triton's ``default-max-batch-size``, which a Python-based backend is not told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What to write into the configuration; ``inputs`` and ``outputs`` are empty where they were given."""

    max_batch_size: int
    dynamic_batching: bool
    inputs: tuple[dict[str, Any], ...]
    outputs: tuple[dict[str, Any], ...]


def is_complete(config: ModelConfig) -> bool:
    """Whether inputs and outputs are both given: then nothing at all is completed."""
    return bool(config.inputs or config.batch_inputs) and bool(config.outputs)


def complete(config: ModelConfig, graph: Graph) -> Completion:
    """What is missing in ``config``.

    A graph whose every input and output begins with a dynamic dimension can batch: it gets a batch size where
    none is given, and dynamic batching where no scheduler is named. Raises ``ConfigurationError`` where a batch
    size is given and the graph cannot batch.
    """
    max_batch_size = _max_batch_size(config, graph)
    inputs_given = bool(config.inputs or config.batch_inputs)
    return Completion(
        max_batch_size=max_batch_size,
        dynamic_batching=max_batch_size > 1 and config.scheduler is None,
        inputs=() if inputs_given else _entries(graph.inputs, max_batch_size),
        outputs=() if config.outputs else _entries(graph.outputs, max_batch_size),
    )


def _max_batch_size(config: ModelConfig, graph: Graph) -> int:
    fixed = [each for each in (*graph.inputs, *graph.outputs) if not each.shape or each.shape[0] != -1]
    if not fixed:
        return config.max_batch_size or DEFAULT_MAX_BATCH_SIZE
    if config.max_batch_size:
        message = mismatch(
            f"model '{config.name}', max_batch_size",
            expected="0, because not every tensor of the model begins with a dynamic dimension "
            f"('{fixed[0].name}' has shape {list(fixed[0].shape)})",
            found=config.max_batch_size,
            advice="remove max_batch_size or export the model with a dynamic batch dimension",
        )
        raise ConfigurationError(message)
    return 0


def _entries(infos: Iterable[TensorInfo], max_batch_size: int) -> tuple[dict[str, Any], ...]:
    return tuple(_entry(info, batched=max_batch_size > 0) for info in infos)


def _entry(info: TensorInfo, *, batched: bool) -> dict[str, Any]:
    dims = list(info.shape[1:] if batched else info.shape)
    entry: dict[str, Any] = {"name": info.name, "data_type": info.data_type, "dims": dims or [1]}
    # Triton has no tensors without dimensions. With a batch dimension it reshapes; a lone scalar is ours to reshape.
    if batched and not dims:
        entry["reshape"] = {"shape": []}
    return entry

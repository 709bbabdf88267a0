"""Ragged batches: tensors computed from, and outputs cut by, the shapes of the requests in a batch."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from _ort_config import BatchTensor
from _ort_datatypes import BY_TRITON
from _ort_errors import OutputError
from numpy.typing import NDArray

Shape = tuple[int, ...]


def _element_counts(shapes: Sequence[Shape]) -> NDArray[Any]:
    return np.array([math.prod(shape) for shape in shapes], dtype=np.int64)


def _accumulated(shapes: Sequence[Shape]) -> NDArray[Any]:
    return np.cumsum(_element_counts(shapes))


def _accumulated_with_zero(shapes: Sequence[Shape]) -> NDArray[Any]:
    return np.concatenate(([0], _accumulated(shapes)))


def _max_count_as_shape(shapes: Sequence[Shape]) -> NDArray[Any]:
    # Only the length of this tensor means something; its values are never set.
    return np.zeros(max(_element_counts(shapes), default=0), dtype=np.int64)


def _item_shapes(shapes: Sequence[Shape]) -> NDArray[Any]:
    rows = [shape[1:] for shape in shapes for _ in range(shape[0])]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(shapes[0]) - 1)


def _item_shapes_flat(shapes: Sequence[Shape]) -> NDArray[Any]:
    return _item_shapes(shapes).reshape(-1)


BATCH_INPUT_KINDS: Final[Mapping[str, Callable[[Sequence[Shape]], NDArray[Any]]]] = {
    "BATCH_ELEMENT_COUNT": _element_counts,
    "BATCH_ACCUMULATED_ELEMENT_COUNT": _accumulated,
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": _accumulated_with_zero,
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": _max_count_as_shape,
    "BATCH_ITEM_SHAPE": _item_shapes,
    "BATCH_ITEM_SHAPE_FLATTEN": _item_shapes_flat,
}
BATCH_OUTPUT_KINDS: Final = ("BATCH_SCATTER_WITH_INPUT_SHAPE",)


def batch_inputs(
    entries: Iterable[BatchTensor], requests: Sequence[Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """The tensors of every ``batch_input`` entry for a batch of requests, one mapping of inputs each."""
    made = {}
    for entry in entries:
        values = BATCH_INPUT_KINDS[entry.kind]([inputs[entry.sources[0]].shape for inputs in requests])
        tensor = values.astype(BY_TRITON[entry.data_type].numpy)
        made.update(dict.fromkeys(entry.targets, tensor))
    return made


def scatter(name: str, output: NDArray[Any], configured: Sequence[int], sources: Sequence[Shape]) -> list[NDArray[Any]]:
    """Cut a flat output into one view per request, shaped as configured with -1 read off the request's input.

    ``configured`` and ``sources`` include the batch dimension. Raises ``OutputError`` where the pieces do not
    add up to the output.
    """
    flat = output.reshape(-1)
    shapes = [_like(configured, source) for source in sources]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    if ends[-1] != flat.size:
        raise OutputError(
            f"output '{name}': expected {ends[-1]} elements, as the shapes {shapes} of the requests in this batch say, "
            f"found {flat.size}; correct batch_output in config.pbtxt or the model"
        )
    starts = (0, *ends[:-1])
    return [flat[start:end].reshape(shape) for start, end, shape in zip(starts, ends, shapes, strict=True)]


def _like(configured: Sequence[int], source: Shape) -> Shape:
    """-1 becomes the size that the source input has in the same place."""
    padded = (*source, *([1] * (len(configured) - len(source))))
    return tuple(size if dim == -1 else dim for dim, size in zip(configured, padded, strict=False))

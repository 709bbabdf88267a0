"""The types and dimensions of a pipeline's tensors, as they turned out when the Python pipeline ran."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from naiad.export._pipeline.reference import Stage
from naiad.export._pipeline.samples import Case
from naiad.export._pipeline.served.model import DATATYPES
from naiad.export.errors import InvalidRecipe
from naiad.export.steps import Function

Dynamic = Mapping[str, Mapping[int, str]]


@dataclass(kw_only=True, slots=True)
class Shapes:
    """By tensor; the batch is not among the dims. A model's outputs get the dims of its graph later."""

    batched: bool
    datatypes: dict[str, str]
    """Triton's, without `TYPE_`."""
    dims: dict[str, list[int]]
    """-1 where the size varies."""
    symbols: dict[str, dict[int, str]]
    """Names of the axes that vary, equal where the sizes are equal in every case."""

    def dynamic(self, stage: Stage) -> dict[str, dict[int, str]]:
        """Return which axes of a model's inputs vary, by input."""
        batch = {0: "batch"} if self.batched else {}
        return {argument: batch | self.symbols[tensor] for argument, tensor in stage.inputs.items()}


def shapes(pipeline: Sequence[Stage], cases: Sequence[Case], dynamic: Dynamic) -> Shapes:
    """Return what the cases show; `dynamic` names axes of the pipeline's inputs that vary without showing it.

    Raises:
        InvalidRecipe: An axis is declared for a tensor that does not have it.
    """
    declared = _declared(pipeline, cases[0], dynamic)
    found = Shapes(batched=cases[0].batch > 0, datatypes={}, dims={}, symbols={})
    names: dict[Any, str] = {}
    for tensor, array in cases[0].tensors.items():
        first = int(found.batched)
        found.datatypes[tensor] = DATATYPES[array.dtype.name]
        found.dims[tensor], found.symbols[tensor] = list(array.shape[first:]), {}
        for axis in range(first, array.ndim):
            sizes = tuple(case.tensors[tensor].shape[axis] for case in cases)
            symbol = declared.get(tensor, {}).get(axis)
            if symbol or len(set(sizes)) > 1:
                found.dims[tensor][axis - first] = -1
                # Axes of one size in every case that were given different names are not taken for the same.
                key = sizes if len(set(sizes)) > 1 else (sizes, symbol)
                found.symbols[tensor][axis] = names.setdefault(key, _free(symbol or f"{tensor}_{axis}", names))
    return found


def _free(symbol: str, names: Mapping[Any, str]) -> str:
    while symbol in names.values():
        symbol += "_"
    return symbol


def _declared(pipeline: Sequence[Stage], case: Case, dynamic: Dynamic) -> dict[str, dict[int, str]]:
    made = {tensor for stage in pipeline for tensor in stage.outputs.values()}
    wrong = sorted(set(dynamic) - (set(case.tensors) - made))
    if wrong:
        given = ", ".join(tensor for tensor in case.tensors if tensor not in made)
        raise InvalidRecipe(f"DYNAMIC names {wrong[0]!r}, which is no input of the pipeline; those are: {given}")
    declared = {tensor: dict(axes) for tensor, axes in dynamic.items()}
    for stage in pipeline:
        if isinstance(stage.step, Function):
            unknown = sorted(set(stage.step.dynamic) - set(stage.outputs.values()))
            if unknown:
                gives = ", ".join(stage.outputs.values())
                raise InvalidRecipe(f"{stage.label} declares the tensor {unknown[0]!r} dynamic; it gives {gives}")
            declared |= {tensor: dict(axes) for tensor, axes in stage.step.dynamic.items()}
    for tensor, axes in declared.items():
        rank = case.tensors[tensor].ndim
        for axis, symbol in axes.items():
            if not isinstance(axis, int) or not 0 <= axis < rank or not isinstance(symbol, str):
                raise InvalidRecipe(
                    f"the tensor {tensor!r} has {rank} dimensions; found {{{axis!r}: {symbol!r}}} declared dynamic, "
                    "expected one of them and a name for it"
                )
    return declared

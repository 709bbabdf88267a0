"""Samples: bound to the names of `forward`, and cut or repeated into cases of every batch size to verify."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from naiad.export.errors import InvalidExport

Inputs = dict[str, torch.Tensor]
Dynamic = Mapping[str, Mapping[int, str]]

_CAPTURE_BATCHES = (3, 5, 7, 11, 13, 17, 19, 23)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Inputs of one size, to be answered by PyTorch and by ONNX Runtime."""

    sizes: dict[str, int]
    """By name of the dynamic dimension."""
    inputs: Inputs
    required: bool = True
    """A size that no sample has may be refused by the model itself; then the case does not count."""

    def feeds(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the inputs as arrays, as ONNX Runtime takes them."""
        return {name: tensor.cpu().contiguous().numpy() for name, tensor in self.inputs.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Samples of one model and the dimensions that vary."""

    rows: tuple[Inputs, ...]
    dynamic: Dynamic
    batch: str | None
    """The name of the batch dimension; None without one."""
    max_batch_size: int
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.rows[0]))

    def capture(self) -> Inputs:
        """Return inputs for the capture, whose dynamic sizes are at least 2 and no input's fixed size.

        A size of 1 would be baked in as a constant, and an accidental equality as a condition.
        """
        first = self.rows[0]
        fixed = {size for tensor in first.values() for size in tensor.shape[1:]}
        sizes = {symbol: max(size, 2) for symbol, size in self._sizes(first).items()}
        if self.batch:
            sizes[self.batch] = next((size for size in _CAPTURE_BATCHES if size not in fixed), 29)
        return {name: tensor.clone() for name, tensor in self._resize(first, sizes).items()}

    def cases(self) -> Iterator[Case]:
        """Yield every case: all samples at every batch size, and other dynamic sizes beyond the samples' own."""
        for index, group in enumerate(self._groups()):
            for batch in self.batches if index == 0 else self.batches[:4]:
                yield self._case(group, {self.batch: batch} if self.batch else {})
        first = self.rows[0]
        for symbol, size in self._sizes(first).items():
            if symbol != self.batch:
                for other in sorted({max(size // 2, 1), size + 1}):
                    sizes = {symbol: other} | ({self.batch: min(2, self.max_batch_size)} if self.batch else {})
                    yield self._case(first, sizes, required=False)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes to verify: 1, 2, 3, 7 and the largest; (0,) without a batch dimension."""
        if not self.batch:
            return (0,)
        sizes = [size for size in (1, 2, 3, 7) if size <= self.max_batch_size]
        return tuple(dict.fromkeys([*sizes, self.max_batch_size]))

    def _case(self, inputs: Inputs, sizes: dict[str, int], *, required: bool = True) -> Case:
        resized = self._resize(inputs, sizes)
        return Case(sizes=self._sizes(inputs) | sizes, inputs=resized, required=required)

    def _groups(self) -> list[Inputs]:
        """Join the rows of samples whose other dimensions are equal; each other shape stays on its own."""
        if not self.batch:
            return list(self.rows)
        groups: dict[tuple[Any, ...], list[Inputs]] = {}
        for row in self.rows:
            groups.setdefault(tuple(tensor.shape[1:] for tensor in row.values()), []).append(row)
        return [{name: torch.cat([row[name] for row in rows]) for name in self.names} for rows in groups.values()]

    def _sizes(self, inputs: Inputs) -> dict[str, int]:
        return {
            symbol: inputs[name].shape[axis] for name, axes in self.dynamic.items() for axis, symbol in axes.items()
        }

    def _resize(self, inputs: Inputs, sizes: Mapping[str, int]) -> Inputs:
        resized = {}
        for name, tensor in inputs.items():
            for axis, symbol in self.dynamic.get(name, {}).items():
                if symbol in sizes:
                    index = torch.arange(sizes[symbol], device=tensor.device) % tensor.shape[axis]
                    tensor = tensor.index_select(axis, index)
            resized[name] = tensor
        return resized


def bind(model: torch.nn.Module, samples: Sequence[Any], dynamic: Dynamic | None, max_batch_size: int) -> Samples:
    """Bind samples to the names of `forward` and check that they fit together.

    Raises:
        InvalidExport: A sample does not fit `forward`, is not made of tensors, or contradicts `dynamic`.
    """
    if isinstance(samples, Mapping | torch.Tensor | np.ndarray) or not samples:
        raise InvalidExport("samples must be a list with at least one tuple or dict, one for each call of the model")
    if max_batch_size < 0:
        raise InvalidExport(f"max_batch_size must be at least 0; found {max_batch_size}")
    signature = inspect.signature(model.forward)
    rows = tuple(_bind_one(signature, sample, index) for index, sample in enumerate(samples))
    _check_alike(rows)
    if dynamic is None:
        dynamic = {name: {0: "batch"} for name in rows[0]} if max_batch_size else {}
    _check_dynamic(rows[0], dynamic)
    batch = _batch_symbol(rows, dynamic) if max_batch_size else None
    return Samples(rows=rows, dynamic=dynamic, batch=batch, max_batch_size=max_batch_size)


def _bind_one(signature: inspect.Signature, sample: Any, index: int) -> Inputs:
    try:
        if isinstance(sample, Mapping):
            bound = signature.bind(**sample)
        elif isinstance(sample, tuple | list):
            bound = signature.bind(*sample)
        else:
            raise InvalidExport(
                f"sample {index} is {type(sample).__name__}; expected a tuple of arguments or a dict by name, "
                "as in samples=[(x,)]"
            )
    except TypeError as exc:
        raise InvalidExport(f"sample {index} does not fit forward{signature}: {exc}") from exc
    inputs: Inputs = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise InvalidExport(
                f"forward(*{name}) has no names for its inputs; wrap the model in a module that names them"
            )
        for key, item in value.items() if kind is inspect.Parameter.VAR_KEYWORD else [(name, value)]:
            if item is not None:  # an optional argument that was left out
                inputs[key] = _tensor(key, item)
    if not inputs:
        raise InvalidExport(f"sample {index} is empty; the model needs at least one tensor")
    return inputs


def _tensor(name: str, value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.ascontiguousarray(value))
    raise InvalidExport(
        f"input {name!r} is {type(value).__name__}; expected a tensor or an array. A number or a flag would be baked "
        "in as a constant, and a list or dict has no tensor name: bind them in a small wrapper module"
    )


def _check_alike(rows: tuple[Inputs, ...]) -> None:
    first = rows[0]
    for index, row in enumerate(rows):
        if list(row) != list(first):
            raise InvalidExport(f"sample {index} has the inputs {list(row)}, sample 0 has {list(first)}")
        for name, tensor in row.items():
            if tensor.dtype != first[name].dtype or tensor.dim() != first[name].dim():
                raise InvalidExport(
                    f"input {name!r} is {tensor.dtype} of rank {tensor.dim()} in sample {index} and "
                    f"{first[name].dtype} of rank {first[name].dim()} in sample 0"
                )


def _check_dynamic(inputs: Inputs, dynamic: Dynamic) -> None:
    for name, axes in dynamic.items():
        if name not in inputs:
            raise InvalidExport(f"dynamic names the input {name!r}; the model has {list(inputs)}")
        for axis, symbol in axes.items():
            if not 0 <= axis < inputs[name].dim() or not isinstance(symbol, str):
                raise InvalidExport(
                    f"dynamic[{name!r}] has {{{axis!r}: {symbol!r}}}; expected a dimension from 0 to "
                    f"{inputs[name].dim() - 1} and a name for it, as in {{0: 'batch'}}"
                )


def _batch_symbol(rows: tuple[Inputs, ...], dynamic: Dynamic) -> str:
    symbols = {name: dynamic.get(name, {}).get(0) for name in rows[0]}
    distinct = set(symbols.values())
    if None in distinct or len(distinct) != 1:
        name = next((name for name, symbol in symbols.items() if symbol is None), next(iter(symbols)))
        raise InvalidExport(
            f"with max_batch_size > 0 the first dimension of every input is the batch, under one name; input {name!r} "
            f"has {symbols[name]!r}. Give dynamic={{{name!r}: {{0: 'batch'}}}}, or max_batch_size=0"
        )
    for index, row in enumerate(rows):
        sizes = {name: tensor.shape[0] for name, tensor in row.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise InvalidExport(f"the inputs of sample {index} have different batch sizes, or none: {sizes}")
    return str(symbols[next(iter(symbols))])

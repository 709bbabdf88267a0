"""The arguments of a PyTorch model: nests of tensors as flat named arrays, and back.

`forward(x, state=[h, c], scale=2.0)` has the inputs `x`, `state_0` and `state_1`; the number is a constant.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from naiad.export._source.datatypes import as_array
from naiad.export._source.outputs import check_datatype, words
from naiad.export._source.samples import Inputs
from naiad.export.errors import InvalidExport

_CONSTANTS = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """How flat tensors become one call of a model; it travels to the capture process."""

    names: tuple[str, ...]
    """Of the tensors, in the order of the call."""
    devices: tuple[str, ...]
    leaves: tuple[Any, ...]
    """All leaves of the call; None in the places of the tensors."""
    places: tuple[int, ...]
    """Of the tensors among the leaves."""
    spec: Any
    constants: dict[str, Any]
    """What the samples gave that is no tensor, None left out."""
    plain: bool
    """Whether a call by keywords with the tensors alone is the same."""

    def tensors(self, inputs: Inputs) -> list[torch.Tensor]:
        """Return copies of the arrays, each on the device that the samples had."""
        pairs = zip(self.names, self.devices, strict=True)
        return [torch.from_numpy(inputs[name].copy()).to(device) for name, device in pairs]

    def call(self, model: Any, tensors: Sequence[torch.Tensor]) -> Any:
        """Call the model with the tensors in their places."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return model(*args, **kwargs)


def bind(signature: inspect.Signature, samples: Sequence[Any]) -> tuple[Arguments, tuple[Inputs, ...]]:
    """Bind samples to a signature; the first says which arguments there are.

    Raises:
        InvalidExport: A sample does not fit the signature, or is not made of tensors, or differs in its constants.
    """
    bound = [_bind_one(signature, sample, index) for index, sample in enumerate(samples)]
    first = bound[0][0]
    for index, (arguments, _) in enumerate(bound):
        if arguments.constants != first.constants:
            raise InvalidExport(
                f"sample {index} has the constants {arguments.constants}, sample 0 has {first.constants}; what is no "
                "tensor is baked into the graph, so it must be the same in every sample: pass a tensor instead"
            )
    return first, tuple(row for _, row in bound)


def _bind_one(signature: inspect.Signature, sample: Any, index: int) -> tuple[Arguments, Inputs]:
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
    return _flatten(signature, bound, index)


def _flatten(signature: inspect.Signature, bound: inspect.BoundArguments, index: int) -> tuple[Arguments, Inputs]:
    pairs, spec = pytree.tree_flatten_with_path((bound.args, bound.kwargs))
    inputs: dict[str, torch.Tensor] = {}
    leaves: list[Any] = []
    places, constants = [], {}
    for place, (path, value) in enumerate(pairs):
        name = _name(signature, path)
        leaf = _leaf(name, value)
        if isinstance(leaf, torch.Tensor):
            if name in inputs:
                raise InvalidExport(f"two inputs would have the name {name!r}; rename an argument of forward()")
            inputs[name], leaf = leaf, None
            places.append(place)
        elif leaf is not None:
            constants[name] = leaf
        leaves.append(leaf)
    if not inputs:
        raise InvalidExport(
            f"sample {index} has no tensor; the model needs at least one, since a number or a flag is baked in as a "
            "constant of the graph"
        )
    arguments = Arguments(
        names=tuple(inputs),
        devices=tuple(str(tensor.device) for tensor in inputs.values()),
        leaves=tuple(leaves),
        places=tuple(places),
        spec=spec,
        constants=constants,
        plain=_plain(signature, bound),
    )
    return arguments, {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in inputs.items()}


def _leaf(name: str, value: Any) -> Any:
    """Return a tensor for what is one, and a constant for what cannot be one."""
    if isinstance(value, np.ndarray | np.generic):
        array = as_array(value)
        if array.dtype == object:
            raise InvalidExport(f"input {name!r} is text; PyTorch has no tensors of it: encode it before the model")
        return torch.from_numpy(array)
    if isinstance(value, torch.Tensor):
        check_datatype("input", name, value)
        return value
    if isinstance(value, _CONSTANTS):
        return value
    raise InvalidExport(
        f"input {name!r} is {type(value).__name__}; expected a tensor or an array, or lists, tuples and dicts of them. "
        "Unpack anything else in a small wrapper module"
    )


def _name(signature: inspect.Signature, path: Sequence[Any]) -> str:
    parts = words(path[1:])
    if path[0].idx == 1:
        return "_".join(parts)
    positional = [parameter for parameter in signature.parameters.values() if parameter.kind <= 2]
    index = int(path[1].idx)
    star = next((i for i, parameter in enumerate(positional) if parameter.kind is parameter.VAR_POSITIONAL), None)
    if star is not None and index >= star:
        return "_".join([positional[star].name, str(index - star), *parts[1:]])
    return "_".join([positional[index].name, *parts[1:]])


def _plain(signature: inspect.Signature, bound: inspect.BoundArguments) -> bool:
    parameters = [signature.parameters[name] for name in bound.arguments]
    by_name = all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)
    return by_name and all(
        isinstance(value, torch.Tensor | np.ndarray | np.generic) or (value is None and parameter.default is None)
        for parameter, value in zip(parameters, bound.arguments.values(), strict=True)
    )

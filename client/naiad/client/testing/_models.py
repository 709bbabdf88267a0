"""Models made from Python functions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import json_format

from naiad.client._protocol.datatypes import numpy_dtype, triton_datatype
from naiad.client.errors import InvalidInput

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

Function = Callable[..., "Mapping[str, Any] | Iterator[Mapping[str, Any]]"]
_PASSED = ("request", "sequence")  # parameters of a function that are no inputs
_GUESS = "FP32[-1,-1]"


@dataclass(slots=True)
class FakeSequence:
    """What a function with a parameter ``sequence`` gets: the sequence that a request belongs to.

    ``state`` is empty at the start of a sequence, and kept from one request of it to the next.
    """

    id: int | str
    start: bool
    end: bool
    state: dict[str, Any] = field(default_factory=dict)


class FakeModel:
    """A model of :class:`FakeTriton`: a function that takes the inputs by name and returns the outputs by name.

    A function may have two more parameters: ``request``, the :class:`Request` (for its parameters, or to see that it
    was cancelled), and ``sequence``, which makes the model stateful. A generator function, or ``decoupled=True``,
    makes a decoupled model: each mapping that it yields is one answer.

    Without ``inputs``, these are the function's parameters (those with a default are optional), and nothing is
    checked but their names; the metadata then says ``FP32 [?, ?]``, which is a guess, and names no outputs.
    ``example`` is the better way to leave them out: the function is called once with these arrays, and the types
    and shapes of what goes in and comes out become the model's, the first dimension variable.

    Args:
        function: the function, or one for each version (``{"1": old, "2": new}``).
        inputs: data type and full shape by name, as the metadata has it: ``{"x": "FP32[-1,3]"}``.
        outputs: the same for what comes out; it is checked, and numbers and lists take this type.
        optional: names of inputs that may be left out.
        max_batch_size: with it, the first dimension of every tensor is the batch and must be -1.
        versions: the versions that are served, where one function is all of them.
        instances: how many requests run at a time, others wait; ``None`` for any number. How many may wait, and how
            long, is ``config={"dynamic_batching": {"default_queue_policy": {...}}}``, as for Triton.
        decoupled: whether a request may have any number of answers.
        labels: names of the classes of an output, for the classification extension.
        config: further fields of the model's configuration in protobuf's JSON form
            (``{"dynamic_batching": {"max_queue_delay_microseconds": 100}}``).
        example: arrays by input name, instead of ``inputs`` and ``outputs``.

    Raises:
        InvalidInput: the description is none, or contradicts itself.
    """

    def __init__(
        self,
        function: Function | Mapping[str, Function],
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        optional: Sequence[str] = (),
        max_batch_size: int = 0,
        versions: Sequence[str | int] = ("1",),
        instances: int | None = None,
        decoupled: bool = False,
        labels: Mapping[str, Sequence[str]] | None = None,
        config: Mapping[str, Any] | None = None,
        example: Mapping[str, Any] | None = None,
    ) -> None:
        self.functions: dict[str, Function] = _by_version(function, versions)
        first = next(iter(self.functions.values()))
        parameters = _parameters(first)
        self.declared: bool = inputs is not None or example is not None
        self.passed: tuple[str, ...] = tuple(
            name for name in _PASSED if name in parameters and name not in (inputs or {})
        )
        self.decoupled = decoupled or inspect.isgeneratorfunction(first)
        if instances is not None and instances < 1:
            raise InvalidInput(f"instances is at least 1, or None for any number, found {instances}")
        self.instances = instances
        self.labels: dict[str, tuple[str, ...]] = {name: tuple(names) for name, names in (labels or {}).items()}
        if example is not None:
            inputs, outputs = self._described_by(example, inputs, outputs)
        if inputs is None:
            inputs, optional = _derived(parameters)
        self.open: bool = not self.declared and any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self._described = {
            "max_batch_size": max_batch_size,
            "input": [
                {**_tensor(name, text, max_batch_size), "optional": name in optional} for name, text in inputs.items()
            ],
            "output": [
                {
                    **_tensor(name, text, max_batch_size),
                    **({"label_filename": "labels.txt"} if name in self.labels else {}),
                }
                for name, text in (outputs or {}).items()
            ],
            **dict(config or {}),
        }
        unknown = set(optional) - set(inputs)
        if unknown:
            raise InvalidInput(f"optional inputs must be inputs ({', '.join(inputs)}), found {', '.join(unknown)}")
        self.config("check")

    @property
    def stateful(self) -> bool:
        """Whether its requests belong to sequences."""
        return "sequence" in self.passed

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that are served, the newest last."""
        return tuple(sorted(self.functions, key=int))

    def config(self, name: str) -> ModelConfig:
        """Return the configuration as a server with this model gives it."""
        from tritonclient.grpc import model_config_pb2

        several = {"specific": {"versions": [int(version) for version in self.versions]}}
        given = {
            "name": name,
            "backend": "python",
            "default_model_filename": "model.py",
            "version_policy": several if len(self.versions) > 1 else {"latest": {"num_versions": 1}},
            "instance_group": [{"name": f"{name}_0", "count": self.instances or 1, "kind": "KIND_CPU"}],
            **({"sequence_batching": {"max_sequence_idle_microseconds": 60_000_000}} if self.stateful else {}),
            **({"model_transaction_policy": {"decoupled": True}} if self.decoupled else {}),
            **self._described,
        }
        try:
            return json_format.ParseDict(given, model_config_pb2.ModelConfig())
        except json_format.ParseError as exc:
            raise InvalidInput(f"expected fields of a model's configuration, found {exc}") from exc

    def __repr__(self) -> str:
        tensors = ", ".join(entry["name"] for entry in self._described["input"])
        return f"<FakeModel of ({tensors}), version{'s' * (len(self.versions) > 1)} {', '.join(self.versions)}>"

    def _described_by(
        self, example: Mapping[str, Any], inputs: Mapping[str, str] | None, outputs: Mapping[str, str] | None
    ) -> tuple[Mapping[str, str], Mapping[str, str]]:
        if inputs is not None or outputs is not None or self.decoupled or self.passed:
            raise InvalidInput(
                "an example describes a plain function, and stands instead of inputs and outputs: give one or the other"
            )
        arrays = {name: np.asarray(value) for name, value in example.items()}
        answer: Any = next(iter(self.functions.values()))(**arrays)
        return _texts(arrays), _texts({name: np.asarray(value) for name, value in dict(answer).items()})


def _by_version(function: Function | Mapping[str, Function], versions: Sequence[str | int]) -> dict[str, Function]:
    functions = dict(function) if isinstance(function, Mapping) else {str(version): function for version in versions}
    if not functions or not all(version.isdigit() and int(version) for version in functions):
        raise InvalidInput(f"versions are whole numbers above 0, at least one, found {list(functions)}")
    for given in functions.values():
        if not callable(given):
            raise InvalidInput(f"a model is a function, or one for each version, found {given!r}")
    return functions


def _parameters(function: Function) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # functions written in C have none
        return {"inputs": inspect.Parameter("inputs", inspect.Parameter.VAR_KEYWORD)}


def _derived(parameters: Mapping[str, inspect.Parameter]) -> tuple[dict[str, str], list[str]]:
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if name not in _PASSED and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    optional = [name for name, parameter in named.items() if parameter.default is not parameter.empty]
    return dict.fromkeys(named, _GUESS), optional


def _tensor(name: str, text: str, max_batch_size: int) -> dict[str, Any]:
    match = re.fullmatch(r"(\w+) ?\[([\d, -]*)\]", text)
    if match is None or numpy_dtype(match[1]) is None:
        raise InvalidInput(f"'{name}': expected a data type and a shape like 'FP32[-1,3]', found {text!r}")
    dims = [int(dim) for dim in match[2].split(",") if dim.strip()]
    if max_batch_size and dims[:1] != [-1]:
        raise InvalidInput(f"'{name}': with max_batch_size the first dimension is the batch, -1; found {text!r}")
    datatype = {"BYTES": "STRING"}.get(match[1], match[1])
    return {"name": name, "data_type": f"TYPE_{datatype}", "dims": dims[1:] if max_batch_size else dims}


def _texts(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, str]:
    return {
        name: f"{triton_datatype(array.dtype)}[{','.join(map(str, (-1, *array.shape[1:]) if array.ndim else ()))}]"
        for name, array in arrays.items()
    }

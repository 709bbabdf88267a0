"""Serves one step of a pipeline on Triton's Python backend: a function from arrays to arrays.

`step.json` beside this file says which function of `step.py`, and what it takes and gives. This file is the same in
every step, and needs nothing but numpy; Naiad runs it before it is published, too.
"""

import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]

DATATYPES = {
    "bool": "BOOL",
    **{f"{kind}{size}": f"{kind.upper()}{size}" for kind in ("int", "uint") for size in (8, 16, 32, 64)},
    **{f"float{size}": f"FP{size}" for size in (16, 32, 64)},
    "object": "STRING",
}
"""Triton's name of a type by numpy's; text and files are objects of `bytes`."""


class TritonPythonModel:
    """What Triton's Python backend looks for."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Import the function, and call it once on an example, so that what is missing shows before any request."""
        import triton_python_backend_utils  # there is none outside of the server

        del args
        self._triton = triton_python_backend_utils
        self._step = Step(Path(__file__).resolve().parent, triton_python_backend_utils)
        self._step.rehearse()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests one by one, so that none depends on the others."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        triton = self._triton
        try:
            results = self._step({tensor.name(): tensor.as_numpy() for tensor in request.inputs()}, request)
        except Exception as exc:  # noqa: BLE001 - whatever a function raises, it fails this request only
            code = triton.TritonError.INVALID_ARG if isinstance(exc, ValueError) else triton.TritonError.INTERNAL
            code = getattr(exc, "code", None) or code  # that of a called model, as an ensemble would give it
            return triton.InferenceResponse(error=triton.TritonError(self._step.explain(exc), code))
        wanted = request.requested_output_names()
        return triton.InferenceResponse(
            output_tensors=[triton.Tensor(name, array) for name, array in results.items() if name in wanted]
        )


class Step:
    """A function with the tensors it takes and gives, as `step.json` describes them."""

    def __init__(self, directory: Path, triton: Any) -> None:
        self._directory = directory
        about = json.loads((directory / "step.json").read_text(encoding="utf-8"))
        self._label = f"step {about['step']!r} of {about['pipeline']}"
        self._inputs: list[str] = about["inputs"]
        self._outputs: dict[str, Any] = about["outputs"]
        self._batched: bool = about["batched"]
        self._more = about["options"] | {name: str(directory / file) for name, file in about["files"].items()}
        missing = [name for name in about["imports"] if importlib.util.find_spec(name) is None]
        if missing:
            raise RuntimeError(
                f"{self._label} needs the Python package {missing[0]!r}, which the Python {sys.version_info[0]}."
                f"{sys.version_info[1]} of this server does not have; install there what "
                f"{directory / 'requirements.txt'} lists, or name an environment that has it in the parameter "
                "EXECUTION_ENV_PATH"
            )
        self._function = getattr(_imported(directory / "step.py"), about["function"])
        self._calls: Any = None
        if (directory / "calling.py").is_file():  # a script
            calling = _imported(directory / "calling.py", "naiad_calling")
            self._calls = calling.OnTriton(directory, triton, tensor, DATATYPES)

    def __call__(self, arrays: Arrays, request: Any = None) -> Arrays:
        """Return the function's results, which are as they were declared."""
        given = {name: arrays[name] for name in self._inputs} | self._more
        if self._calls is None:
            value = self._function(**given)
        else:
            value = self._calls.run(lambda models: self._function(**given, models=models), request)
        results = named(value, tuple(self._outputs))
        num_rows = len(arrays[self._inputs[0]]) if self._batched else None
        for name, about in self._outputs.items():
            check(name, results[name], about["datatype"], about["dims"], num_rows)
        return results

    def rehearse(self) -> None:
        """Answer the first of the recorded examples; not a script, whose models may be loaded after it."""
        if self._calls is not None:
            return
        with np.load(self._directory / "golden.npz") as golden:
            example = {name: tensor(name, golden[f"input/0/{name}"]) for name in self._inputs}
        try:
            self(example)
        except Exception as exc:
            raise RuntimeError(f"{self.explain(exc)} (on the example in golden.npz)") from exc

    def explain(self, exc: BaseException) -> str:
        """Return one line that names the step."""
        lines = str(exc).strip().splitlines() or [""]
        plain = isinstance(exc, ValueError) or hasattr(exc, "code")
        kind = "" if plain else f"{type(exc).__name__}: "
        return f"{self._label}: {kind}{lines[0]}"


def named(value: Any, names: Sequence[str]) -> Arrays:
    """Return what a function returned by name: a dict's own, else `names` in order.

    Raises:
        TypeError: There are other results than expected, or one is no array that Triton knows.
    """
    if isinstance(value, Mapping):
        found = dict(value)
        if names and set(found) != set(names):
            raise TypeError(f"it returned {sorted(map(str, found))}; expected {sorted(names)}")
        return {str(name): tensor(str(name), found[name]) for name in names or found}
    values = value if isinstance(value, tuple | list) else (value,)
    if len(values) != len(names):
        raise TypeError(
            f"it returned {len(values)} {'arrays' if len(values) > 1 else type(values[0]).__name__} without a name; "
            f"expected a dict of arrays by name, or the {len(names)} that outputs names"
        )
    return {name: tensor(name, item) for name, item in zip(names, values, strict=True)}


def tensor(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Return an array as it is in Triton; text in any form becomes objects of `bytes`.

    Raises:
        TypeError: It is none, or of a type that Triton does not know.
    """
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{name!r} is {type(value).__name__}; expected a numpy array")
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        return _bytes(name, array)
    if array.dtype.name not in DATATYPES:
        raise TypeError(f"{name!r} is {array.dtype}; expected one of {', '.join(DATATYPES)}")
    return np.ascontiguousarray(array).reshape(array.shape)


def check(name: str, array: np.ndarray[Any, Any], datatype: str, dims: Sequence[int], num_rows: int | None) -> None:
    """Raise TypeError for an array that differs from its declaration; -1 stands for any size."""
    expected = list(dims) if num_rows is None else [num_rows, *dims]
    found = list(array.shape)
    fits = len(found) == len(expected) and all(e in (-1, f) for e, f in zip(expected, found, strict=True))
    if not fits or DATATYPES[array.dtype.name] != datatype:
        raise TypeError(f"{name!r} is {DATATYPES[array.dtype.name]} {found}; expected {datatype} {expected}")


def _bytes(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found = np.empty(array.shape, object)
    for index, item in np.ndenumerate(array):
        if not isinstance(item, str | bytes):
            raise TypeError(f"{name!r} has {type(item).__name__} in it; expected numbers, or str and bytes only")
        found[index] = bytes(item) if isinstance(item, bytes) else item.encode()
    return found


def _imported(path: Path, name: str = "naiad_step") -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module

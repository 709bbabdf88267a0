"""What a script calls: other models of the same server, at the versions that `calls.json` beside this file names.

This file is the same in every script, and needs nothing but numpy; Naiad runs it before it is published, too.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
Caller = Callable[..., Arrays]

FILE = "calls.json"


class CallFailed(RuntimeError):
    """A called model refused or failed; `code` is Triton's, None where it gave none."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class NotServed(CallFailed):
    """A called model is not there (any more)."""

    def __init__(self, message: str, step: str, code: int | None = None) -> None:
        super().__init__(message, code)
        self.step = step


class Models:
    """The steps that a script may call: `models.detector(image=…)`, or `models["detector"]`.

    Whether an optional one is served is looked up once a request, when the script first asks for it.
    """

    def __init__(self, callers: Mapping[str, Caller], optional: Mapping[str, Callable[[], bool]]) -> None:
        self._callers = callers
        self._optional = optional
        self._served: dict[str, bool] = {}

    def get(self, name: str) -> Caller | None:
        """Return what calls a step; None for an optional one that is not served.

        Raises:
            AttributeError: It is not among the script's calls.
        """
        if name not in self._callers:
            known = ", ".join(self._callers)
            raise AttributeError(f"it calls {name!r}, which is not among its calls: {known}; add it to calls= there")
        if name in self._optional and name not in self._served:
            self._served[name] = self._optional[name]()
        return self._callers[name] if self._served.get(name, True) else None

    def __getitem__(self, name: str) -> Caller:
        """Return what calls a step.

        Raises:
            AttributeError: It is not among the script's calls.
            NotServed: It is optional, and not served.
        """
        found = self.get(name)
        if found is None:
            raise NotServed(f"the optional model {name!r} is not served; ask for it with models.get({name!r})", name)
        return found

    def __getattr__(self, name: str) -> Caller:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


def check_names(step: str, given: Mapping[str, Any], expected: Mapping[str, Any] | list[str]) -> None:
    """Raise TypeError for a call with other arguments than the step takes."""
    if set(given) != set(expected):
        raise TypeError(f"it calls {step!r} with {sorted(given) or 'nothing'}; expected {sorted(expected)}")


def check_rows(step: str, arrays: Arrays, largest: int) -> int:
    """Return how many rows a call has, 0 where there are no batches; raise TypeError where they do not fit."""
    if not largest:
        return 0
    rows = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(rows.values())) != 1 or not 0 < min(rows.values()) <= largest:
        raise TypeError(
            f"it calls {step!r} with {rows} rows; the first dimension of every tensor is the batch, of 1 to {largest}"
        )
    return min(rows.values())


class OnTriton:
    """Calls through Triton, in its process."""

    def __init__(self, directory: Path, triton: Any, convert: Callable[[str, Any], Any], names: Mapping[str, str]):
        self._triton, self._convert, self._datatypes = triton, convert, names
        self._calls: dict[str, Any] = json.loads((directory / FILE).read_text(encoding="utf-8"))
        self._gone: set[str] = set()

    def run(self, function: Callable[[Models], Any], request: Any) -> Any:
        """Return what a function of the models returns; anew where an optional one goes away meanwhile."""
        gone: set[str] = set()
        while True:
            try:
                return function(self._models(request, frozenset(gone)))
            except NotServed as exc:
                if exc.step in gone or not self._calls[exc.step]["optional"]:
                    raise
                gone.add(exc.step)

    def _models(self, request: Any, gone: frozenset[str]) -> Models:
        return Models(
            {name: self._caller(name, about, request) for name, about in self._calls.items()},
            {
                name: lambda name=name, about=about: name not in gone and self._is_served(about)  # type: ignore[misc]
                for name, about in self._calls.items()
                if about["optional"]
            },
        )

    def _is_served(self, about: Mapping[str, Any]) -> bool:
        return bool(self._triton.is_model_ready(model_name=about["model"], model_version=str(about["version"])))

    def _caller(self, name: str, about: Mapping[str, Any], request: Any) -> Caller:
        def call(**tensors: Any) -> Arrays:
            check_names(name, tensors, about["inputs"])
            arrays = {key: self._convert(key, value) for key, value in tensors.items()}
            check_rows(name, arrays, about["max_batch_size"])
            for key, array in arrays.items():
                found, expected = self._datatypes[array.dtype.name], about["inputs"][key]
                if found != expected:
                    raise TypeError(f"it calls {name!r} with {key!r} as {found}; expected {expected}")
            return self._exec(name, about, arrays, request)

        return call

    def _exec(self, name: str, about: Mapping[str, Any], arrays: Arrays, request: Any) -> Arrays:
        triton = self._triton
        sent = {key: array[:, None] if key in about["flat_inputs"] else array for key, array in arrays.items()}
        asked = triton.InferenceRequest(
            request_id=request.request_id(),
            model_name=about["model"],
            model_version=about["version"],
            requested_output_names=about["outputs"],
            inputs=[triton.Tensor(key, array) for key, array in sent.items()],
            # Where it runs on a GPU: numpy reads this process's memory only.
            preferred_memory=triton.PreferredMemory(triton.TRITONSERVER_MEMORY_CPU, 0),
        )
        try:
            response = asked.exec()
        except triton.TritonModelException as exc:
            raise self._failed(name, about, str(exc), None) from exc
        if response.has_error():
            error = response.error()
            raise self._failed(name, about, error.message(), error.code())
        # Copied: what Triton gave lies in memory that goes with the response.
        found = {tensor.name(): np.array(tensor.as_numpy()) for tensor in response.output_tensors()}
        return {key: array[:, 0] if key in about["flat_outputs"] else array for key, array in found.items()}

    def _failed(self, name: str, about: Mapping[str, Any], message: str, code: int | None) -> CallFailed:
        lines = message.strip().splitlines() or ["no reason was given"]
        if not self._is_served(about):
            where = f"{about['model']} version {about['version']}"
            return NotServed(
                f"it needs {name!r}, and {where} is not served; load it, then call again",
                name,
                self._triton.TritonError.NOT_FOUND,  # as an ensemble answers then
            )
        return CallFailed(f"its call of {name!r} failed: {lines[0]}", code)

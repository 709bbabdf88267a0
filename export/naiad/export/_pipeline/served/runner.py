"""Runs the `model.py` of a step as Triton's stub would: `python -I runner.py VERSION_DIRECTORY CASES RESULTS`.

In a process of its own, in an empty directory and without this project's modules: a function that leans on something
of the exporting process fails here, and not on the server. CASES holds a pickled list of arrays by input name; RESULTS
gets `{"outputs": [...]}` or `{"error": text, "case": index}`, the index None when the step did not load.
"""

import importlib.util
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class Tensor:
    """As in triton_python_backend_utils."""

    def __init__(self, name: str, array: Any) -> None:
        self._name = name
        self._array = array

    def name(self) -> str:
        """Return its name."""
        return self._name

    def as_numpy(self) -> Any:
        """Return its array."""
        return self._array


class TritonError:
    """As in triton_python_backend_utils."""

    INVALID_ARG = 3
    INTERNAL = 1

    def __init__(self, message: str, code: int) -> None:
        self.message = message
        self.code = code


class InferenceResponse:
    """As in triton_python_backend_utils."""

    def __init__(self, output_tensors: Any = (), error: TritonError | None = None) -> None:
        self.output_tensors = output_tensors
        self.error = error


class Request:
    """An InferenceRequest as the stub gives it to `execute`."""

    def __init__(self, arrays: dict[str, Any], outputs: list[str]) -> None:
        self._arrays = arrays
        self._outputs = outputs

    def inputs(self) -> list[Tensor]:
        """Return the inputs."""
        return [Tensor(name, array) for name, array in self._arrays.items()]

    def requested_output_names(self) -> list[str]:
        """Return the outputs that the request wants."""
        return self._outputs


def main(directory: str, cases: str, results: str) -> None:
    """Answer every case, or say which failed."""
    answer = _run(Path(directory), pickle.loads(Path(cases).read_bytes()))  # noqa: S301 - of our own process
    Path(results).write_bytes(pickle.dumps(answer))


def _run(directory: Path, cases: dict[str, Any]) -> dict[str, Any]:
    utilities: Any = ModuleType("triton_python_backend_utils")
    utilities.Tensor, utilities.TritonError, utilities.InferenceResponse = Tensor, TritonError, InferenceResponse
    sys.modules[utilities.__name__] = utilities
    try:
        model = _load(directory / "model.py")
        model.initialize({"model_repository": str(directory.parent), "model_version": directory.name})
    except Exception as exc:  # noqa: BLE001 - told to the caller
        return {"error": str(exc) or type(exc).__name__, "case": None}
    outputs = []
    for index, arrays in enumerate(cases["inputs"]):
        (response,) = model.execute([Request(arrays, cases["outputs"])])
        if response.error is not None:
            return {"error": response.error.message, "case": index}
        outputs.append({tensor.name(): tensor.as_numpy() for tensor in response.output_tensors})
    return {"outputs": outputs}


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TritonPythonModel()


if __name__ == "__main__":
    main(*sys.argv[1:])

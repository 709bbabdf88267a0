"""Runs the `model.py` of a step as Triton's stub would: `python -I runner.py VERSION_DIRECTORY CASES RESULTS`.

In a process of its own, in an empty directory and without this project's modules: a function that leans on something
of the exporting process fails here, and not on the server. CASES holds a pickled list of arrays by input name; RESULTS
gets `{"outputs": [...]}` or `{"error": text, "case": index}`, the index None when the step did not load.

What a script calls is answered here, too: functions by their files, graphs by ONNX Runtime.
"""

import importlib.util
import json
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

    INTERNAL = 1
    NOT_FOUND = 2
    INVALID_ARG = 3

    def __init__(self, message: str, code: int) -> None:
        self._message = message
        self._code = code

    def message(self) -> str:
        """Return its text."""
        return self._message

    def code(self) -> int:
        """Return its kind."""
        return self._code


class TritonModelException(Exception):
    """As in triton_python_backend_utils."""


class InferenceResponse:
    """As in triton_python_backend_utils."""

    def __init__(self, output_tensors: Any = (), error: TritonError | None = None) -> None:
        self._output_tensors = list(output_tensors)
        self._error = error

    def output_tensors(self) -> list[Tensor]:
        """Return the outputs."""
        return self._output_tensors

    def has_error(self) -> bool:
        """Return whether it failed."""
        return self._error is not None

    def error(self) -> Any:
        """Return why it failed."""
        return self._error


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

    def request_id(self) -> str:
        """Return the caller's name for it."""
        return ""


class Called:
    """The models that a script calls, loaded when they are called first."""

    def __init__(self, models: dict[str, dict[str, Any]], calls: dict[str, Any]) -> None:
        self._models = models
        self._calls = {about["model"]: about for about in calls.values()}
        self._loaded: dict[str, Any] = {}
        self.absent: list[str] = []

    def is_model_ready(self, model_name: str, model_version: str = "") -> bool:
        """Return whether a model is there."""
        del model_version
        return model_name in self._models and model_name not in self.absent

    def answer(self, model: str, arrays: dict[str, Any], outputs: list[str]) -> InferenceResponse:
        """Return what a model answers."""
        if not self.is_model_ready(model):
            return InferenceResponse(error=TritonError(f"unknown model {model!r}", TritonError.INTERNAL))
        about = self._models[model]
        if model not in self._loaded:
            files = Path(about["files"])
            self._loaded[model] = _function(files) if about["level"] is None else _session(files, about["level"])
        answer = _ask_function if about["level"] is None else _ask_graph
        flat = self._calls[model]["flat_inputs"], self._calls[model]["flat_outputs"]
        try:
            given = {name: array[:, 0] if name in flat[0] else array for name, array in arrays.items()}
            return _reshaped(answer(self._loaded[model], given, outputs), flat[1])
        except Exception as exc:  # noqa: BLE001 - told to the script, as Triton does
            return InferenceResponse(error=TritonError(str(exc), TritonError.INTERNAL))


def _reshaped(response: InferenceResponse, flat: list[str]) -> InferenceResponse:
    """Give scalars a row a dimension, as Triton does."""
    if response.has_error():
        return response
    found = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
    return InferenceResponse([Tensor(name, each[:, None] if name in flat else each) for name, each in found.items()])


def _function(files: Path) -> Any:
    model = _load(files / "model.py")
    model.initialize({"model_repository": str(files.parent), "model_version": files.name})
    return model


def _ask_function(model: Any, arrays: dict[str, Any], outputs: list[str]) -> InferenceResponse:
    (response,) = model.execute([Request(arrays, outputs)])
    assert isinstance(response, InferenceResponse)
    return response


def _session(files: Path, level: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(str(files / "model.onnx"), options, providers=["CPUExecutionProvider"])


def _ask_graph(session: Any, arrays: dict[str, Any], outputs: list[str]) -> InferenceResponse:
    feeds = {name: _text(array) for name, array in arrays.items()}
    answers = zip(outputs, session.run(outputs, feeds), strict=True)
    return InferenceResponse([Tensor(name, _bytes(array)) for name, array in answers])


def _text(array: Any) -> Any:
    return array if array.dtype != object else _each(array, bytes.decode)


def _bytes(array: Any) -> Any:
    return array if array.dtype != object else _each(array, str.encode)


def _each(array: Any, change: Any) -> Any:
    found = array.copy()
    found.flat[:] = [change(item) for item in array.flat]
    return found


def main(directory: str, cases: str, results: str) -> None:
    """Answer every case, or say which failed."""
    answer = _run(Path(directory), pickle.loads(Path(cases).read_bytes()))  # noqa: S301 - of our own process
    Path(results).write_bytes(pickle.dumps(answer))


def _run(directory: Path, task: dict[str, Any]) -> dict[str, Any]:
    calls = directory / "calls.json"
    called = Called(task.get("called", {}), json.loads(calls.read_text(encoding="utf-8")) if calls.is_file() else {})
    sys.modules["triton_python_backend_utils"] = _utilities(called)
    try:
        model = _function(directory)
    except Exception as exc:  # noqa: BLE001 - told to the caller
        return {"error": str(exc) or type(exc).__name__, "case": None}
    outputs = []
    absent = task.get("absent") or [[]] * len(task["inputs"])
    for index, (arrays, called.absent) in enumerate(zip(task["inputs"], absent, strict=True)):
        response = _ask_function(model, arrays, task["outputs"])
        if response.has_error():
            return {"error": response.error().message(), "case": index}
        outputs.append({tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()})
    return {"outputs": outputs}


def _utilities(called: Called) -> ModuleType:
    class InferenceRequest:
        """As in triton_python_backend_utils."""

        def __init__(self, *, model_name: str, requested_output_names: list[str], inputs: list[Tensor], **_: Any):
            self._asked = model_name, {tensor.name(): tensor.as_numpy() for tensor in inputs}, requested_output_names

        def exec(self) -> InferenceResponse:
            """Return the model's answer."""
            return called.answer(*self._asked)

    utilities: Any = ModuleType("triton_python_backend_utils")
    utilities.Tensor, utilities.TritonError, utilities.InferenceResponse = Tensor, TritonError, InferenceResponse
    utilities.TritonModelException, utilities.InferenceRequest = TritonModelException, InferenceRequest
    utilities.PreferredMemory, utilities.TRITONSERVER_MEMORY_CPU = lambda *_: None, 0
    utilities.is_model_ready = called.is_model_ready
    found: ModuleType = utilities
    return found


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TritonPythonModel()


if __name__ == "__main__":
    main(*sys.argv[1:])

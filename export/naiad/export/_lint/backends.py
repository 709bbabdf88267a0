"""Rules about models of the Python backend and about PyTorch packages, as far as their files tell.

Source: `pb_stub.cc` of Triton's Python backend; `src/pt2` and the README of its PyTorch backend.
"""

import ast
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from naiad.export._lint import configuration
from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import Problem, advice, fails, wrong
from naiad.export._lint.tensors import data_type_name, tensors

_CLASS = "TritonPythonModel"
_MODEL_DIRECTORY = "$$TRITON_MODEL_DIRECTORY"
_NAMED_UNTIL = "26.05"
_INPUT = re.compile(r"INPUT__[0-9]+|(KW)?ARGS(\[[^\[\]\"\s]+\])+")
_OUTPUT = re.compile(r"OUTPUT__[0-9]+|RESULT(\[[^\[\]\"\s]+\])*")
_TORCH_TYPES = (
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_INT8",
    "TYPE_INT16",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_FP16",
    "TYPE_FP32",
    "TYPE_FP64",
)


def python_class(entry: Entry) -> Iterator[Problem]:
    """The Python file can be compiled, and has the class that the backend makes."""
    if entry.config.backend != configuration.PYTHON:
        return
    for number in entry.served:
        path = entry.model_path(number)
        if path.is_file():
            yield from _python_file(path, entry.relative(path))


def _python_file(path: Path, shown: str) -> Iterator[Problem]:
    try:
        module = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as exc:
        yield fails("", f"it is no Python module ({exc})", "correct it", file=shown)
        return
    if not _binds(module, _CLASS):
        yield fails("", f"it has no class {_CLASS}", f"name the model's class {_CLASS}", file=shown)
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name == _CLASS and not node.bases:
            methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
            if "execute" not in methods:
                yield wrong("", f"{_CLASS} has no method execute, so that every request fails", "add it", file=shown)


def _binds(module: ast.Module, name: str) -> bool:
    """Whether the module gives a value to a name; anything that cannot be told counts as yes."""
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return True
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name:
            return True
        if isinstance(node, ast.alias) and (node.asname or node.name) in (name, "*"):
            return True
    return False


def python_environment(entry: Entry) -> Iterator[Problem]:
    """The environment that a Python model asks for is there."""
    key = "EXECUTION_ENV_PATH"
    if entry.config.backend != configuration.PYTHON or key not in entry.config.parameters:
        return
    text = entry.config.parameters[key].string_value
    if Path(text.replace(_MODEL_DIRECTORY, str(entry.directory))).exists():
        return
    if text.startswith("/"):  # of the machine that serves, which need not be this one
        message = f"{text!r} is outside of the repository, and not on this machine"
        yield advice(f"parameters.{key}", message, "see to it that every server has it there")
    else:
        fix = f"add it, with a path that begins with {_MODEL_DIRECTORY}"
        yield fails(f"parameters.{key}", f"{text!r} is not there", fix)


def torch_package(entry: Entry) -> Iterator[Problem]:
    """A `model.pt2` is an archive, and one that the release reads."""
    if not _is_aoti(entry):
        return
    if not entry.target.supports("torch_aoti"):
        message = f"{entry.target} does not read PyTorch packages by their own names"
        yield fails("platform", message, f"serve with {_NAMED_UNTIL} or later, or export to ONNX")
    for number in entry.served:
        path = entry.model_path(number)
        if path.is_file() and not zipfile.is_zipfile(path):
            message = "it is no PyTorch package (an archive made by torch._inductor.aoti_compile_and_package)"
            yield fails("", message, "export the model again", file=entry.relative(path))


def torch_scheduling(entry: Entry) -> Iterator[Problem]:
    """Batches and sequences are not there yet for PyTorch packages."""
    if not _is_aoti(entry):
        return
    if entry.config.HasField("sequence_batching"):
        yield fails("sequence_batching", "the backend has none for PyTorch packages", "remove it")
    if entry.config.max_batch_size > 0:
        message = "the backend does not form batches for PyTorch packages"
        yield wrong("max_batch_size", message, "set it to 0, and write the batch dimension into dims as -1")


def torch_names(entry: Entry) -> Iterator[Problem]:
    """Tensors are named by the place that they have in the package's call specification."""
    if not _is_aoti(entry):
        return
    for field, tensor in tensors(entry):
        is_input = field.startswith("input")
        if not (_INPUT if is_input else _OUTPUT).fullmatch(tensor.name):
            expected = "INPUT__0, ARGS[0] or KWARGS[name]" if is_input else "OUTPUT__0, RESULT or RESULT[name]"
            yield fails(f"{field}.name", f"expected a name as in {expected}", "name it by its place in the call")
        word = data_type_name(tensor.data_type)
        if word not in _TORCH_TYPES:
            yield fails(f"{field}.data_type", f"the backend has no {word}", "cast it in the model")
    if not entry.config.output:
        yield fails("output", "no output is configured", "add the model's outputs")


def _is_aoti(entry: Entry) -> bool:
    return bool(entry.config.backend == configuration.PYTORCH and entry.config.platform == "torch_aoti")


RULES = (python_class, python_environment, torch_package, torch_scheduling, torch_names)

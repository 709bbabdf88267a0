"""The modules of the backend `pytorch` as Triton's stub imports them, on doubles of what only the stub and a GPU have.

The stub's own module is compiled into Triton, so its few names stand here. A `Remote` is a GPU that is not there: it
keeps the order of what is asked of it.
"""

import importlib.util
import json
import sys
import types
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(str(files("naiad.server"))) / "backends" / "pytorch"


class StubTensor:
    """A tensor of a request or of a response."""

    def __init__(self, name: str, value: torch.Tensor) -> None:
        self._name = name
        self.value = value

    def name(self) -> str:
        return self._name

    def to_dlpack(self) -> Any:
        return torch.utils.dlpack.to_dlpack(self.value)

    @classmethod
    def from_dlpack(cls, name: str, capsule: Any) -> "StubTensor":
        return cls(name, torch.utils.dlpack.from_dlpack(capsule))


class StubError(Exception):
    """An error of a response."""

    INTERNAL = 13
    INVALID_ARG = 3

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class StubResponse:
    """A response."""

    output_tensors: Sequence[StubTensor] = ()
    error: StubError | None = None


@dataclass
class StubRequest:
    """A request for all outputs."""

    tensors: Sequence[StubTensor]

    def inputs(self) -> Sequence[StubTensor]:
        return self.tensors

    def requested_output_names(self) -> list[str]:
        return []


def load(name: str) -> Any:
    """One module of the backend, by its name there."""
    stub = types.ModuleType("triton_python_backend_utils")
    stub.Tensor, stub.TritonError, stub.InferenceResponse = StubTensor, StubError, StubResponse  # type: ignore[attr-defined]
    before = sys.modules.get(stub.__name__)
    sys.modules[stub.__name__] = stub
    sys.path.insert(0, str(FOLDER))
    try:
        if name == "model":  # the other backend has one of this name, too
            spec = importlib.util.spec_from_file_location("_pt2_model", FOLDER / "model.py")
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
        del sys.modules[stub.__name__]
        if before is not None:
            sys.modules[stub.__name__] = before


config, device, errors, execution, graphs, package, shapes = (
    load(f"_pt2_{name}") for name in ("config", "device", "errors", "execution", "graphs", "package", "shapes")
)


def model_config(*, max_batch_size: int = 0, **parameters: str) -> Any:
    """The configuration of a model of one input and one output with two columns."""
    dims = [2] if max_batch_size else [-1, 2]
    return config.parse(
        {
            "name": "m",
            "platform": "torch_aoti",
            "max_batch_size": max_batch_size,
            "input": [{"name": "INPUT__0", "data_type": "TYPE_FP32", "dims": dims}],
            "output": [{"name": "OUTPUT__0", "data_type": "TYPE_FP32", "dims": dims}],
            "parameters": {key.replace("__", "."): {"string_value": value} for key, value in parameters.items()},
        }
    )


class Doubling:
    """A package that doubles its input."""

    inputs = {"INPUT__0": 0}  # noqa: RUF012
    outputs = {"OUTPUT__0": 0}  # noqa: RUF012
    lends = False

    def __init__(self) -> None:
        self.runs: list[int] = []

    def run(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        self.runs.append(tensors[0].shape[0])
        if bool((tensors[0] < 0).any()):
            raise RuntimeError("a number below 0")
        return [tensors[0] * 2]


@dataclass
class Remote:
    """A GPU that is not there; after `lost` is set every call of it fails, as after an error of CUDA."""

    steps: list[str] = field(default_factory=list)
    lost: str = ""

    def gather(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        self.steps.append(f"gather {len(parts)}")
        return torch.cat(list(parts))

    def deliver(self, output: torch.Tensor, *, lent: bool) -> torch.Tensor:
        self.steps.append("deliver a copy" if lent else "deliver")
        return output.clone() if lent else output

    def finish(self) -> None:
        self.steps.append("finish")
        if self.lost:
            raise errors.DeviceLost(self.lost)

    def check(self, error: Exception) -> None:
        self.steps.append("check")
        if self.lost:
            raise errors.DeviceLost(self.lost) from error


def record(run: Any, inputs: Sequence[torch.Tensor]) -> Any:
    """What `CudaRecorder` does, on the processor: work on tensors that stay where they are."""
    static = [tensor.clone() for tensor in inputs]
    outputs = run(static)

    def replay() -> None:
        for place, value in zip(outputs, run(static), strict=True):
            place.copy_(value)

    return graphs.Recording(inputs=static, outputs=outputs, replay=replay)


def request(*rows: float) -> StubRequest:
    """A request whose rows repeat one number each."""
    return StubRequest([StubTensor("INPUT__0", torch.tensor([[row, row] for row in rows], dtype=torch.float32))])


def numbers(response: StubResponse) -> list[float]:
    """The first column of a response."""
    assert response.error is None, response.error
    found: list[float] = response.output_tensors[0].value[:, 0].tolist()
    return found


def write_archive(path: Path, **metadata: str) -> Path:
    """A package of which only what it says of itself is there."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data/aotinductor/model/x.wrapper_metadata.json", json.dumps(metadata))
    return path

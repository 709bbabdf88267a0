"""PyTorch's ahead-of-time compiler, in the capture process: a package of machine code, and its own answers.

The package is loaded and run here as well, so that one that crashes takes nothing else along.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from naiad.export._capture import dynamo, recording

PACKAGE = "model.pt2"
ANSWERS = "answers.npz"
RECORDED = "recorded.npz"
_BUDGET_S = 0.05
_MAX_RUNS = 20


class _Leaves(torch.nn.Module):
    """A model whose outputs are its tensors, one after the other, of the types that the reference gives.

    With a `dtype` it computes in that: floats are cast on the way in and out, so that clients see no difference.
    """

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype | None, types: list[torch.dtype]) -> None:
        super().__init__()
        self.model = model if dtype is None else _cast(model, dtype)
        self._dtype = dtype
        self._types = types

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self._dtype is not None:
            tensors = tuple(each.to(self._dtype) if each.is_floating_point() else each for each in tensors)
        leaves = tuple(leaf for leaf in pytree.tree_leaves(self.model(*tensors)) if isinstance(leaf, torch.Tensor))
        if self._dtype is None or len(leaves) != len(self._types):
            return leaves
        return tuple(leaf.to(dtype) for leaf, dtype in zip(leaves, self._types, strict=True))


def export(directory: Path, job: dict[str, Any], inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Write the package of a job and its answers to every case, and return what it was compiled for."""
    device = torch.device(job["device"])
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # as the server does: it keeps three decimal digits
        torch.backends.cudnn.benchmark = job["fixed_shapes"]
    path = str(Path(job["target"]) / PACKAGE)
    exported = _program(directory, job, inputs, device)
    inductor: Any = torch._inductor
    inductor.aoti_compile_and_package(exported, package_path=path)
    torch.set_num_threads(job["num_threads"] or torch.get_num_threads())
    where = {"run_single_threaded": True, "device_index": 0} if device.type == "cuda" else {}
    package = inductor.aoti_load_package(path, **where)
    run = package.loader.run
    cases = [[torch.from_numpy(array).to(device) for array in case] for case in job["cases"]]
    _write(directory / ANSWERS, [run(case) for case in cases])
    names = dynamo.symbol_names(exported, list(inputs), job["dynamic"])
    return {
        "metadata": package.get_metadata() | _gpu(device),
        "ranges": dynamo.ranges(exported, names),
        "times_ms": [_time_ms(run, case, device) for case in cases],
        "not_recorded": _record(directory, run, cases) if device.type == "cuda" and job["fixed_shapes"] else "",
    }


def _program(directory: Path, job: dict[str, Any], inputs: dict[str, torch.Tensor], device: torch.device) -> Any:
    """Return the exported program, on the device."""
    if job["model"] is not None:
        dtype = getattr(torch, job["dtype"]) if job["dtype"] else None
        types = [getattr(torch, name) for name in job["output_types"]]
        job["model"] = _Leaves(job["model"], dtype, types).eval().to(device)
    exported = dynamo.program(directory, job, {name: tensor.to(device) for name, tensor in inputs.items()})
    if job["model"] is not None or device.type == "cpu":
        return exported
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(exported, str(device))


def _cast(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Cast the weights, but those of batch norms: their statistics span more than half precision holds."""
    norms = [each for each in model.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]
    states = [norm.state_dict() for norm in norms]
    model = model.to(dtype)
    for norm, state in zip(norms, states, strict=True):
        norm.float().load_state_dict(state)
    return model


def _record(directory: Path, run: recording.Run, cases: list[list[torch.Tensor]]) -> str:
    """Write what CUDA graphs of the package answer, and return why there are none, where there are none."""
    try:
        recorded = recording.answers(run, cases)
    except Exception as exc:  # noqa: BLE001 - CUDA's errors share no class
        return str(exc).partition("\n")[0] or type(exc).__name__
    _write(directory / RECORDED, recorded)
    return ""


def _write(path: Path, answers: list[list[torch.Tensor]]) -> None:
    rows = enumerate(answers)
    arrays: dict[str, Any] = {
        f"{case}/{place}": value.cpu().numpy() for case, row in rows for place, value in enumerate(row)
    }
    np.savez(path, **arrays)


def _gpu(device: torch.device) -> dict[str, str]:
    if device.type == "cpu":
        return {}
    about = torch.cuda.get_device_properties(device)
    return {"GPU": about.name, "GPU_MEMORY_BYTES": str(about.total_memory)}


def _time_ms(run: recording.Run, case: list[torch.Tensor], device: torch.device) -> float:
    time_ms = _host_ms if device.type == "cpu" else _cuda_ms
    times: list[float] = []
    while len(times) < _MAX_RUNS and (not times or sum(times) < _BUDGET_S * 1e3):
        times.append(time_ms(lambda: run(case)))
    return round(statistics.median(times), 4)


def _host_ms(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _cuda_ms(call: Callable[[], Any]) -> float:
    """Return the time between two events on the GPU's stream, with its idle time while the host prepares a launch."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))

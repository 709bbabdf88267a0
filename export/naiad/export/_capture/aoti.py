"""PyTorch's ahead-of-time compiler, in the capture process: a package of machine code, and its own answers.

The package is loaded and run here as well, so that one that crashes takes nothing else along.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from naiad.export._capture import dynamo

PACKAGE = "model.pt2"
ANSWERS = "answers.npz"
_BUDGET_S = 0.05
_MAX_RUNS = 20


class _Leaves(torch.nn.Module):
    """A model whose outputs are its tensors, one after the other."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaves = pytree.tree_leaves(self.model(*tensors))
        return tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))


def export(directory: Path, job: dict[str, Any], inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Write the package of a job and its answers to every case, and return what it was compiled for."""
    if job["model"] is not None:
        job["model"] = _Leaves(job["model"]).eval()
    path = str(Path(job["target"]) / PACKAGE)
    inductor: Any = torch._inductor
    exported = dynamo.program(directory, job, inputs)
    inductor.aoti_compile_and_package(exported, package_path=path)
    torch.set_num_threads(job["num_threads"] or torch.get_num_threads())
    package = inductor.aoti_load_package(path)
    cases = [[torch.from_numpy(array) for array in case] for case in job["cases"]]
    answers = [package.loader.run(case) for case in cases]
    arrays = {f"{case}/{place}": value.numpy() for case, row in enumerate(answers) for place, value in enumerate(row)}
    np.savez(directory / ANSWERS, **arrays)
    names = dynamo.symbol_names(exported, list(inputs), job["dynamic"])
    return {
        "metadata": package.get_metadata(),
        "ranges": dynamo.ranges(exported, names),
        "times_ms": [_time_ms(package.loader, case) for case in cases],
    }


def _time_ms(loader: Any, case: list[torch.Tensor]) -> float:
    times: list[float] = []
    while len(times) < _MAX_RUNS and (not times or sum(times) < _BUDGET_S):
        start = time.perf_counter()
        loader.run(case)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e3, 4)

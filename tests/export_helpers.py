"""Models that exporters get wrong, and helpers shared by the tests of the export room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from naiad.export import Repository


class Scores(nn.Module):
    """A linear layer, dropout and batch normalisation: [batch, 4] to [batch, 3]."""

    def __init__(self, seed: int = 0, width: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.linear = nn.Linear(width, 3)
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.dropout(self.linear(x))).softmax(-1)


class Fused(nn.Module):
    """Two inputs of different dtypes and a dict of outputs, one of them an input passed through, one a scalar a row."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, ids: torch.Tensor, weights: torch.Tensor, unused: torch.Tensor) -> dict[str, Any]:
        del unused
        vectors = self.table(ids) * weights.unsqueeze(-1)
        return {
            "pooled": vectors.mean(1),
            "more": {"norm": vectors.flatten(1).norm(dim=1)},
            "same": weights,
            "none": None,
        }


class Recurrent(nn.Module):
    """An LSTM and its last state: [batch, 5, 4] to [batch, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0][:, -1]


class Stateful(nn.Module):
    """A convolution over a length, and a recurrent cell whose state goes in and comes out under the same name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3)
        self.cell = nn.GRUCell(4, 6)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> dict[str, torch.Tensor]:
        h = self.cell(self.conv(x).mean(2), h)
        return {"y": h.sum(-1, keepdim=True), "h": h}


class BranchesOnBatch(nn.Module):
    """A Python `if` on the batch size whose branches agree in PyTorch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] >= 3:
            return x * 2
        return x + x


class WrongAlone(nn.Module):
    """Exports without a complaint, and the graph is wrong at batch 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 1:
            return x * 2
        return x * 3


class ViewsThree(nn.Module):
    """A constant where the batch size belongs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(3, -1)


class FreezesLength(nn.Module):
    """Takes every length in PyTorch, and unrolls a loop over it in the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            total = total + x[:, step]
        return total


class DiffersWhenExported(nn.Module):
    """PyTorch and the graph disagree at every batch size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1.01 if torch.compiler.is_exporting() else 1.0)


class MixesRows(nn.Module):
    """Centres each column over the batch, so that requests in one batch change each other's answers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0, keepdim=True)


class Random(nn.Module):
    """Another answer each time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Eigenvalues(nn.Module):
    """Uses an operator that ONNX does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).abs()


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return reproducible numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def answer_of(directory: Path, **inputs: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return ONNX Runtime's answer of a published version."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(directory / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def run_naiad(*args: str | os.PathLike[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command `naiad` as a user does."""
    command = [sys.executable, "-c", "from naiad.cli import main; main()", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=150, check=False)


def contents(directory: Path) -> list[str]:
    """Return everything under a directory, the lock left out."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.name != ".lock")


def assert_valid(repository: Path) -> None:
    """Every version is what its manifest says, and every model serves one that exists."""
    repo = Repository(repository)
    for model in repo.models():
        assert repo.served(model), f"{model} serves nothing"
        for number in repo.versions(model):
            assert repo.verify(model, number).problems == ()

"""What the format `model.pt2` refuses before anything is compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from export_helpers import Scores, contents, rows
from naiad.export import CaptureFailed, InvalidExport, export
from repository_helpers import identity


class Total(nn.Module):
    """One number without a dimension for all rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "compiles in fp32, fp16, bf16; found precision='int8'"),
        ({"states": {"h": "h_out"}}, "keeps no states"),
        ({"settings": {"dynamic_batching.max_queue_delay_microseconds": 5}}, "cannot do dynamic_batching"),
        ({"accelerator": "gpu"}, "accelerator must be one of cpu, cuda, tensorrt, aoti"),
    ],
)
def test_what_the_server_could_not_do_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Nothing is compiled for a server that would refuse it, or answer wrongly."""
    with pytest.raises(InvalidExport, match=message):
        export(
            Scores(), "m", samples=[(rows(5, 4),)], repository=tmp_path / "models", **{"accelerator": "aoti"} | options
        )


def test_a_machine_without_a_compiler_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler is looked for before any work, and the repository stays empty."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CaptureFailed, match="expected no-such-compiler in PATH, found none; install g"):
        export(Scores(), "m", samples=[(rows(5, 4),)], repository=tmp_path / "models", accelerator="aoti")
    assert contents(tmp_path) == ["models"]


def test_a_graph_cannot_be_compiled(tmp_path: Path) -> None:
    """PyTorch's compiler takes PyTorch's models."""
    graph = identity({"x": "FP32[batch,4]"})
    graph.opset_import[0].version = 20
    onnx.save(graph, tmp_path / "m.onnx")
    with pytest.raises(InvalidExport, match="this one is an ONNX graph"):
        export(tmp_path / "m.onnx", "m", samples=[(rows(5, 4),)], repository=tmp_path / "models", accelerator="aoti")


def test_a_scalar_is_refused(tmp_path: Path) -> None:
    """Triton knows no tensors without a dimension, and its pytorch backend reshapes none."""
    with pytest.raises(InvalidExport, match="output 'output' is a scalar"):
        export(
            Total(), "m", samples=[(rows(5, 4),)], repository=tmp_path / "models", max_batch_size=0, accelerator="aoti"
        )

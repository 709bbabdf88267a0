"""Export of a `model.pt2` for a real GPU: compiled, verified and timed there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from naiad.export import Repository, export
from naiad.export._aoti import toolchain

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def _tools() -> None:
    if missing := toolchain.lacks_gpu() or toolchain.lacks_tools():
        pytest.skip(missing)


class Encoder(nn.Module):
    """Attention over a sequence, as in a small transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 64)
        self.layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.head = nn.Linear(64, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embedding(ids)).mean(1))


def ids(rows: int = 4, length: int = 32) -> torch.Tensor:
    return torch.randint(0, 100, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_fixed_shapes_are_verified_and_recorded(precision: str, tmp_path: Path) -> None:
    """In every precision, against fp32 PyTorch; only the batch varies, so that the work is recorded."""
    torch.manual_seed(0)
    repo = Repository(tmp_path / "models")
    options = {"max_batch_size": 16, "precision": precision, "accelerator": "aoti", "device": "cuda"}
    version = export(Encoder(), "m", samples=[(ids(),)], repository=repo, **options)
    config, manifest = repo.config("m"), repo.manifest("m", 1)
    (group,) = config.instance_group
    assert group.kind == group.KIND_GPU
    assert config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value == "no"
    assert config.parameters["naiad.cuda_graph"].string_value == "true", version.report
    major, minor = torch.cuda.get_device_capability(0)
    assert manifest["package"]["AOTI_DEVICE_KEY"] == "cuda"
    assert manifest["package"]["AOTI_COMPUTE_CAPABILITY"] == f"{major}{minor}"
    assert manifest["package"]["GPU"] == torch.cuda.get_device_name(0)
    assert version.report is not None
    assert all(latency.median_ms > 0 for latency in version.report.latency)
    assert version.report.verified_on == f"PyTorch's compiled package on {torch.cuda.get_device_name(0)}"
    assert version.report.timed_on == version.report.verified_on


def test_auto_takes_the_gpu_and_other_sizes_are_not_recorded(tmp_path: Path) -> None:
    """Where a length varies, each would need a recording of its own."""
    repo = Repository(tmp_path / "models")
    export(
        Encoder(),
        "m",
        samples=[(ids(),)],
        dynamic={"ids": {0: "batch", 1: "length"}},
        max_batch_size=8,
        accelerator="aoti",
        repository=repo,
    )
    assert repo.manifest("m", 1)["package"]["AOTI_DEVICE_KEY"] == "cuda"
    assert repo.config("m").parameters["naiad.cuda_graph"].string_value == "false"


def test_an_exported_program_is_moved_to_the_gpu(tmp_path: Path) -> None:
    """A program that was exported on the processor, with a constant and a tensor that it makes itself."""

    class Shifted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(4, dtype=torch.float32) + torch.tensor([1.0])

    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Shifted(), (torch.randn(5, 4),), dynamic_shapes=({0: batch},))
    repo = Repository(tmp_path / "models")
    export(program, "m", samples=[(torch.randn(5, 4),)], max_batch_size=8, accelerator="aoti", repository=repo)
    assert repo.manifest("m", 1)["package"]["AOTI_DEVICE_KEY"] == "cuda"

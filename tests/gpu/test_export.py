"""Exports on a real GPU: verified and timed there, with CUDA graphs and TensorRT where they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _provider() -> None:
    """These tests need ONNX Runtime's CUDA provider, which a machine with a GPU may lack."""
    from naiad.export._runtime.gpu import lacking

    missing = lacking("cuda")
    if missing:
        pytest.skip(missing)


def net() -> Any:
    """A small net of convolutions of fixed shapes beside the batch."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1),
        torch.nn.BatchNorm2d(32),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 10),
    )


def exported(tmp_path: Path, **options: Any) -> tuple[Any, Any]:
    """The report and the configuration of an export on the GPU."""
    import torch

    from naiad.export import Repository, export

    torch.manual_seed(1)
    asked: dict[str, Any] = {"accelerator": "cuda", "device": "cuda", "max_batch_size": 16} | options
    version = export(net(), "net", samples=[(torch.randn(16, 3, 32, 32),)], repository=tmp_path / "models", **asked)
    assert version.report is not None
    return version.report, Repository(tmp_path / "models").config("net")


def test_fp32_is_verified_and_timed_on_the_gpu(tmp_path: Path) -> None:
    """The report names provider and GPU, no node is left to the CPU, and nothing is left as not measured."""
    report, _ = exported(tmp_path)
    assert report.verified_on.startswith("ONNX Runtime's CUDA provider on ")
    assert report.timed_on == report.verified_on
    assert report.not_measured == ()
    assert all(item.median_ms > 0 for item in report.latency)
    assert "not on the GPU" not in [finding.check for finding in report.findings]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_verified_and_timed_on_the_gpu(tmp_path: Path, precision: str) -> None:
    """Also bf16, for which the CPU has no kernels: the entry is then for GPUs alone."""
    report, config = exported(tmp_path, precision=precision, allow_slower=True)
    baseline, candidate = report.precision
    assert candidate.chosen
    assert candidate.verified_on == candidate.timed_on == baseline.timed_on == report.verified_on
    assert [item.batch for item in candidate.latency] == [1, 4, 16]
    assert candidate.parity[0].max_rel_error > 0
    kinds = {group.Kind.Name(group.kind) for group in config.instance_group}
    assert kinds <= {"KIND_AUTO", "KIND_GPU"}
    assert config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value == "no"


def test_auto_takes_the_fastest_that_passes(tmp_path: Path) -> None:
    """Exactly one candidate is chosen, and integers are refused with a reason."""
    report, _ = exported(tmp_path, precision="auto")
    assert sum(result.chosen for result in report.precision) == 1
    assert all(result.refused for result in report.precision if result.precision.startswith("int"))


def test_cuda_graphs_are_written_where_they_were_verified(tmp_path: Path) -> None:
    """Or a finding says that they gain nothing; any other reason is a defect for this net."""
    report, config = exported(tmp_path)
    reasons = [finding.message for finding in report.findings if finding.check == "CUDA graphs"]
    written = config.parameters["naiad.cuda_graph"].string_value if "naiad.cuda_graph" in config.parameters else ""
    assert written == ("" if reasons else "true")
    assert all("no gain" in reason for reason in reasons)


def test_replays_answer_as_runs_do(tmp_path: Path) -> None:
    """Captured once for each batch size, replayed with other values."""
    import torch

    from naiad.export._configure.places import with_graphs
    from naiad.export._runtime.place import CPU_PROVIDER, CUDA_PROVIDER, Place
    from naiad.export._runtime.session import replayed, session

    exported(tmp_path)
    path = tmp_path / "models" / "net" / "1" / "model.onnx"
    place = Place(
        name="CUDA", providers=((CUDA_PROVIDER, {"use_tf32": "0"}), (CPU_PROVIDER, {})), memory="cuda", on_gpu=True
    )
    plain, kept = session(path, place=place), replayed(path, level=0, place=with_graphs(place))
    (name,) = [tensor.name for tensor in plain.get_inputs()]
    for seed, batch in enumerate((1, 4, 1, 4, 4)):
        torch.manual_seed(seed)
        feeds = {name: torch.randn(batch, 3, 32, 32).numpy()}
        np.testing.assert_allclose(kept.run(None, feeds)[0], plain.run(None, feeds)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_is_verified_and_timed(tmp_path: Path, precision: str) -> None:
    """Where its libraries are installed: engines are built for the profile of the batch."""
    from naiad.export._runtime.gpu import lacking

    missing = lacking("tensorrt")
    if missing:
        pytest.skip(missing)
    report, config = exported(tmp_path, accelerator="tensorrt", precision=precision, allow_slower=True)
    assert report.verified_on.startswith("ONNX Runtime's TensorRT provider on ")
    (tensorrt, _) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert tensorrt.parameters["precision_mode"] == precision.upper()
    assert tensorrt.parameters["trt_profile_max_shapes"].endswith(":16x3x32x32")

"""What the backend `pytorch` refuses to load, on a GPU and elsewhere."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from pt2_helpers import config, device, errors, model_config, package, write_archive


@pytest.mark.parametrize(
    ("made_for", "gpu", "advice"),
    [
        ("cuda", None, "--device cpu, or set instance_group to KIND_GPU"),
        ("cpu", 0, "--device cuda, or set instance_group to KIND_CPU"),
    ],
)
def test_a_package_for_another_kind_of_processor_is_refused(
    made_for: str, gpu: int | None, advice: str, tmp_path: Path
) -> None:
    """Its loader would end the process, or fail without a reason."""
    path = write_archive(tmp_path / "model.pt2", AOTI_DEVICE_KEY=made_for)
    with pytest.raises(errors.LoadError, match=f"found one compiled for {made_for}.*{advice}"):
        package.Package(model_config(), path, gpu=gpu)


def test_a_package_for_another_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would load, and fail at its first request."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: f"GPU number {gpu}")
    path = write_archive(tmp_path / "model.pt2", AOTI_DEVICE_KEY="cuda", AOTI_COMPUTE_CAPABILITY="80")
    expected = r"compute capability 90, that of GPU 1 \(GPU number 1\), found machine code for compute capability 80"
    with pytest.raises(errors.LoadError, match=expected):
        package.Package(model_config(), path, gpu=1)


@pytest.mark.parametrize("capability", ["90", ""])
def test_a_package_that_fits_goes_to_the_loader(
    capability: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused then is that the archive holds nothing but its description; older ones say less of themselves."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (9, 0))
    path = write_archive(tmp_path / "model.pt2", AOTI_DEVICE_KEY="cuda", AOTI_COMPUTE_CAPABILITY=capability)
    with pytest.raises(errors.LoadError, match=f"expected a package in {path}"):
        package.Package(model_config(), path, gpu=0)


def test_a_pytorch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which package is at fault, and what to do."""
    monkeypatch.setattr(torch.version, "cuda", None)
    expected = f"GPU 2.*found torch {torch.__version__}, which was built without CUDA; install a PyTorch for CUDA"
    with pytest.raises(errors.LoadError, match=expected.replace("+", r"\+")):
        device.open_cuda("m", 2, outputs_on_host=False, fixed_shapes=False)


def test_a_driver_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line of what PyTorch says."""

    def fail() -> None:
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", fail)
    with pytest.raises(errors.LoadError, match=r"which says: Found no NVIDIA driver on your system\.; install"):
        device.open_cuda("m", 0, outputs_on_host=False, fixed_shapes=False)


@pytest.mark.parametrize(
    ("parameters", "on_host", "cuda_graph"),
    [
        ({}, False, False),
        ({"naiad__output_memory": "auto", "naiad__cuda_graph": "false"}, False, False),
        ({"naiad__output_memory": "gpu", "naiad__cuda_graph": "true"}, False, True),
        ({"naiad__output_memory": "cpu"}, True, False),
    ],
)
def test_parameters_about_gpus_are_read(parameters: dict[str, str], on_host: bool, cuda_graph: bool) -> None:
    """By default outputs stay on the GPU, and nothing is recorded."""
    parsed = model_config(**parameters)
    assert (parsed.outputs_on_host, parsed.cuda_graph) == (on_host, cuda_graph)


@pytest.mark.parametrize("parameter", ["naiad__output_memory", "naiad__cuda_graph"])
def test_a_parameter_with_another_value_is_refused(parameter: str) -> None:
    """A typing error must not silently mean the default."""
    name = parameter.replace("__", ".")
    with pytest.raises(config.LoadError, match=f"parameter '{name}': expected one of .*, found 'GPU'; correct it"):
        model_config(**{parameter: "GPU"})


class Stream:
    """A stream whose work failed, or did not."""

    def __init__(self, error: str) -> None:
        self._error = error

    def synchronize(self) -> None:
        if self._error:
            raise RuntimeError(self._error)


@pytest.mark.parametrize("error", ["", "CUDA error: an illegal memory access was encountered"])
def test_a_gpu_is_lost_when_it_fails_again(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that took too much memory leaves the GPU usable; after a wrong access every further call fails."""
    stream = Stream(error)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: stream.synchronize())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    gpu = device.Cuda(1, outputs_on_host=False)
    expected = pytest.raises(errors.DeviceLost, match="GPU 1 failed") if error else contextlib.nullcontext()
    with expected:
        gpu.check(RuntimeError("CUDA out of memory"))
    with expected:
        gpu.finish()

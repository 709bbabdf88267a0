"""The thin layer over NVIDIA's driver, with a driver that is compiled from C and works in the host's memory."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _ort_cuda import CudaDevice, CudaError, open_cuda
from _ort_datatypes import BY_TRITON
from _ort_device import Copies
from _ort_errors import DeviceLostError, EnvironmentLacksError

from driver_double import compile_library

SOURCE = Path(__file__).parents[2] / "cuda_double.c"
FP32 = BY_TRITON["TYPE_FP32"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("driver") / "libcuda_double.so"
    compile_library(SOURCE.read_text(), path)
    return path


@pytest.fixture
def driver(library: Path) -> Any:
    """What the test asks of the double, which lives as long as the process."""
    driver = ctypes.CDLL(str(library))
    yield driver
    driver.double_fail(0)


def test_arrays_go_there_and_back(library: Path) -> None:
    """What was copied to the GPU and fetched again is the same, once it was waited for."""
    device = CudaDevice(0, str(library))
    copies = Copies(device)
    parts = [np.arange(6, dtype=np.float32).reshape(2, 3), np.full((1, 3), 9, np.float32)]
    there = copies.gathered(parts, (3, 3), FP32)
    joined = copies.gathered([there, parts[1], there[1:2]], (5, 3), FP32)
    fetched = copies.fetched(copies.copied(joined))
    assert not np.array_equal(fetched[:2], parts[0])
    copies.finish()
    np.testing.assert_array_equal(fetched, np.concatenate([*parts, parts[1], parts[0][1:]]))


def test_the_context_is_the_one_that_the_runtime_shares(library: Path, driver: Any) -> None:
    """The device's primary context, which ONNX Runtime uses too, is made current."""
    CudaDevice(1, str(library))
    assert driver.double_current() == 1


def test_memory_is_used_again_and_then_freed(library: Path, driver: Any) -> None:
    """Blocks go back to their pool, and with the pool to the driver."""
    before = driver.double_allocated()
    copies = Copies(CudaDevice(0, str(library)))
    pointers = {copies.array((256, 3), FP32).pointer for _ in range(5)}
    assert len(pointers) == 1
    assert driver.double_allocated() == before + 1
    del copies
    gc.collect()
    assert driver.double_allocated() == before


def test_too_little_memory_is_no_loss(library: Path) -> None:
    """What does not fit is an error of the run, with the driver's words."""
    device = CudaDevice(0, str(library))
    with pytest.raises(CudaError, match=r"cuMemAlloc_v2: CUDA_ERROR_OTHER \(what the driver says\)") as caught:
        device.allocate(1 << 50)
    device.check(caught.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [(700, r"CUDA_ERROR_ILLEGAL_ADDRESS \(what the driver says\)"), (999, r"error 999 \(error 999\)")],
)
def test_an_error_that_stays_is_a_loss(library: Path, driver: Any, code: int, words: str) -> None:
    """An error that the stream repeats ends the device, and the message keeps what caused it."""
    device = CudaDevice(0, str(library))
    driver.double_fail(code)
    with pytest.raises(DeviceLostError, match=f"GPU 0 failed: cuStreamSynchronize: {words}"):
        device.synchronise()
    with pytest.raises(DeviceLostError, match=f"{words}, after: the run failed"):
        device.check(RuntimeError("the run failed"))


def test_a_failed_recording_is_given_up(library: Path, driver: Any) -> None:
    """A stream that a failed recording left unusable works again."""
    device = CudaDevice(0, str(library))
    ended = driver.double_ended_captures()
    driver.double_fail(901)
    device.check(RuntimeError("capture failed"))
    assert driver.double_ended_captures() == ended + 1
    device.synchronise()


def test_a_missing_driver_is_named() -> None:
    """Without the driver's library the error names it, and the way to get it."""
    with pytest.raises(EnvironmentLacksError, match=r"libcuda_absent\.so\.1.*install NVIDIA's driver"):
        open_cuda("model", 0, "libcuda_absent.so.1")


def test_a_missing_gpu_is_named(library: Path) -> None:
    """A number beyond the driver's GPUs is an error with the driver's words."""
    with pytest.raises(EnvironmentLacksError, match=r"instance on GPU 7.*cuDeviceGet.*compare with `nvidia-smi`"):
        open_cuda("model", 7, str(library))

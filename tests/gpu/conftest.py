"""Tests that need an NVIDIA GPU; elsewhere all of them are skipped, in one line."""

import ctypes
import functools

import pytest

_REASON = "no NVIDIA GPU on this machine: tests/gpu needs one"


@functools.cache
def num_gpus() -> int:
    """GPUs that the driver lets this process use; 0 where there is no driver. Starts no context on any."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def pytest_runtest_setup() -> None:
    # Here and not by a mark: pytest folds skips of one place into one line, marks only those of one file.
    if num_gpus() == 0:
        pytest.skip(_REASON)

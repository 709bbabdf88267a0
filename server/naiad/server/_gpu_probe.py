"""Asks the NVIDIA driver what there is, and prints it as one line of JSON.

A program of its own, with the standard library only: whoever initialises the driver cannot use CUDA in processes that
it forks, and a driver that is damaged may end the process. It creates no context on any GPU.
"""

import ctypes
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any, Final

_MAJOR: Final = 75
_MINOR: Final = 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
_NO_DEVICE: Final = 100
"""CUDA_ERROR_NO_DEVICE: there is a driver, and no GPU that this process may use."""


class DriverError(Exception):
    """A call of the driver failed."""


def look() -> dict[str, Any]:
    """What was found; where there is no driver, only why."""
    found: dict[str, Any] = {
        "library": "",
        "named_plainly": False,
        "version": "",
        "cuda": "",
        "gpus": [],
        "trouble": "",
    }
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as exc:
        return found | {"trouble": str(exc)}
    found["library"] = _real_path()
    found["named_plainly"] = _named_plainly(driver)
    found["version"] = _version(found["library"])
    try:
        found["cuda"] = _cuda_version(driver)
        found["gpus"] = [_gpu(driver, number) for number in range(_count(driver))]
    except DriverError as exc:
        found["trouble"] = str(exc)
    return found


def _count(driver: ctypes.CDLL) -> int:
    code = driver.cuInit(0)
    if code == _NO_DEVICE:
        return 0
    _check(driver, "cuInit", code)
    count = ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    return count.value


def _gpu(driver: ctypes.CDLL, number: int) -> dict[str, Any]:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGet", ctypes.byref(device), number)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return {
        "name": name.value.decode(errors="replace"),
        "memory_bytes": memory.value,
        "compute_capability": f"{_attribute(driver, device, _MAJOR)}.{_attribute(driver, device, _MINOR)}",
        "uuid": _uuid(driver, device),
    }


def _attribute(driver: ctypes.CDLL, device: ctypes.c_int, attribute: int) -> int:
    value = ctypes.c_int()
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return value.value


def _uuid(driver: ctypes.CDLL, device: ctypes.c_int) -> str:
    # The second function tells a part of a divided GPU (MIG) from the whole; drivers before CUDA 11.4 lack it.
    whole = part = _uuid_by(driver, "cuDeviceGetUuid", device)
    if hasattr(driver, "cuDeviceGetUuid_v2"):
        part = _uuid_by(driver, "cuDeviceGetUuid_v2", device)
    return f"{'GPU' if part == whole else 'MIG'}-{uuid.UUID(bytes=part)}"


def _uuid_by(driver: ctypes.CDLL, function: str, device: ctypes.c_int) -> bytes:
    value = (ctypes.c_ubyte * 16)()
    _call(driver, function, value, device)
    return bytes(value)


def _cuda_version(driver: ctypes.CDLL) -> str:
    version = ctypes.c_int()
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _call(driver: ctypes.CDLL, function: str, *arguments: Any) -> None:
    _check(driver, function, getattr(driver, function)(*arguments))


def _check(driver: ctypes.CDLL, function: str, code: int) -> None:
    if code:
        raise DriverError(f"{function} failed with {_error_name(driver, code)}")


def _error_name(driver: ctypes.CDLL, code: int) -> str:
    name, text = ctypes.c_char_p(), ctypes.c_char_p()
    driver.cuGetErrorName(code, ctypes.byref(name))
    driver.cuGetErrorString(code, ctypes.byref(text))
    said = ", ".join(value.decode(errors="replace") for value in (name.value, text.value) if value)
    return f"{code} ({said})" if said else str(code)


def _real_path() -> str:
    """Where the driver's library really lies, which the loader does not tell."""
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        path = line.split(maxsplit=5)[-1]
        if Path(path).name.startswith("libcuda.so"):
            return path
    return ""


def _named_plainly(driver: ctypes.CDLL) -> bool:
    """Whether `libcuda.so` is this driver, too, and not absent or the empty one that toolkits link with."""
    try:
        return ctypes.CDLL("libcuda.so")._handle == driver._handle
    except OSError:
        return False


def _version(library: str) -> str:
    found = re.search(r"\.so\.(\d{3}\.[\d.]+)$", library)
    return found[1] if found else ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look()))

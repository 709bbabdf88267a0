"""Which GPUs there are, and which of them one Triton uses."""

import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from naiad.server import _gpu_probe
from naiad.server.errors import InvalidOption, PreflightFailed

_log = logging.getLogger("naiad.server")
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_ASKED: Final = re.compile(r"all|none|\d+(,\d+)*|GPU-[0-9a-fA-F-]+(,GPU-[0-9a-fA-F-]+)*")
_TIMEOUT_S: Final = 120.0
"""A driver that nobody uses starts its GPUs first, one after the other."""
NO_LIBRARY: Final = "cannot open shared object file"
_COMPARE: Final = "Compare with `nvidia-smi -L`; in a container, run it with --gpus all."


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU as the driver describes it."""

    name: str
    memory_bytes: int
    compute_capability: str
    """Such as "9.0"."""
    uuid: str
    """Such as "GPU-8932f937-…"; "MIG-…" for a part of a divided one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """What the NVIDIA driver shows a process with this environment."""

    library: str
    """The file that `libcuda.so.1` really is; "" where there is no driver."""
    named_plainly: bool
    """Whether `libcuda.so` is found, too."""
    version: str
    """Such as "580.159.03"; "" where its file does not tell."""
    cuda: str
    """The newest CUDA it runs, such as "13.0"."""
    gpus: tuple[Gpu, ...]
    """In CUDA's order, which CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER decide."""
    trouble: str
    """Why there are no GPUs; "" where the driver works."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The GPUs that one Triton uses."""

    gpus: tuple[Gpu, ...] = ()
    """In the order in which it numbers them, from 0."""
    visible: str | None = None
    """What its CUDA_VISIBLE_DEVICES is set to; None leaves it as it is."""
    library: str = ""
    """The driver's library where `libcuda.so` has to be a link to it; "" where that name is found."""
    why_none: str = ""
    """Why it uses none."""


def check(asked: str | None) -> None:
    """Raise `InvalidOption` for what names no GPUs."""
    if asked is not None and not _ASKED.fullmatch(asked):
        raise InvalidOption(
            "Expected gpus to be 'all', 'none', numbers such as '0,1', or UUIDs such as 'GPU-8932f937-…' (`naiad "
            f"doctor gpu` lists them), found {asked!r}."
        )


def look() -> Driver:
    """Ask the driver, in a process of its own."""
    command = [sys.executable, "-I", "-S", _gpu_probe.__file__]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode:
            return _unusable(f"asking the driver ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
        found = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return _unusable(f"the driver did not answer within {_TIMEOUT_S:g} s")
    gpus = tuple(Gpu(**gpu) for gpu in found.pop("gpus"))
    return Driver(gpus=gpus, **found)


def choose(asked: str | None) -> Chosen:
    """The GPUs to use: those asked for, or None for what there is.

    Numbers count what CUDA_VISIBLE_DEVICES leaves visible where the environment sets it, as CUDA's own do. Raises:
    `PreflightFailed` where GPUs are asked for that are not there, `InvalidOption` where one is twice.
    """
    if asked == "none":
        return Chosen(visible="", why_none="gpus is 'none'")
    driver = look()
    if asked is None:
        if driver.library and driver.trouble:
            _log.warning("Serving without GPUs: %s. `naiad doctor gpu` says more.", driver.trouble)
        return _using(driver, driver.gpus, None)
    if not driver.gpus:
        raise PreflightFailed(_none_there(asked, driver), check="gpu")
    if asked == "all":
        return _using(driver, driver.gpus, None)
    numbers = [_number(entry, asked, driver) for entry in asked.split(",")]
    if len(set(numbers)) != len(numbers):
        raise InvalidOption(f"Expected each GPU once, found {asked!r}. There are {listed(driver)}.")
    inherited = os.environ.get(VISIBLE)
    entries = list(map(str, range(len(driver.gpus)))) if inherited is None else inherited.split(",")
    visible = ",".join(entries[number].strip() for number in numbers)
    return _using(driver, tuple(driver.gpus[number] for number in numbers), visible)


def listed(driver: Driver) -> str:
    """The GPUs in one line, with their numbers."""
    each = (f"{number}: {gpu.name}, {gpu.uuid}" for number, gpu in enumerate(driver.gpus))
    return "; ".join(each) + _limited()


def advice(driver: Driver) -> str:
    """What to do where the driver shows no GPU."""
    if NO_LIBRARY in driver.trouble:
        return "Install NVIDIA's driver; in a container, run it with --gpus all."
    if driver.trouble:
        return "Compare with `nvidia-smi`; after an update of the driver, restart the machine."
    return f"Correct or remove {VISIBLE}." if os.environ.get(VISIBLE) is not None else _COMPARE


def _using(driver: Driver, gpus: tuple[Gpu, ...], visible: str | None) -> Chosen:
    if not gpus:
        return Chosen(why_none=driver.trouble or f"the driver shows none{_limited()}")
    return Chosen(gpus=gpus, visible=visible, library="" if driver.named_plainly else driver.library)


def _number(entry: str, asked: str, driver: Driver) -> int:
    if entry.isdigit():
        matching = [int(entry)] if int(entry) < len(driver.gpus) else []
    else:
        matching = [n for n, gpu in enumerate(driver.gpus) if gpu.uuid.lower().startswith(entry.lower())]
    if len(matching) != 1:
        what = f"several GPUs that start with {entry}" if matching else f"no GPU {entry}"
        raise PreflightFailed(
            f"Expected the GPUs {asked!r}, found {what}. There are {listed(driver)}. Name some of these.", check="gpu"
        )
    return matching[0]


def _none_there(asked: str, driver: Driver) -> str:
    found = driver.trouble or f"a driver that shows none{_limited()}"
    return (
        f"Expected NVIDIA GPUs ({asked!r} was asked for), found none: {found}. {advice(driver)} Leave the option away "
        "to serve on the CPU."
    )


def _limited() -> str:
    inherited = os.environ.get(VISIBLE)
    return "" if inherited is None else f" ({VISIBLE} is {inherited!r})"


def _unusable(trouble: str) -> Driver:
    return Driver(library="libcuda.so.1", named_plainly=False, version="", cuda="", gpus=(), trouble=trouble)

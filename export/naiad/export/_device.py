"""Where an export compiles, verifies and times what it publishes: on this machine's CPU, or on its GPU."""

from collections.abc import Callable

from naiad.export.errors import InvalidExport

DEVICES = ("auto", "cpu", "cuda")


def check(device: str, accelerator: str) -> None:
    """Refuse a device that is unknown, or that the accelerator has no use for.

    Raises:
        InvalidExport: It is one of these.
    """
    if device not in DEVICES:
        raise InvalidExport(f"device must be one of {', '.join(DEVICES)}; found {device!r}")
    if device == "cuda" and accelerator == "cpu":
        raise InvalidExport(
            "device 'cuda' compiles and verifies for a GPU; expected one of the accelerators cuda, tensorrt and aoti "
            "beside it, found 'cpu': name one, or leave the device out"
        )


def resolve(device: str, accelerator: str, lacks: Callable[[], str]) -> str:
    """Return "cpu" or "cuda" for one of `DEVICES`; "auto" is the GPU where one can be used.

    `lacks` says in words what this machine lacks to use a GPU, and what to do; it is empty where nothing is missing.

    Raises:
        InvalidExport: "cuda" was asked for and something is missing.
    """
    if device == "cpu" or accelerator == "cpu":
        return "cpu"
    missing = lacks()
    if missing and device == "cuda":
        raise InvalidExport(f"device 'cuda' cannot be used for the accelerator {accelerator!r}: {missing}")
    return "cpu" if missing else "cuda"

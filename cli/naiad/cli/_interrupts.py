"""Ctrl-C while an extension module initialises itself.

Some cannot cope with an exception in the middle of it: onnx's ends the process with SIGABRT and C++'s last words.
"""

from __future__ import annotations

import _imp
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any, Final, TypeVar

__all__ = ["interrupt_between_imports", "run_async"]

_Result = TypeVar("_Result")

_AGAIN_S: Final = 0.05
_LOADS: Final = (_imp.create_dynamic, _imp.exec_dynamic)


def interrupt_between_imports() -> None:
    """Have Ctrl-C wait until no extension module is being initialised any more.

    Does nothing where Ctrl-C is ignored, or somebody else's.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def run_async(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine as `asyncio.run` does, which makes Ctrl-C a cancellation if the handler is Python's own."""
    import asyncio  # not every command needs it

    before = signal.getsignal(signal.SIGINT)
    if before is not _interrupt:
        return asyncio.run(work)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return asyncio.run(work)
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _loads_extension(frame):
        signal.default_int_handler(number, frame)
    again = threading.Timer(_AGAIN_S, signal.pthread_kill, (threading.main_thread().ident, number))
    again.daemon = True
    again.start()


def _loads_extension(frame: FrameType | None) -> bool:
    """Whether Python's code runs on behalf of an extension module that is being loaded (ExtensionFileLoader)."""
    while frame is not None:
        if frame.f_code.co_name == "_call_with_frames_removed" and frame.f_locals.get("f") in _LOADS:
            return True
        frame = frame.f_back
    return False

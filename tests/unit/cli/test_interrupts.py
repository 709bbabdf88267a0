"""Ctrl-C at moments at which an exception would do harm."""

import subprocess
import sys

# Sends itself SIGINT when onnx's extension module, which is being initialised, calls Python.
INTERRUPTED_IMPORT = """
import _imp, os, signal, sys, time
from naiad.cli._interrupts import interrupt_between_imports

def on_call(frame, event, _):
    while frame is not None and event == "call":
        if frame.f_locals.get("f") is _imp.exec_dynamic and "onnx" in repr(frame.f_locals["args"]):
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGINT)
            return
        frame = frame.f_back

if sys.argv[1] == "waits":
    interrupt_between_imports()
import numpy, google.protobuf  # what onnx imports; now only its own is left
sys.setprofile(on_call)
try:
    import onnx
    time.sleep(30)
except KeyboardInterrupt:
    print("interrupted", "onnx.onnx_cpp2py_export" in sys.modules)
"""

INTERRUPTED_COROUTINE = """
import asyncio, os, signal
from naiad.cli._interrupts import interrupt_between_imports, run_async

async def work():
    asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        print("cancelled")
        raise

interrupt_between_imports()
before = signal.getsignal(signal.SIGINT)
try:
    run_async(work())
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGINT) is before is not signal.default_int_handler)
"""

IGNORED = """
import signal
from naiad.cli._interrupts import interrupt_between_imports

signal.signal(signal.SIGINT, signal.SIG_IGN)
interrupt_between_imports()
print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_ctrl_c_waits_until_an_extension_module_is_initialised():
    """onnx's ends the process, by one signal or another; with the handler the interrupt comes later and is not lost."""
    assert run(INTERRUPTED_IMPORT, "at once").returncode < 0
    done = run(INTERRUPTED_IMPORT, "waits")
    assert (done.returncode, done.stdout) == (0, "interrupted True\n"), done.stderr


def test_a_coroutine_is_cancelled_by_ctrl_c():
    done = run(INTERRUPTED_COROUTINE)
    assert (done.returncode, done.stdout) == (0, "cancelled\ninterrupted True\n"), done.stderr


def test_what_ignores_ctrl_c_still_does():
    done = run(IGNORED)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr

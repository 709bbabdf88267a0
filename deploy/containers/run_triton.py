"""Runs Triton as a container's first process: hides its administration key, and ends it when it hangs.

    python3 run_triton.py KEY_FILE LIVE_URL HUNG_S tritonserver ARGUMENT ...

Triton takes the key of its restricted APIs as an argument only, and arguments can be read by every user of the host.
Arguments here say `{key}` instead. They are exchanged in the memory of the new process, after it was made and before
its first instruction: what the kernel shows as its command line is what was written here. The key itself lies in the
process's environment area, which the kernel shows to its own user and to root only. This is what a debugger does
to its child (ptrace(2)), and needs no privilege. Where the machine forbids it, the key is passed as an argument after
all, and the log says so.

An engine starts a container again that has ended, not one that is unhealthy. A server that has answered LIVE_URL and
does so no more for HUNG_S seconds is therefore killed.
"""

import contextlib
import ctypes
import http.client
import os
import re
import signal
import struct
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final

_KEY: Final = re.compile(r"[A-Za-z0-9_.~-]{32,}")
"""Triton splits the argument at other characters."""
PLACEHOLDER: Final = "{key}"
_TRACEME: Final = 0
_DETACH: Final = 17
_REFUSED: Final = 97
_FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_STACK_BYTES: Final = 8 << 20
_VARIABLE: Final = "NAIAD_ARGUMENT_"
_POINTER: Final = struct.calcsize("P")


def main(command: Sequence[str]) -> int:
    """Run the command that follows the settings; return its exit status."""
    if len(command) < 4:
        sys.exit("usage: run_triton.py KEY_FILE LIVE_URL HUNG_S tritonserver ARGUMENT ...")
    key_file, live_url, hung_s, *arguments = command
    key = _read_key(key_file)
    # What arrives while the child is made waits for its handler; a first process would lose it otherwise.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    child, ending = _start(arguments, key), threading.Event()

    def forward(number: int, _frame: FrameType | None) -> None:
        ending.set()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    threading.Thread(target=_watch, args=(child, live_url, float(hung_s), ending), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    return _wait(child)


def _watch(child: int, url: str, hung_s: float, ending: threading.Event) -> None:
    """Kill the child when it has answered before and does not any more; one that was asked to end is left alone."""
    answered_s = None
    while not ending.wait(min(5.0, hung_s / 10)):
        if _answers(url):
            if answered_s is None:
                _log(f"Triton is live; it is killed when it does not answer for {hung_s:g} s.")
            answered_s = time.monotonic()
        elif answered_s is not None and time.monotonic() - answered_s > hung_s and not ending.is_set():
            _log(f"{url} has not answered for {hung_s:g} s: Triton is killed, to be started again.")
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            return


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - the address is ours
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def _read_key(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            key = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"The key of Triton's restricted APIs could not be read: {error}. `naiad deploy secrets` makes it.")
    if not _KEY.fullmatch(key):
        sys.exit(f"{path} must hold one key of at least 32 letters and digits; `naiad deploy secrets` makes it.")
    return key


def _start(arguments: Sequence[str], key: str) -> int:
    """Start the command with the arguments exchanged; return its process's id."""
    whole = [argument.replace(PLACEHOLDER, key) for argument in arguments]
    hidden = {index: text for index, text in enumerate(whole) if text != arguments[index]}
    # A mark stands before each value: overwritten with a null byte it leaves an empty variable to Triton's children.
    environment = dict(os.environ) | {f"{_VARIABLE}{index}": f"?{text}" for index, text in hidden.items()}
    child = _fork(arguments, environment, traced=True)
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != _REFUSED:
        sys.exit(os.WEXITSTATUS(status))
    if os.WIFSTOPPED(status):
        try:
            _exchange(child, arguments, hidden)
        except (OSError, ValueError) as error:
            _log(f"Triton's arguments could not be exchanged: {error!r}")
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        else:
            _ptrace(_DETACH, child)
            return child
    _log("Triton's key is visible to whoever lists this machine's processes: it allows no ptrace.")
    return _fork(whole, dict(os.environ), traced=False)


def _fork(arguments: Sequence[str], environment: dict[str, str], *, traced: bool) -> int:
    """Return the id of a child that becomes the command; a traced one stops before its first instruction."""
    if child := os.fork():
        return child
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    if traced and _ptrace(_TRACEME, 0) != 0:
        os._exit(_REFUSED)
    try:
        os.execvpe(arguments[0], list(arguments), environment)  # noqa: S606 - there is no shell in between
    except OSError as error:
        _log(f"{arguments[0]} did not start: {error}")
    os._exit(127)


def _exchange(child: int, arguments: Sequence[str], hidden: Mapping[int, str]) -> None:
    """Point the stopped child's arguments to where their whole text lies in its environment."""
    with open(f"/proc/{child}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end, variables_start, variables_end = map(int, fields[45:49])  # fields 48 to 51 of proc(5)
    stack_start = max(_stack_start(child), start - _STACK_BYTES)
    with open(f"/proc/{child}/mem", "r+b", buffering=0) as file:
        memory = file.fileno()
        shown = _strings(_read(memory, start, end), start)
        variables = _strings(_read(memory, variables_start, variables_end), variables_start)
        stack = _read(memory, stack_start, start)
        for index in hidden:
            if shown[index][1] != arguments[index].encode():
                raise ValueError(f"expected argument {index} to be {arguments[index]!r}, found {shown[index][1]!r}")
            mark = _address(variables, f"{_VARIABLE}{index}=?".encode()) - 1
            os.pwrite(memory, struct.pack("P", mark + 1), stack_start + _slot(stack, shown[index][0]))
            os.pwrite(memory, b"\0", mark)


def _read(memory: int, start: int, end: int) -> bytes:
    return os.pread(memory, end - start, start)


def _strings(area: bytes, start: int) -> list[tuple[int, bytes]]:
    """The null-terminated strings of an area of memory, with their addresses."""
    found = []
    for text in area.split(b"\0"):
        found.append((start, text))
        start += len(text) + 1
    return found


def _address(strings: Sequence[tuple[int, bytes]], prefix: bytes) -> int:
    """The address of what follows the prefix in the one string that begins with it."""
    (found,) = [address for address, text in strings if text.startswith(prefix)]
    return found + len(prefix)


def _stack_start(child: int) -> int:
    with open(f"/proc/{child}/maps", encoding="ascii") as file:
        (start,) = (int(line.partition("-")[0], 16) for line in file if line.rstrip().endswith("[stack]"))
    return start


def _slot(stack: bytes, address: int) -> int:
    """Where in the stack the one pointer to this address lies."""
    words = memoryview(stack[: len(stack) // _POINTER * _POINTER]).cast("P")
    *_, index = (index for index, word in enumerate(words) if word == address)
    return index * _POINTER


def _ptrace(request: int, process: int) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    library.ptrace.restype = ctypes.c_long
    return int(library.ptrace(request, process, None, None))


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _wait(child: int) -> int:
    """Reap whatever ends, as a first process must, until the child has; return its exit status as a shell would."""
    while True:
        process, status = os.wait()
        if process == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

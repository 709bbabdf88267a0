"""Removes what a Triton leaves behind: processes, shared memory, temporary directories.

Triton's stubs notice a dead server within a second, but nothing ever removes the shared memory of a process group that
was killed as a whole, nor the directories in /tmp. This module is also the watchdog: run as a script (`python -I -S`,
standard library only) it outlives its parent, in a session of its own, and cleans up after a parent that was killed.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

PREFIX = "naiad-triton-"
OWNER_FILE = "owner.json"
DISMISSED = b"q"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - Triton's stubs have no other place
_KILL_ROUNDS = 50


def processes_in(directory: Path) -> list[int]:
    """Processes of this user whose working directory lies in `directory`: a Triton and all of its stubs."""
    prefix = f"{directory}{os.sep}"
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{entry}/cwd").startswith(prefix):
                found.append(int(entry))
    return found


def end_processes(directory: Path) -> None:
    """Kill everything that runs in `directory`, and whatever shares a process group with it."""
    for _ in range(_KILL_ROUNDS):
        pids = processes_in(directory)
        if not pids:
            return
        for pid in pids:
            _kill(pid)
        time.sleep(0.02)


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        group = os.getpgid(pid)
        # A model may have changed its directory; its group still is the server's, never our own.
        if group != os.getpgid(0):
            os.killpg(group, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)


def remove_regions(prefix: str) -> int:
    """Delete the shared-memory regions whose names start with `prefix`; returns how many there were."""
    regions = [path for path in _SHARED_MEMORY.glob(f"{prefix}*") if prefix]
    for region in regions:
        with contextlib.suppress(OSError):
            region.unlink()
    return len(regions)


def remove_temporary(directories: list[str], owners: Path) -> None:
    """Delete the server's own directories in /tmp, unless another living owner beside `owners` claims them too."""
    claimed = {name for other in _other_owners(owners) for name in other.get("temporary", ())}
    for name in directories:
        path = Path(name)
        if name in claimed or path.is_symlink():
            continue
        if path.name.startswith("folder"):
            shutil.rmtree(path, ignore_errors=True)
        else:
            # Normally empty. Two servers that started in the same moment may both have noted it: never remove contents.
            with contextlib.suppress(OSError):
                path.rmdir()


def _other_owners(directory: Path) -> list[dict[str, list[str]]]:
    owners = []
    for path in directory.parent.glob(f"{PREFIX}*/{OWNER_FILE}"):
        if path.parent != directory:
            with contextlib.suppress(OSError, ValueError):
                owners.append(json.loads(path.read_text()))
    return owners


def clean(directory: Path) -> None:
    """End what runs in a private directory, remove what it left elsewhere, then the directory itself."""
    end_processes(directory)
    with contextlib.suppress(OSError, ValueError):
        owner = json.loads((directory / OWNER_FILE).read_text())
        remove_regions(owner["region_prefix"])
        remove_temporary(owner["temporary"], directory)
        for name in owner["state_files"]:
            Path(name).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def watch(directory: Path, pipe: int, parent: int) -> None:
    """Wait until the parent dies or dismisses us; clean up in the first case."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN | select.POLLHUP)
    # The pipe alone is not enough: a child that the parent forked holds its writing end, too.
    with contextlib.suppress(OSError, AttributeError):
        poll.register(os.pidfd_open(parent), select.POLLIN)
    poll.poll()
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        if os.read(pipe, 1) == DISMISSED:
            return
    clean(directory)


if __name__ == "__main__":
    # Ctrl-C in the terminal is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watch(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

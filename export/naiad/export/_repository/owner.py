"""Who holds a lock or a claim in a bucket, and whether that process is known to be gone.

A directory's lock goes with its process; an object does not. So each names its owner, and one whose owner is dead, or
has not been heard of for long, may be taken over, always by a conditional write.
"""

import functools
import getpass
import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """One process, or one use of a lock by it."""

    token: str
    """Unlike that of any other."""
    user: str
    host: str
    machine: str
    """The boot of the machine and the namespace of its process ids; only there do the next two mean anything."""
    pid: int
    started: str
    """When the process started, so that a later one with its id is not taken for it."""

    def is_gone(self) -> bool:
        """Whether the process surely ended; False where this machine cannot know."""
        return self.machine != "" and self.machine == _machine() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"{self.user} on {self.host} (process {self.pid})"


def this_process() -> Owner:
    """Return an owner of its own for each call."""
    pid = os.getpid()
    return Owner(
        token=uuid.uuid4().hex,
        user=_user(),
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        started=_started(pid),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """What an object that reserves something says: its state, and who wrote that."""

    state: str
    owner: Owner | None

    def to_bytes(self) -> bytes:
        """Return the object's contents."""
        return json.dumps({"state": self.state, "owner": asdict(self.owner) if self.owner else None}).encode()

    @classmethod
    def parse(cls, data: bytes) -> "Mark":
        """Read one; what cannot be read has no state and no owner, and goes when it is old."""
        try:
            values = json.loads(data)
            return cls(state=str(values["state"]), owner=Owner(**values["owner"]) if values["owner"] else None)
        except (ValueError, KeyError, TypeError):
            return cls(state="", owner=None)


@functools.cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return the start of a process in clock ticks since boot (proc(5), field 22 of stat), or nothing if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())

"""Takes a secret out of a running process's command line, which every user of the machine can read."""

import logging
from pathlib import Path
from typing import Final

_log = logging.getLogger("naiad.server")
# Positions in /proc/<pid>/stat behind the name: where the arguments lie in memory, see proc(5).
_ARG_START: Final = 45
_ARG_END: Final = 46


def hide_argument(pid: int, secret: str) -> None:
    """Overwrite `secret` in the arguments of our child `pid`; it must have parsed them already.

    Whoever knew the secret could load models, and so run code as this user. Where the kernel forbids it, a debug line
    says so.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            arguments = memory.read(end - start)
            memory.seek(start)
            memory.write(arguments.replace(secret.encode(), b"*" * len(secret)))
    except (OSError, ValueError, IndexError) as exc:
        _log.debug("The secret stays visible in the arguments of process %d: %s", pid, exc)

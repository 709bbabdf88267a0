"""Training in several processes of this machine: a recipe as a script under ``torchrun``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["torchrun"]

_STOP_S: Final = 10.0
_PR_SET_PDEATHSIG: Final = 1
_LAUNCH: Final = (
    f"import ctypes, runpy, signal; ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, signal.SIGTERM); "
    "runpy.run_module('torch.distributed.run', run_name='__main__', alter_sys=True)"
)
"""What ``torchrun`` is, but that it ends, and ends its workers, when this process is killed."""
_CAUSES: Final = (
    r"(Signal \d+ \((?!SIGTERM)\w+\) received by PID \d+)",
    r"^(?:\[rank\d+\]: ?)?([A-Za-z_][\w.]*(?:Error|Exception|NotFound): .+)$",
    r"(\S.*\w)\W*\Z",
)
"""What of stderr says why a process failed, the best first: a signal, what it raised, the last words."""


def torchrun(script: Path, arguments: Sequence[str], *, processes: int) -> dict[str, Any]:
    """Run a script in several processes and return the JSON of the last line that it printed.

    None of the processes is left when this returns or raises, as with Ctrl-C, or soon after this process was killed.

    Raises:
        RecipeFailed: one of them failed; the message has what it raised.
    """
    from naiad.export import RecipeFailed

    command = [sys.executable, "-c", _LAUNCH, "--standalone", f"--nproc-per-node={processes}"]
    process = subprocess.Popen(
        [*command, str(script), *arguments],
        env={"OMP_NUM_THREADS": "1", **os.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        printed, errors = process.communicate()
    except BaseException:
        _stop(process)
        raise
    if process.returncode:
        found = (re.search(cause, errors, re.MULTILINE) for cause in _CAUSES)
        said = next((match[1] for match in found if match), "nothing")
        raise RecipeFailed(
            f"{script}: training in {processes} processes failed with code {process.returncode}: {said}", path=script
        )
    answer: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return answer


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()  # torchrun ends those that it started
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

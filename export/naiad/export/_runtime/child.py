"""A child process that ends with its parent and whose standard output is kept for answers."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def answers_to_parent() -> int:
    """Return a descriptor for answers; what else is printed goes to standard error from here on."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)
    answer_to = os.dup(1)
    os.dup2(2, 1)
    return answer_to

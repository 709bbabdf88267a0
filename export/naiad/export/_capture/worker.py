"""The capture process: `python -m naiad.export._capture.worker DIRECTORY` exports the job in that directory.

Its answer is one JSON document on standard output; whatever PyTorch prints goes to standard error.
"""

import ctypes
import json
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from naiad.export._capture import explain as _explain

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Export the job in the directory named by the first argument."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    answer_to = os.dup(1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        answer = _export(Path(sys.argv[1]))
    except Exception as exc:  # noqa: BLE001 - every failure is reported to the parent, which knows what to say
        answer = {"error": _explain.explain(exc)}
    os.write(answer_to, json.dumps(answer).encode())


def _export(directory: Path) -> dict[str, Any]:
    import torch

    from naiad.export._capture import aoti, dynamo, legacy
    from naiad.export._verify import tracer

    torch.set_num_threads(1)  # nothing is computed here, and idle threads would spin

    # The file is the parent's own, in its private stage; it holds code by design.
    job = torch.load(directory / "job.pt", map_location="cpu", weights_only=False)
    (directory / "job.pt").unlink()
    inputs = {name: torch.from_numpy(array) for name, array in job["inputs"].items()}
    with torch.no_grad():
        work = {"legacy": legacy.export, "dynamo": dynamo.export, "trace": tracer.export, "aoti": aoti.export}[
            job["exporter"]
        ]
        answer: dict[str, Any] = work(directory, job, inputs)
    return answer | {"versions": {"torch": torch.__version__, **answer.get("versions", {})}}


if __name__ == "__main__":
    main()

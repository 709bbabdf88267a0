"""The conversion process: `python -m naiad.export._precision.worker SOURCE DIRECTORY`.

It reads one JSON document a line and answers each with one; what the quantisers print goes to standard error. A process
of its own, because they print, log, keep memory, and may crash: then only one candidate is lost.
"""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from naiad.export._runtime.child import answers_to_parent


def main() -> None:
    """Answer requests until standard input ends."""
    answer_to = answers_to_parent()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    from naiad.export._precision.workshop import Workshop

    workshop = Workshop(Path(sys.argv[1]), Path(sys.argv[2]))
    for line in sys.stdin:
        os.write(answer_to, json.dumps(_answer(workshop, json.loads(line))).encode() + b"\n")


def _answer(workshop: Any, request: dict[str, Any]) -> Any:
    from naiad.export._precision.conversion import Conversion

    conversion = Conversion(**request["conversion"] | {"excluded": tuple(request["conversion"]["excluded"])})
    try:
        return {"result": getattr(workshop, request["action"])(conversion, Path(request["path"]))}
    except Exception as exc:  # noqa: BLE001 - every failure is reported to the parent, which refuses the candidate
        lines = str(exc).strip().splitlines() or [type(exc).__name__]
        return {"error": lines[0][:400], "errno": exc.errno if isinstance(exc, OSError) else None}


if __name__ == "__main__":
    main()

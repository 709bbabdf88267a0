"""The parent's side of the conversion process: one request at a time, with a limit of time for each."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from naiad.export._precision.conversion import Conversion

TIME_LIMIT_S = 600.0
"""For one conversion; what takes longer is refused."""
_CHUNK_BYTES = 65536


class ConversionFailed(Exception):
    """A conversion was not possible; the message says why."""


class Converter:
    """Candidates made from one graph, in a process that is started when it is first needed and again if it died."""

    def __init__(self, source: Path, directory: Path, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._source = source
        self._directory = directory
        self._time_limit_s = time_limit_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def convert(self, conversion: Conversion, target: Path) -> dict[str, Any]:
        """Write a candidate to `target`, and return `num_changed`, `opset` and `ir_version`.

        Raises:
            ConversionFailed: The converter refused the graph, crashed, or took too long.
            OSError: The disk is full.
        """
        result: dict[str, Any] = self._ask("convert", conversion, target)
        return result

    def rank(self, conversion: Conversion, candidate: Path) -> list[list[str]]:
        """Return the nodes that add most to a candidate's error, the worst first; raises as `convert`."""
        result: list[list[str]] = self._ask("rank", conversion, candidate)
        return result

    def _ask(self, action: str, conversion: Conversion, path: Path) -> Any:
        process = self._started()
        assert process.stdin is not None
        request = {"action": action, "conversion": conversion.as_dict(), "path": str(path)}
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answer = self._answer(process)
        except BaseException:
            self._stop()
            raise
        if "error" not in answer:
            return answer["result"]
        if answer["errno"] is not None:
            raise OSError(answer["errno"], answer["error"])
        raise ConversionFailed(answer["error"])

    def _answer(self, process: subprocess.Popen[bytes]) -> Any:
        assert process.stdout is not None
        deadline, line = time.monotonic() + self._time_limit_s, b""
        while not line.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
                raise ConversionFailed(f"the conversion took more than {self._time_limit_s:g} s")
            chunk = os.read(process.stdout.fileno(), _CHUNK_BYTES)
            if not chunk:
                raise ConversionFailed(f"the converter ended with code {process.wait()} and no answer")
            line += chunk
        return json.loads(line)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            environment = os.environ | {
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "TMPDIR": str(self._directory),  # the quantisers' own files, on the stage's disk
            }
            command = [sys.executable, "-m", "naiad.export._precision.worker", str(self._source), str(self._directory)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()  # it must not write into the stage any more when that is removed
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

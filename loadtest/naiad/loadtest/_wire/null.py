"""A server that does nothing: what is measured against it is the load generator itself, and the machine's network."""

from __future__ import annotations

import contextlib
import subprocess
import sys

from naiad.loadtest.errors import EngineFailed

__all__ = ["NullServer"]

_STOP_S = 5.0


class NullServer:
    """Answers every ModelInfer at once with the same bytes, in a process of its own. A context manager.

    A message of a ModelStreamInfer is answered by one response, which repeats its request's id. Nothing else is served.
    The process listens on a free port of the loopback, and ends with its parent.

    Args:
        answer: a serialised ModelInferResponse.

    Raises:
        EngineFailed: on entering, if the process does not start.
    """

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        """``grpc://host:port`` while it runs."""

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> NullServer:
        command = [sys.executable, "-P", "-m", "naiad.loadtest._wire.null_process"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # it ignores Ctrl-C, but not yet while Python starts
        )
        self._process = process
        try:
            self.url = self._greet(process)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _greet(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died, which shows in its silence
            process.stdin.write(len(self._answer).to_bytes(8, "big") + self._answer)
            process.stdin.flush()
        port = process.stdout.readline().strip()
        if not port.isdigit():
            raise EngineFailed("the null server did not start; its messages are on the standard error")
        return f"grpc://127.0.0.1:{port.decode()}"

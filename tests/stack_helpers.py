"""A service as `naiad serve --gateway` runs it, and callers that never stop."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from naiad.cli.serve._stack import Stack, Wanted
from naiad.client import AsyncClient, ClientError, Retry

NAIAD = str(Path(sys.executable).with_name("naiad"))
WHO = """
    import os
    import time
    import numpy as np
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            answers = []
            for request in requests:
                x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
                time.sleep(float(x.max()))
                who = np.array([[os.getpid(), {added}]], np.float32)
                answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", np.repeat(who, len(x), axis=0))]))
            return answers
"""
"""A model that says which process answers, and which version: y = (pid, what was added)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer of the model `WHO`."""

    at: float
    """By time.monotonic()."""
    took_s: float
    pid: int
    added: int


class Callers:
    """Users who call a model through a gateway one request after the other, without retries, until the block ends."""

    def __init__(self, url: str, model: str, *, num_users: int = 6, options: dict[str, Any] | None = None) -> None:
        self._url, self._model, self._num_users = url, model, num_users
        self._options = options or {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.answers: list[Answer] = []
        self.failures: list[ClientError] = []

    async def _run(self) -> None:
        async with AsyncClient(self._url, retry=Retry(attempts=1), timeout=60.0, **self._options) as client:
            await asyncio.gather(*(self._call(client) for _ in range(self._num_users)))

    async def _call(self, client: AsyncClient) -> None:
        x = np.zeros((1, 2), np.float32)
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                answer = await client.infer(self._model, {"x": x})
            except ClientError as exc:
                self.failures.append(exc)
                await asyncio.sleep(0.05)
                continue
            now = time.monotonic()
            pid, added = np.asarray(answer["y"])[0]
            self.answers.append(Answer(at=now, took_s=now - began, pid=int(pid), added=int(added)))

    def pids(self) -> set[int]:
        """Processes that answered so far."""
        return {answer.pid for answer in list(self.answers)}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()


@contextlib.contextmanager
def stack(repository: Path, **changes: Any) -> Iterator[Stack]:
    """Two replicas of a repository behind the gateway, which everybody on this machine may use."""
    wanted: dict[str, Any] = {
        "repository": str(repository),
        "description": None,
        "num_replicas": 2,
        "host": "127.0.0.1",
        "port": 0,
        "metrics_port": 0,
        "secrets": None,
        "access_log": None,
        "log_file": None,
        "insecure": False,
        "drain_timeout_s": 10.0,
        "triton": {},
    }
    with Stack(Wanted(**wanted | changes)) as running:
        yield running


@contextlib.contextmanager
def serving(repository: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A running `naiad serve --gateway --json`, and what it printed."""
    command = [NAIAD, "serve", str(repository), "--gateway", "--json", "--port", "0", "--metrics-port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            yield process, json.loads(line)
        finally:
            process.terminate()

"""A run over several machines: the master's side, and a worker's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from naiad.cli._console import err, print_error
from naiad.cli._exit import ExitCode

if TYPE_CHECKING:
    from naiad.loadtest import LoadTest
    from naiad.loadtest._locust.master import LocustMaster

__all__ = ["conducting", "work"]

_EXIT_TIMEOUT_S: Final = 20.0


@contextmanager
def conducting(test: LoadTest, *, num_workers: int, host: str, port: int) -> Iterator[LocustMaster]:
    """Listen for workers, wait until all are there, and let them go at the end."""
    from naiad.loadtest._locust.master import LocustMaster

    with LocustMaster(test, num_workers=num_workers, host=host, port=port) as master:
        waiting = (
            f"waiting for workers at {host}:{port}: {{}} of {num_workers} (naiad loadtest --worker --master-host {host}"
        )
        waiting += f" --master-port {port})"
        with err.status(waiting.format(0)) if err.is_terminal else nullcontext() as status:
            master.wait_for_workers(lambda number: status.update(waiting.format(number)) if status else None)
        yield master


def work(*, host: str, port: int, headers: Mapping[str, Mapping[str, str]]) -> None:
    """Send what the master says until it lets go; Locust runs in a process of its own."""
    values = {name: _value(name, source) for name, source in headers.items()}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "naiad.loadtest._locust.worker_process", host, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(values) + "\n")
    process.stdin.flush()
    try:
        with err.status(f"a worker of {host}:{port}") if err.is_terminal else nullcontext():
            _, errors = process.communicate()
    except KeyboardInterrupt:
        process.terminate()
        try:
            process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    if process.returncode:
        lines = errors.strip().splitlines()
        print_error(lines[-1] if lines else f"the worker ended with exit code {process.returncode}")
        raise typer.Exit(ExitCode.ERROR)


def _value(name: str, source: Mapping[str, str]) -> str:
    if "env" in source:
        value = os.environ.get(source["env"], "")
        missing = f"the environment variable {source['env']} is not set"
    else:
        try:
            value = Path(source["file"]).read_text().strip()
        except OSError as exc:
            raise typer.BadParameter(f"{source['file']} cannot be read: {exc.strerror}", param_hint="--header") from exc
        missing = f"the file {source['file']} is empty"
    if not value:
        raise typer.BadParameter(f"{missing}: the header {name} has no value", param_hint="--header")
    return value

"""Each system of the gallery is run once, as a user runs it; its tests look at what came of it."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_RUN_TIMEOUT_S = 600
"""Ten times what a system takes on two free cores; the first test that asks for its run waits for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give those tests that may have to wait for a run the time for it."""
    for item in items:
        if "demo_of" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(_RUN_TIMEOUT_S + 60))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of `naiad demo NAME`: its folder, what it printed, and the repository it published to."""

    name: str
    folder: Path
    done: subprocess.CompletedProcess[str]

    @property
    def repository(self) -> Path:
        return self.folder / "model repository"

    @property
    def report(self) -> Path:
        return self.folder / "report"

    @property
    def found(self) -> dict[str, Any]:
        """The summary; the run must have ended well."""
        assert self.done.returncode == 0, self.done.stdout + self.done.stderr
        summary: dict[str, Any] = json.loads(self.done.stdout)
        assert summary["passed"], summary["failures"]
        return summary


@pytest.fixture(scope="session")
def demo_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """`naiad demo NAME`, run once for all tests, in a folder whose name has a space; the load test is short."""

    @cache  # a run that ended badly is not tried again
    def run(name: str) -> Run:
        folder = tmp_path_factory.mktemp(f"the {Path(name).stem}")
        command = ["--repository", "model repository", "--report", "report", "--duration", "2", "--json"]
        done = _run([sys.executable, "-m", "naiad.cli", "demo", name, *command], folder)
        return Run(name=name, folder=folder, done=done)

    return run


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_RUN_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        said = [part.decode() if isinstance(part, bytes) else part or "" for part in (exc.stdout, exc.stderr)]
        return subprocess.CompletedProcess(command, 124, said[0], f"{said[1]}\nnot done after {_RUN_TIMEOUT_S} s")

"""A process that changes a repository is killed: the repository stays valid, and the next one cleans up."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import export_killer
from export_kills import kills
from export_publisher import publish
from export_validity import assert_servable
from naiad.export import Repository


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two versions, under a path with spaces."""
    root = tmp_path / "a model repository"
    for _ in range(2):
        publish(root, export_killer.MODEL, labels=("a", "b", "c"))
    return root


def assert_next_export_works(root: Path) -> None:
    """Another process publishes what it is asked to, and nothing of the killed ones is left."""
    number = publish(root, export_killer.MODEL, labels=("a", "b", "c")).number
    repo = Repository(root)
    assert repo.served(export_killer.MODEL) == (number,)
    assert number == max(repo.versions(export_killer.MODEL))
    assert_servable(root)
    assert [path.name for path in root.parent.iterdir()] == [root.name]


def test_killed_before_every_step(root: Path) -> None:
    """Before each change, flush and lock of publications, promotion, rollback and pruning in turn."""
    places, verified = [], set[tuple[str, int]]()
    for place in kills(root, "steps", 1, 1):
        places.append(place)
        assert_servable(root, verified)
    assert len(places) > 60
    assert_next_export_works(root)


def test_interrupted_before_every_third_step(root: Path) -> None:
    """Ctrl-C lets it clean up: no stage is left, already before the next one looks."""
    places, verified = [], set[tuple[str, int]]()
    for place in kills(root, "interrupts", random.randint(1, 3), 3):
        places.append(place)
        assert_servable(root, verified)
        assert [path.name for path in root.parent.iterdir()] == [root.name], place
    assert len(places) > 20
    assert_next_export_works(root)


def test_real_exports_killed_and_interrupted(tmp_path: Path) -> None:
    """Of three `naiad export` of one model at once one is killed and one is interrupted, whenever it is; the third
    publishes, and neither processes nor stages are left."""
    (tmp_path / "net.py").write_text(_RECIPE)
    root = tmp_path / "model repository"
    command = [sys.executable, "-m", "naiad.cli", "export", "net.py", "-r", str(root)]
    running = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process, number in zip(running, (signal.SIGKILL, signal.SIGINT), strict=False):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(1, 7))
        process.send_signal(number)
    logs = [process.communicate(timeout=150)[1] for process in running]
    assert running[0].returncode in (0, -signal.SIGKILL), logs[0]  # 0: it had published before
    assert running[1].returncode in (0, 130, -signal.SIGINT), logs[1]
    assert running[2].returncode == 0, logs[2]
    assert_servable(root)
    with Repository(root).stage():
        pass
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == [root.name, "net.py"]
    end = time.monotonic() + 30
    while left := _processes_in(tmp_path):
        assert time.monotonic() < end, left
        time.sleep(0.05)


def _processes_in(directory: Path) -> list[str]:
    """Return the command lines of the processes that run in a directory, such as a capture whose parent was killed."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == directory:
                found.append((process / "cmdline").read_text())
    return found


_RECIPE = """\
import torch

NAME = "net"
MAX_BATCH_SIZE = 4

def build():
    return torch.nn.Linear(4, 2)

def samples():
    return [(torch.zeros(4, 4),)]
"""

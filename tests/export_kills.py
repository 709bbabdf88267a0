"""Runs `export_killer.py`, which kills processes that change a repository."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import export_killer


def kills(repository: str | Path, *arguments: object) -> Iterator[str]:
    """Yield where it killed each time; the killer waits until the next one is asked for."""
    command = [sys.executable, str(export_killer.__file__), str(repository), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == 0

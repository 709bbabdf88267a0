"""How a version was made: command, code, weights and library versions, for `manifest.json`."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxruntime

from naiad.export._capture.graph import Graph
from naiad.export._source.subject import Subject


def describe(subject: Subject, graph: Graph, source: Mapping[str, object]) -> dict[str, Any]:
    """Return when, with what and from what the graph was made."""
    return making({**subject.describe(), **source}, graph.versions)


def making(source: Mapping[str, object], versions: Mapping[str, str]) -> dict[str, Any]:
    """Return when, with what and from what something was made; `versions` are those of more libraries."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "source": {
            "git_revision": _git_revision(),
            **source,
        },
        "versions": {
            "naiad": metadata.version("naiad"),
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            **versions,
        },
    }


def _git_revision() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None

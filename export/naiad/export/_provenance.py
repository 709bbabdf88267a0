"""How a version was made: command, code, weights and library versions, for `manifest.json`."""

import hashlib
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
import torch

from naiad.export._capture.capture import Graph


def describe(model: torch.nn.Module, graph: Graph, source: Mapping[str, object]) -> dict[str, Any]:
    """Return when, with what and from what the graph was made."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "source": {
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "weights_sha256": weights_sha256(model),
            "git_revision": _git_revision(),
            **source,
        },
        "versions": {
            "naiad": metadata.version("naiad"),
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            **graph.versions,
        },
    }


def weights_sha256(model: torch.nn.Module) -> str:
    """Return the hash of all parameters and buffers with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _git_revision() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None

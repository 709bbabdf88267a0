"""Whether there is room for an export, before it begins: running out after an hour helps nobody."""

import resource
import shutil
from pathlib import Path

from naiad.export.errors import OutOfSpace

_BESIDE_BYTES = 32_000_000
"""Golden pairs, warm-up data, manifest and what PyTorch writes beside the graph."""
_CANDIDATES = 6.0
"""The graph, every candidate of `--precision auto`, and what the quantiser writes meanwhile: 4.8 times the weights were
measured for int8, whose candidates are the most."""


def require(directory: Path, weights_bytes: int, *, candidates: bool, repository: str, model: str) -> None:
    """Refuse an export for which `directory`, where versions are built, has no room.

    Raises:
        OutOfSpace: The disk has too little left, or files may not be as large as the weights.
    """
    needed = int(weights_bytes * (_CANDIDATES if candidates else 1.0)) + _BESIDE_BYTES
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OutOfSpace(
            f"exporting {model} needs about {_words(needed)} in {directory.parent}, and {_words(free)} are free; free "
            "some space, or give the Repository a staging directory elsewhere",
            repository=repository,
            model=model,
        )
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and limit < weights_bytes:
        raise OutOfSpace(
            f"the weights of {model} are {_words(weights_bytes)}, and this process may write files of {_words(limit)} "
            "only; raise the limit (ulimit -f)",
            repository=repository,
            model=model,
        )


def _words(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"

"""What is finished, in one file that is written whole after every cell."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FINAL = ("done", "refused")
"""A refusal is an answer; what failed is tried again by the next call."""


def write_atomically(path: Path, text: str) -> None:
    """Put `text` at `path`, completely or not at all, whenever this process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def fingerprint(depends: Mapping[str, Any]) -> str:
    """Name what a cell depends on: the same values give the same twelve characters."""
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:12]


class State:
    """Entries by name: `status` (done, refused, failed), `depends`, `seconds`, and `result` or `reason`."""

    def __init__(self, path: Path) -> None:
        """Read the file if it is there. Raises: `ValueError` if it is something else."""
        self.path = path
        self._entries: dict[str, dict[str, Any]] = {}
        if path.exists():
            try:
                self._entries = dict(json.loads(path.read_text())["entries"])
            except (ValueError, KeyError, TypeError) as exc:
                raise ValueError(f"expected the state of an earlier call in {path}, found: {exc!r}; remove it") from exc

    def final(self, name: str, depends: str) -> bool:
        """Whether there is an answer that still holds."""
        entry = self.entry(name, depends)
        return entry is not None and entry["status"] in FINAL

    def entry(self, name: str, depends: str) -> dict[str, Any] | None:
        """Return the entry, if what it depends on is the same now."""
        entry = self._entries.get(name)
        return entry if entry is not None and entry["depends"] == depends else None

    def result(self, name: str, depends: str) -> Any:
        """Return what was found; None if there is nothing that holds."""
        entry = self.entry(name, depends)
        return None if entry is None or entry["status"] != "done" else entry["result"]

    def put(self, name: str, depends: str, status: str, *, seconds: float = 0.0, **more: Any) -> None:
        """Keep an entry, in the file too."""
        self._entries[name] = {"depends": depends, "status": status, "seconds": round(seconds, 2), **more}
        write_atomically(self.path, json.dumps({"entries": self._entries}, indent=1) + "\n")

"""The append-only record of what was published and served when: `<repository>/journal.jsonl`.

A plain file at the root is ignored by Triton and travels with the repository. An entry is written after the act it
tells of; a process killed in between leaves an act without an entry, which `previous` takes into account.
"""

import getpass
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

Action = Literal["publish", "promote", "rollback"]
_NAME = "journal.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One act on one model."""

    time: str
    """UTC, ISO 8601."""
    user: str
    action: Action
    model: str
    version: int | None
    """The version that was published; None for the other acts."""
    before: tuple[int, ...]
    """The versions served until then."""
    after: tuple[int, ...]


def append(
    root: Path,
    action: Action,
    model: str,
    *,
    version: int | None = None,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> None:
    """Add one entry in a single durable write; a line torn by a crash is closed first."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = Entry(time=time, user=_user(), action=action, model=model, version=version, before=before, after=after)
    descriptor = os.open(root / _NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (b"\n" if torn else b"") + json.dumps(asdict(entry)).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(root: Path, model: str) -> tuple[Entry, ...]:
    """Return the model's entries, oldest first; a torn line is skipped."""
    try:
        lines = (root / _NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    return tuple(entry for line in lines if (entry := _parse(line)) is not None and entry.model == model)


def previous(entries: tuple[Entry, ...], served: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the versions served before the current ones, or None when there is no earlier state.

    Every change pushes the state it replaced and a rollback pops one, so that two rollbacks go back two steps.
    """
    stack: list[tuple[int, ...]] = []
    current: tuple[int, ...] = ()
    for entry in entries:
        if entry.action == "rollback":
            if stack and stack[-1] == entry.after:
                stack.pop()
        elif entry.before and entry.before != entry.after:
            stack.append(entry.before)
        current = entry.after
    if current and current != served:  # changed by hand, or by a process killed before it could tell
        return current
    return stack[-1] if stack else None


def _parse(line: str) -> Entry | None:
    try:
        values = json.loads(line)
        values["before"], values["after"] = tuple(values["before"]), tuple(values["after"])
        return Entry(**values)
    except (ValueError, KeyError, TypeError):
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())

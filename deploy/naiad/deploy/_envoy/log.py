"""Reads the reasons for a failure out of Envoy's log."""

import re
from pathlib import Path
from typing import Final

_TAIL_BYTES: Final = 256 << 10
_TROUBLE: Final = re.compile(r"\]\[(?:warning|error|critical)\]\[[^\]]*\] (?:\[[^\]]*\] )?(.*)$")
_NOISE: Final = re.compile(r"deprecated|there is no configured limit|caught ENVOY_SIGTERM", re.IGNORECASE)
_PORT_TAKEN: Final = re.compile(r"cannot bind '[^']*:(\d+)': Address already in use|:(\d+)[^\n]*Address already in use")


def text(path: Path, start: int = 0) -> str:
    """The log from byte `start` on, at most its last 256 KiB; "" if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(start, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def size(path: Path) -> int:
    """How long the log is now, in bytes."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def essence(log: str, num_lines: int = 20) -> str:
    """What is worth showing: complaints, without times and places; else the last lines."""
    lines = log.splitlines()
    troubles = complaints(log)
    return "\n".join((troubles or lines)[-num_lines:])


def complaints(log: str) -> list[str]:
    """Warnings and errors, each once, in order."""
    found = [match[1] for line in log.splitlines() if (match := _TROUBLE.search(line))]
    return list(dict.fromkeys(complaint for complaint in found if not _NOISE.search(complaint)))


def port_taken(log: str) -> int | None:
    """The port that Envoy found in use, if it says so."""
    found = _PORT_TAKEN.search(log)
    return int(found[1] or found[2]) if found else None

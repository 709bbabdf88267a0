"""Reads the reasons for a failure out of Envoy's log."""

import re
from pathlib import Path
from typing import Final

_TAIL_BYTES: Final = 256 << 10
_LONGEST: Final = 800
_NUM_ENTRIES: Final = 20
_ENTRY: Final = re.compile(r"^(?=\[\d{4}-\d\d-\d\d )", re.MULTILINE)
_TROUBLE: Final = re.compile(
    r"\[[\d: .-]+\]\[\d+\]\[(?:warning|error|critical)\]\[[^\]]*\] (?:\[[^\]]*\] )?(.*)", re.DOTALL
)
_NOISE: Final = re.compile(r"deprecated|there is no configured limit|caught ENVOY_SIGTERM|^#\d+", re.IGNORECASE)
_MESSAGE_DUMP: Final = re.compile(r"goo\.gle/debug\w+ .*?(?=: Proto constraint)")
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


def essence(log: str) -> str:
    """What is worth showing: complaints, without times and places; else the last lines."""
    return "\n".join((complaints(log) or log.splitlines())[-_NUM_ENTRIES:])


def complaints(log: str) -> list[str]:
    """Warnings and errors, each once, in order."""
    found = [_shortened(match[1]) for entry in _ENTRY.split(log) if (match := _TROUBLE.match(entry))]
    return list(dict.fromkeys(complaint for complaint in found if not _NOISE.search(complaint)))


def port_taken(log: str) -> int | None:
    """The port that Envoy found in use, if it says so."""
    found = _PORT_TAKEN.search(log)
    return int(found[1] or found[2]) if found else None


def _shortened(message: str) -> str:
    """On one line, without the dump of the refused message; of a long one the beginning and the end."""
    message = _MESSAGE_DUMP.sub("", " ".join(message.split()))
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}"

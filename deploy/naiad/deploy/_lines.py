"""On which line of a TOML file a key stands, which ``tomllib`` does not tell."""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from typing import Any, Final

__all__ = ["line_of"]

Key = tuple[str | int, ...]
_MISSING: Final = object()


def line_of(text: str, key: Key) -> int:
    """Return the line (from 1) on which ``key``, or the last step of it that is there, is written.

    The shortest beginning of the file that parses and holds the key ends where its value does; every beginning that is
    cut within that value does not parse. So it takes no second reading of TOML, and is right for all of it. ``text``
    must be valid, with a line feed at the end of each line; this is for messages, and parses it some twenty times.
    """
    lines = text.split("\n")
    while key:
        if _reach(tomllib.loads(text), key) is not _MISSING:
            first = bisect_left(range(len(lines)), True, key=lambda end: _holds(lines, end, key))
            return first if isinstance(key[-1], str) else _element(lines, first, key)
        key = key[:-1]
    return 1


def _holds(lines: list[str], end: int, key: Key) -> bool:
    """Tell whether the shortest beginning of at least ``end`` lines that parses has ``key``."""
    for stop in range(end, len(lines) + 1):
        document = _parse("\n".join(lines[:stop]))
        if document is not None:
            return _reach(document, key) is not _MISSING
    return True


def _element(lines: list[str], first: int, key: Key) -> int:
    """Return the line of an element of an array whose value may take several, by closing it early."""
    for stop in range(first, len(lines) + 1):
        document = _parse("\n".join(lines[:stop]) + "\n]") or _parse("\n".join(lines[:stop]))
        if document is not None and _reach(document, key) is not _MISSING:
            return stop
    return first


def _parse(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _reach(document: Any, key: Key) -> Any:
    for step in key:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return document

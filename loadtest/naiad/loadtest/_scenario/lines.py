"""On which line of a TOML file each key stands, which ``tomllib`` does not tell."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

__all__ = ["Path", "key_lines"]

Path = tuple[str | int, ...]
"""The keys from the root to a value; a number is the place in an array."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")' + r"|'''.*?'{3,5}(?!')" + r'|"(?:\\.|[^"\\])*"' + r"|'[^']*'", re.DOTALL
)
_SCALAR: Final = re.compile(r"[^,\]}#\r\n]+")


def key_lines(text: str) -> dict[Path, int]:
    """Return the line (from 1) of every key, table and element of an array in ``text``, which must be valid TOML."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._lines: dict[Path, int] = {}
        self._last_line, self._counted = 1, 0
        self._num_tables: Counter[Path] = Counter()

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _header(self) -> Path:
        """Read ``[a.b]`` or ``[[a.b]]``; return the path of the table that follows."""
        many = self._text.startswith("[[", self._at)
        line = self._line()
        self._at += 1 + many
        written = self._keys()
        self._at += 1 + many
        path = self._resolve(written[:-1]) if len(written) > 1 else ()
        path = (*path, written[-1])
        if many:
            self._lines.setdefault(path, line)
            path = (*path, self._num_tables[path])
            self._num_tables[path[:-1]] += 1
        self._note(path, line)
        return path

    def _resolve(self, written: Path) -> Path:
        """Return ``written`` with the number of the latest table wherever it names an array of tables."""
        found: Path = ()
        for key in written:
            found = (*found, key)
            if isinstance(key, str) and self._num_tables[found]:
                found = (*found, self._num_tables[found] - 1)
        return found

    def _pair(self, table: Path) -> None:
        line = self._line()
        path = (*table, *self._keys())
        self._note(path, line, above=len(table))
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _keys(self) -> tuple[str, ...]:
        keys = [self._key()]
        while self._text.startswith(".", self._at):
            self._at += 1
            keys.append(self._key())
        return tuple(keys)

    def _key(self) -> str:
        self._skip(_SPACE)
        quoted = self._text[self._at] in "\"'"
        start, end = self._at, self._skip(_QUOTED if quoted else _BARE_KEY)
        self._skip(_SPACE)
        written = self._text[start:end]
        return _unquoted(written) if quoted else written

    def _value(self, path: Path) -> None:
        opening = self._text[self._at]
        if opening == "[":
            self._elements(path)
        elif opening == "{":
            self._members(path)
        else:
            self._skip(_QUOTED if opening in "\"'" else _SCALAR)

    def _elements(self, path: Path) -> None:
        self._at += 1
        number = 0
        while not self._ends("]"):
            element = (*path, number)
            self._note(element, self._line())
            self._value(element)
            number += 1

    def _members(self, path: Path) -> None:
        self._at += 1
        while not self._ends("}"):
            self._pair(path)

    def _ends(self, closing: str) -> bool:
        """Skip what lies between two values; tell whether the array or inline table is over, and leave it."""
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip(_BLANK)
        over = self._text.startswith(closing, self._at)
        self._at += over
        return over

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._at

    def _note(self, path: Path, line: int, above: int = 0) -> None:
        """Keep the line of ``path``, and of the tables above it that were named here first."""
        for length in range(above + 1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _line(self) -> int:
        self._last_line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._last_line


def _unquoted(written: str) -> str:
    import tomllib  # the one place that knows every escape

    return next(iter(tomllib.loads(f"{written} = 0")))

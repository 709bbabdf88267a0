"""Numbers and sizes in words, for the report."""

import math
from collections.abc import Mapping
from typing import Any

_UNITS = ("B", "KB", "MB", "GB", "TB")
_THOUSAND = 1000


def size(num_bytes: float) -> str:
    """Return `1.23 MB`."""
    value, unit = float(num_bytes), 0
    while value >= _THOUSAND and unit < len(_UNITS) - 1:
        value, unit = value / _THOUSAND, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.3g} {_UNITS[unit]}"


def count(number: float) -> str:
    """Return `39,018`, or `22.7 million`."""
    if number >= 1e9:
        return f"{number / 1e9:.3g} billion"
    return f"{number / 1e6:.3g} million" if number >= 1e6 else f"{number:,.0f}"


def error(value: Any) -> str:
    """Return an error with two digits; `0`, or `infinite` where a tensor had no number."""
    if value is None:
        return "–"
    number = float(value)
    if not math.isfinite(number):
        return "not a number"
    return "0" if number == 0 else f"{number:.2g}"


def cosine(value: Any) -> str:
    """Return a cosine similarity so that those near one can be told apart."""
    if value is None:
        return "–"
    number = float(value)
    return "1" if 1 - number < 1e-7 else f"{number:.7f}".rstrip("0") if 1 - number < 1e-4 else f"{number:.4f}"


def milliseconds(value: Any) -> str:
    """Return a latency with three digits and its unit."""
    return "–" if value is None else f"{float(value):.3g} ms"


def shape(dims: Any) -> str:
    """Return `[batch, 1, 8, 8]`."""
    return f"[{', '.join(map(str, dims))}]"


def plural(number: int, noun: str) -> str:
    """Return `1 case`, `2 cases`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def joined(items: Any) -> str:
    """Return `1, 2 and 8`."""
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def rows_per_s(batch: int, milliseconds_: float) -> float:
    """Return the rows that one instance answers in a second, one batch after the other."""
    return max(batch, 1) / milliseconds_ * 1e3


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as pairs of a dotted name and a text."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{name}.")
        elif value not in (None, "", [], ()):
            pairs.append((f"{prefix}{name}", str(value)))
    return pairs

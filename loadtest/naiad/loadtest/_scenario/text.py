"""How durations, precisions, shapes and the like are written, in scenario files and on the command line alike."""

from __future__ import annotations

import re
from typing import Final

from naiad.loadtest.plan import Precision

__all__ = ["read_duration", "read_named_pair", "read_named_shape", "read_pair", "read_precision", "show_duration"]

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|m|min|h|)")
_SECONDS: Final = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_PRECISION: Final = re.compile(r"p(\d+(?:\.\d+)?)\s*(?:±|\+-|\+/-|:|within)\s*(\d+(?:\.\d+)?)\s*%")
_NAMED: Final = re.compile(r"([^=]+)=(.+)", re.DOTALL)
_SIZES: Final = re.compile(r"\d+(?:x\d+)*")
_PAIR: Final = re.compile(r"\s*(-?[\d.]+(?:e[-+]?\d+)?)\s*(?:\.\.|:|…)\s*(-?[\d.]+(?:e[-+]?\d+)?)\s*", re.IGNORECASE)


def read_duration(text: str) -> float:
    """Read ``500ms``, ``30s``, ``2m``, or a plain number of seconds.

    Raises:
        ValueError: it is none; the message says what was expected, as those of all functions here do.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a duration like 30s, 500ms or 2m, found {text!r}")
    return float(match[1]) * _SECONDS[match[2]]


def show_duration(seconds: float) -> str:
    """Write a duration as :func:`read_duration` reads it."""
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


def read_precision(text: str) -> Precision:
    """Read ``p99±5%``, also written ``p99+-5%`` or ``p99:5%``."""
    match = _PRECISION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"expected a percentile and how well it must be known, like p99±5% or p99:5%, found {text!r}")
    return Precision(percentile=float(match[1]), within=float(match[2]) / 100)


def read_pair(text: str) -> tuple[float, float]:
    """Read ``LOW..HIGH``, or one number that is both."""
    low, high = _PAIR.fullmatch(text).groups() if _PAIR.fullmatch(text) else (text, text)  # type: ignore[union-attr]
    try:
        return float(low), float(high)
    except ValueError:
        raise ValueError(f"expected LOW..HIGH like 0..1, found {text!r}") from None


def read_named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``INPUT=SIZExSIZE``."""
    match = _NAMED.fullmatch(text.strip())
    if match is None or not _SIZES.fullmatch(match[2]):
        raise ValueError(f"expected INPUT=SIZExSIZE like images=3x224x224, without the batch, found {text!r}")
    return match[1], tuple(int(size) for size in match[2].split("x"))


def read_named_pair(text: str, *, whole: bool = False) -> tuple[str, tuple[float, float]]:
    """Read ``INPUT=LOW..HIGH``; whole numbers only where ``whole``."""
    match = _NAMED.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected INPUT=LOW..HIGH like ids=0..1000, found {text!r}")
    low, high = read_pair(match[2])
    if whole and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"expected whole numbers INPUT=LOW..HIGH like text=10..200, found {text!r}")
    return match[1], (int(low), int(high)) if whole else (low, high)

"""Checks of single values of the description; each says what was expected, what was found and what to do."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from naiad.deploy.errors import InvalidService

__all__ = [
    "HEADER",
    "IDENTITY",
    "LABEL",
    "MODEL",
    "PATTERN",
    "check_name",
    "check_names",
    "check_range",
    "check_release",
    "check_unique",
    "within",
    "wrong",
]

Name = tuple[re.Pattern[str], str]

LABEL: Final[Name] = (
    re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?\Z"),
    "at most 32 small letters, digits and hyphens that begin with a letter",
)
"""What may be part of a host's name, a file's and a label's."""
IDENTITY: Final[Name] = (
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}\Z"),
    "at most 64 letters, digits and any of . _ @ + - that begin with a letter or digit",
)
MODEL: Final[Name] = (
    re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z"),
    "a model's name: letters, digits, and any of _ . - that begins with none of the last two",
)
PATTERN: Final[Name] = (
    re.compile(r"[A-Za-z0-9_*][A-Za-z0-9_.*-]{0,127}\Z"),
    "a model's name, or a pattern of one with * for any characters, as in resnet*",
)

HEADER: Final[Name] = (re.compile(r"[a-z0-9-]{1,64}\Z"), "a header's name in small letters, digits and hyphens")
_RELEASE: Final = re.compile(r"(\d\d)\.(0[1-9]|1[0-2])\Z")
_FLOOR: Final = "25.07"
"""The first release without the chain of 2025 from an error message to running code (CVE-2025-23319 and its kin)."""


def wrong(expected: str, found: Any, *key: str | int, do: str = "") -> InvalidService:
    """Return the error for the value at ``key``; ``do`` says what to do about it, where that does not go without."""
    shown = {True: "true", False: "false"}[found] if isinstance(found, bool) else repr(found)
    return InvalidService(f"expected {expected}, found {shown}" + (f": {do}" if do else ""), key=key)


def check_name(value: str, kind: Name, *key: str | int) -> None:
    """Refuse a name that would not survive in a header, a file's name or a metric's label."""
    pattern, expected = kind
    if not pattern.match(value):
        raise wrong(expected, value, *key)


def check_names(values: Iterable[str], kind: Name, key: str) -> None:
    """Refuse any of ``values`` that :func:`check_name` refuses, and any that is there twice."""
    values = tuple(values)
    for number, value in enumerate(values):
        check_name(value, kind, key, number)
    check_unique(values, "each name once", key)


def check_range(
    value: float | None, key: str, *, over: float | None = None, least: float | None = None, most: float | None = None
) -> None:
    """Refuse a number that is not finite, not over ``over``, below ``least``, or over ``most``; None is allowed."""
    if value is None:
        return
    within = (
        math.isfinite(value)
        and (over is None or value > over)
        and (least is None or value >= least)
        and (most is None or value <= most)
    )
    if not within:
        raise wrong(f"a number {_bounds(over, least, most)}", value, key)


def _bounds(over: float | None, least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f"from {least:g} to {most:g}"
    low = f"over {over:g}" if over is not None else "" if least is None else f"of at least {least:g}"
    return low + ("" if most is None else f" and at most {most:g}")


def check_release(value: str) -> None:
    """Refuse what is no release of the container, and releases with holes that strangers can use."""
    if not _RELEASE.match(value):
        raise wrong(f"a release of NVIDIA's container of the form YY.MM, as {_FLOOR}", value, "release")
    if value < _FLOOR:
        raise wrong(f"release {_FLOOR} or later", value, "release", do="earlier ones let callers run code of theirs")


def check_unique(values: Iterable[Hashable], expected: str, *key: str | int, last: str = "") -> None:
    """Refuse a value that is there twice; ``last`` is the field of the element that holds it."""
    seen: set[Hashable] = set()
    for number, value in enumerate(values):
        if value in seen:
            raise wrong(expected, value, *key, number, *((last,) if last else ()), do="it is there twice")
        seen.add(value)


@contextmanager
def within(*key: str | int) -> Iterator[None]:
    """Put ``key`` in front of the key that an error is about."""
    try:
        yield
    except InvalidService as exc:
        raise InvalidService(exc.reason, key=(*key, *exc.key)) from exc

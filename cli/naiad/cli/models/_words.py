"""Sizes, ages and hashes as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ((365 * 86400, "year"), (30 * 86400, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


def size(size_bytes: int | None) -> str:
    """Return `2.9 kB`, `47 MB`; nothing where it is not known."""
    if size_bytes is None:
        return ""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.2g} {unit}"


def age(created: str | None) -> str:
    """Return `3 hours ago` for a time in ISO 8601; nothing where it is not known."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(created or "")).total_seconds()
    except (ValueError, TypeError):
        return created or ""
    for length, unit in _UNITS:
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit}{'s' * (number > 1)} ago"
    return "just now" if seconds >= 0 else "in the future"


def time(created: str) -> str:
    """Return `2026-05-04 13:37` for a time in ISO 8601, in UTC."""
    return created[:16].replace("T", " ")

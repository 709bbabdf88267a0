"""Sizes of memory as people write them."""

from __future__ import annotations

import re
from typing import Final

import typer

__all__ = ["parse_size"]

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str) -> int:
    """Return the bytes of "512MB" (10^6), "2GiB" (2^30) or "1048576"."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or (found[3] and not found[2]):
        raise typer.BadParameter(f"expected a size such as 512MB, 2GiB or a number of bytes, found {text!r}")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].upper()])

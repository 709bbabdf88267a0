"""What every command prints through: results on stdout, everything about them on stderr."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print ``value`` as one JSON document on stdout, for programs; it has no colour and is never wrapped."""
    out.print(json.dumps(value, indent=2, default=str, ensure_ascii=False), markup=False)


def print_error(message: str) -> None:
    """Print one error on stderr, as it is."""
    err.print("[bold red]error:[/] ", end="")
    err.print(message, markup=False)

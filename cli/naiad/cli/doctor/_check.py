"""One line of the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "works"]

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What was looked for, and what was found."""

    name: str
    state: State
    """"missing" is what a machine may well lack, "broken" is what is there and does not work."""
    found: str
    advice: str = ""
    """What to do where it is not ok."""
    essential: bool = False
    """Whether its group is of no use without it."""


def works(checks: Iterable[Check]) -> bool:
    """Whether what a group is for can be done here."""
    return all(check.state == "ok" or (check.state == "missing" and not check.essential) for check in checks)

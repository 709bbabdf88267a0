"""What a sweep varies, and the values it takes: ``users=1..256``, ``rate=100..2000:8``, ``batch=1,4,16``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, cast

from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.plan import MAX_RATE_PER_S, MAX_USERS, LoadTest, Rate, Users

__all__ = ["Axis", "parse_axis"]

Variable = Literal["users", "rate", "batch"]

MAX_POINTS: Final = 64
_LARGEST: Final[dict[str, float]] = {"users": MAX_USERS, "rate": MAX_RATE_PER_S, "batch": 1_000_000}
_NUM_RATES: Final = 8
_NUMBER: Final = r"\d+(?:\.\d+)?"
_RANGE: Final = re.compile(
    rf"(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})(?::(?P<num>\d+))?(?::(?P<spacing>linear|geometric))?"
)
_EXAMPLES: Final = 'expected a sweep like "users=1..256", "users=1,2,4,8", "rate=100..2000:8" or "batch=1..32"'


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A variable and its values, ascending."""

    variable: Variable
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.variable not in _LARGEST:
            raise InvalidPlan(f"{_EXAMPLES}, found the variable {self.variable!r}")
        if not 1 <= len(self.values) <= MAX_POINTS:
            raise InvalidPlan(f"a sweep has 1 to {MAX_POINTS} values, found {len(self.values)}")
        for value in self.values:
            _check(self.variable, value)
        if any(a >= b for a, b in zip(self.values, self.values[1:], strict=False)):
            raise InvalidPlan(f"the values of a sweep ascend, found {', '.join(f'{value:g}' for value in self.values)}")

    def at(self, test: LoadTest, value: float) -> LoadTest:
        """Return ``test`` with the variable at ``value``; all else stays as it is."""
        if self.variable == "users":
            return replace(test, load=Users(users=round(value)))
        if self.variable == "rate":
            given = test.load if isinstance(test.load, Rate) else Rate(per_s=value)
            return replace(test, load=replace(given, per_s=value))
        return replace(test, traffic=tuple(replace(each, batch=round(value)) for each in test.mix))


def parse_axis(text: str) -> Axis:
    """Read ``VARIABLE=VALUES``: the values with commas between them, or ``LOW..HIGH``.

    A range of users or rows doubles from its low to its high end; one of rates has 8 steps of equal ratios. ``:12``
    after it asks for twelve values, ``:12:linear`` for equal distances.

    Raises:
        InvalidPlan: it is none of these, or a value is out of range.
    """
    name, equals, values = "".join(text.split()).removesuffix("/s").partition("=")
    if not equals or name not in _LARGEST:
        raise InvalidPlan(f"{_EXAMPLES}, found {text!r}")
    variable = cast(Variable, name)
    match = _RANGE.fullmatch(values)
    if match is not None:
        return Axis(variable=variable, values=_spread(variable, match, text))
    if not all(re.fullmatch(_NUMBER, part) for part in values.split(",")):
        raise InvalidPlan(f"{_EXAMPLES}, found {text!r}")
    return Axis(variable=variable, values=tuple(sorted({float(part) for part in values.split(",")})))


def _spread(variable: Variable, match: re.Match[str], text: str) -> tuple[float, ...]:
    low, high = float(match["low"]), float(match["high"])
    if not 0 < low < high:
        raise InvalidPlan(f"a range goes from a low to a high value above 0, found {text!r}")
    num = int(match["num"]) if match["num"] else None
    if num is not None and not 2 <= num <= MAX_POINTS:
        raise InvalidPlan(f"a range has 2 to {MAX_POINTS} values, found {text!r}")
    for value in (low, high):
        _check(variable, value)
    if match["spacing"] == "linear":
        values = [low + (high - low) * step / ((num or _NUM_RATES) - 1) for step in range(num or _NUM_RATES)]
    elif num is None and variable != "rate":
        values = list(_doubling(low, high))
    else:
        steps = (num or _NUM_RATES) - 1
        values = [low * (high / low) ** (step / steps) for step in range(steps + 1)]
    rounded = (_rounded(value) if variable == "rate" else float(round(value)) for value in values)
    return tuple(sorted(set(rounded)))


def _doubling(low: float, high: float) -> Iterator[float]:
    value = low
    while value < high:
        yield value
        value *= 2
    yield high


def _rounded(value: float) -> float:
    """Keep three digits: nobody needs 333.3333 requests per second."""
    return float(f"{value:.3g}")


def _check(variable: Variable, value: float) -> None:
    whole = variable != "rate"
    if not 0 < value <= _LARGEST[variable] or (whole and value != math.floor(value)):
        kind = "whole numbers from 1" if whole else "numbers above 0"
        raise InvalidPlan(f"{variable} takes {kind} to {_LARGEST[variable]:,.0f}, found {value:g}")

"""What the gallery has: one module of ``systems`` for each, with a ``SYSTEM`` that says what it is and runs it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage

__all__ = ["NAMES", "System", "find_system", "other_recipes"]

NAMES: Final = (
    "digits",
    "linear_regression",
    "dense",
    "mnist",
    "text_classifier",
    "multi_model",
    "embeddings",
    "pitch",
    "board_game",
)
"""In the order of the list: from the smallest to what needs most explaining."""


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """A model, or several, served for a purpose."""

    name: str
    title: str
    """What it does, in a line."""
    shows: tuple[str, ...]
    """What of Naiad is to be seen on it."""
    recipes: tuple[str, ...]
    about_s: int
    """Roughly how long it takes on two cores, without what is fetched the first time."""
    run: Callable[[Stage], None]
    options: Mapping[str, str] = field(default_factory=dict)
    """What ``--option NAME=VALUE`` may be given, and what for."""


def find_system(name: str) -> System:
    """Return a system of the gallery; the name or file of any other recipe gives one that does what all have in common.

    Raises:
        LookupError: there is none of that name; the message says which there are.
    """
    if name in NAMES:
        system: System = importlib.import_module(f"naiad.cli.demo.systems.{name}").SYSTEM
        return system
    from naiad.cli.demo.systems import any_recipe
    from naiad.export import RecipeNotFound, find_recipe

    try:
        return any_recipe.system_of(find_recipe(name))
    except RecipeNotFound:
        known = (*NAMES, *other_recipes())
        near = get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise LookupError(f"expected one of {', '.join(known)}, or a recipe's file; found {name!r}{hint}") from None


def other_recipes() -> tuple[str, ...]:
    """Return the recipes that come with Naiad and belong to no system of the gallery."""
    from naiad.export.recipe import shipped

    used = {recipe for name in NAMES for recipe in find_system(name).recipes}
    return tuple(name for name in shipped() if name not in used and name not in NAMES)

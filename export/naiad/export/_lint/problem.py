"""What a rule says of an entry, before the linter adds which rule and which model."""

from dataclasses import dataclass
from pathlib import Path

from naiad.export.report import LintEffect

CONFIG = "config.pbtxt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong, or that is easily taken for something else."""

    effect: LintEffect
    field: str
    message: str
    fix: str
    file: str = CONFIG


def fails(field: str, message: str, fix: str, *, file: str | Path = CONFIG) -> Problem:
    """The model would not load."""
    return Problem(effect="does not load", field=field, message=message, fix=fix, file=str(file))


def fails_on_gpu(field: str, message: str, fix: str) -> Problem:
    """The model would not load on a machine with a GPU, where its instances use it."""
    return Problem(effect="does not load on a GPU", field=field, message=message, fix=fix)


def wrong(field: str, message: str, fix: str, *, file: str | Path = CONFIG) -> Problem:
    """The model would load, and not do what the entry says."""
    return Problem(effect="served wrongly", field=field, message=message, fix=fix, file=str(file))


def needs_gpu(field: str, message: str, fix: str) -> Problem:
    """The model would not load on a machine without that GPU."""
    return Problem(effect="needs a GPU", field=field, message=message, fix=fix)


def not_embedded(field: str, message: str, fix: str) -> Problem:
    """The model would load in NVIDIA's container, and `naiad serve` refuses it."""
    return Problem(effect="not with naiad serve", field=field, message=message, fix=fix)


def advice(field: str, message: str, fix: str, *, file: str | Path = CONFIG) -> Problem:
    """The model would load, and something is probably not as meant."""
    return Problem(effect="advice", field=field, message=message, fix=fix, file=str(file))

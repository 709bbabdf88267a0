"""Names of models and numbers of versions, as Triton reads them."""

import re
from collections.abc import Iterable

from naiad.export.errors import InvalidName

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_NUMBER_PREFIX = re.compile(r"[0-9]{1,9}")


def check_name(model: str) -> str:
    """Return `model` when it is a safe model name.

    Raises:
        InvalidName: It has other characters than letters, digits, `_`, `.` and `-`, or begins with `.` or `-`.
    """
    if not _NAME.fullmatch(model):
        raise InvalidName(
            f"{model!r} is not a model name: expected letters, digits, '_', '.' and '-', beginning with a letter, "
            "a digit or '_', at most 128 in all",
            model=model,
        )
    return model


def versions(directories: Iterable[str]) -> tuple[int, ...]:
    """Return the numbers of the directories that Triton takes for versions, ascending."""
    return tuple(sorted(int(name) for name in directories if _NUMBER.fullmatch(name)))


def next_number(names: Iterable[str], recorded: Iterable[int]) -> int:
    """Return the first number that no entry of a model's directory has, and no earlier version had.

    Triton reads `3.tmp` as version 3, so anything that begins with a number takes that number.
    """
    taken = [int(match.group()) for name in names if (match := _NUMBER_PREFIX.match(name))]
    return max([0, *taken, *recorded]) + 1

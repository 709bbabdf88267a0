"""Version directories as Triton reads them.

A name is read up to the first character that is not part of a number (`3.tmp` is version 3), names that begin with a
zero are left out, and the files are then looked for under the number itself. Source: `model_lifecycle.cc` of Triton's
core, and runs of 2.51.0.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPECIAL = frozenset({"warmup", "initial_state", "configs"})
"""Directories of a model that are no versions."""
MAX_NUMBER = 2**63 - 1
_NUMBER_PREFIX = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionName:
    """A directory inside a model's directory, and the version that Triton takes it for."""

    name: str
    number: int | None
    """None where Triton ignores the directory."""

    @property
    def exact(self) -> bool:
        """Whether the number's own files are in this directory."""
        return self.name == str(self.number)

    @property
    def overflows(self) -> bool:
        """Whether the number is too large to be read, which ends the server."""
        return self.number is not None and not -MAX_NUMBER - 1 <= self.number <= MAX_NUMBER


def read(model: Path) -> tuple[VersionName, ...]:
    """Return the directories in a model's directory, sorted by name."""
    names = sorted(path.name for path in model.iterdir() if path.is_dir())
    return tuple(VersionName(name=name, number=number_of(name)) for name in names if name not in SPECIAL)


def number_of(name: str) -> int | None:
    """Return the version that Triton takes a directory for."""
    match = _NUMBER_PREFIX.match(name)
    if match is None or (len(name) > 1 and name.startswith("0")):
        return None
    return int(match[1])


def served(policy: Any, names: tuple[VersionName, ...]) -> tuple[int, ...]:
    """Return the versions that a `version_policy` would serve, ascending."""
    existing = sorted({each.number for each in names if each.number is not None and not each.overflows})
    match policy.WhichOneof("policy_choice"):
        case "specific":
            return tuple(number for number in existing if number in policy.specific.versions)
        case "all":
            return tuple(existing)
        case "latest":
            newest = existing[::-1][
                : policy.latest.num_versions
            ]  # 0, which is also what `latest {}` means, serves none
            return tuple(newest[::-1])
        case _:
            return tuple(existing[-1:])

"""Which models a script calls, at which versions: recorded in its version, and named in its configuration.

A version's `calls.json` is what its process reads, so that an old script calls the old models, also while a newer one
is served beside it. The configuration's parameter is for those who look on: the linter, the launcher, the load test.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = "calls.json"
PARAMETER: Final = "naiad.calls"
"""`name:version`, separated by commas: every model that a served version of the script may call."""
OPTIONAL: Final = "naiad.optional_calls"
"""The names of those that it does without, separated by commas."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Call:
    """A model that a script calls."""

    model: str
    version: int
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.model}:{self.version}"


def wire(files: Path, numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """Write the versions that a script is to call into the files of its own; empty for what is no script.

    Returns:
        The calls as its manifest records them.
    """
    path = files / FILE
    if not path.is_file():
        return []
    calls = json.loads(path.read_text(encoding="utf-8"))
    for about in calls.values():
        about["version"] = numbers[about["model"]]
    path.write_text(json.dumps(calls, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [
        {"step": step, **{name: about[name] for name in ("model", "version", "optional")}}
        for step, about in calls.items()
    ]


def staged(files: Path, number: int) -> tuple[Call, ...]:
    """Return what the script in these files will call, as if each were that version; empty for what is no script."""
    path = files / FILE
    calls = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return tuple(Call(model=each["model"], version=number, optional=each["optional"]) for each in calls.values())


def recorded(manifest: Mapping[str, Any] | None) -> tuple[Call, ...]:
    """Return what a version calls, as its manifest says; empty for what is no script."""
    step = (manifest or {}).get("step")
    calls = step.get("calls", ()) if isinstance(step, Mapping) else ()
    return tuple(
        Call(model=each["model"], version=int(each["version"]), optional=bool(each["optional"])) for each in calls
    )


def describe(config: Any, calls: Iterable[Call]) -> None:
    """Name the calls of a script in its configuration."""
    distinct = sorted(set(calls))
    config.parameters[PARAMETER].string_value = ",".join(map(str, distinct))
    optional = ",".join(dict.fromkeys(call.model for call in distinct if call.optional))
    if optional:
        config.parameters[OPTIONAL].string_value = optional
    elif OPTIONAL in config.parameters:
        del config.parameters[OPTIONAL]


def described(config: Any) -> tuple[Call, ...]:
    """Return the calls that a configuration names.

    Raises:
        ValueError: They are written in another way.
    """
    text = config.parameters[PARAMETER].string_value if PARAMETER in config.parameters else ""
    optional = config.parameters[OPTIONAL].string_value.split(",") if OPTIONAL in config.parameters else []
    found = []
    for part in text.split(",") if text else ():
        model, colon, version = part.strip().rpartition(":")
        if not colon or not model or not version.isdecimal():
            raise ValueError(f"expected NAME:VERSION, separated by commas, found {part.strip()!r}")
        found.append(Call(model=model, version=int(version), optional=model in optional))
    return tuple(found)

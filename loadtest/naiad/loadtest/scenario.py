"""Scenarios: load tests worth repeating, as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from naiad.loadtest._scenario.building import build_test
from naiad.loadtest._scenario.settings import Settings
from naiad.loadtest.errors import InvalidScenario
from naiad.loadtest.plan import LoadTest

__all__ = ["Scenario", "find_scenario"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """A load test, what is varied in it, and where its results go."""

    test: LoadTest
    sweep: str | None = None
    """Several runs: ``users=1..256`` or ``rate=100..2000:8``."""
    find_max: str | None = None
    """Look for the highest load that keeps this objective."""
    html: Path | None = None
    json: Path | None = None
    csv: Path | None = None
    baseline: Path | None = None
    """Fail when the run is worse than the one stored here."""
    margin: float | None = None
    """How much worse is still no regression, as a fraction."""
    any_machine: bool = False
    """Accept a baseline of another machine."""
    save_baseline: Path | None = None
    """Written if the run passes."""
    history: Path | None = None
    """Earlier runs, to which this one is added."""
    label: str = ""
    """What the history calls this run."""
    path: Path | None = None
    """The file it was read from."""
    text: str = ""
    """The file as it was."""

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a scenario file; relative paths in it lead from its folder.

        Raises:
            InvalidScenario: it is none. The message has file, line and key, what was expected and what was found.
        """
        return cls.of(Settings.read(Path(path)))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make a scenario of settings that were read, and maybe overridden by options."""
        values = settings.values
        report: Mapping[str, Any] = values.get("report", {})
        sweep: Mapping[str, str] = values.get("sweep", {})
        ranges = [f"{name}={sweep[name]}" for name in ("users", "rate", "batch") if name in sweep]
        if len(ranges) + ("find-max" in sweep) > 1:
            raise settings.error(
                ("sweep", list(sweep)[-1]), "expected one of users, rate, batch and find-max, found several"
            )
        margin = report.get("margin")
        return cls(
            test=build_test(settings),
            sweep=ranges[0] if ranges else None,
            find_max=sweep.get("find-max"),
            margin=None if margin is None else margin / 100,
            any_machine=report.get("any-machine", False),
            **{name: report.get(name) for name in ("html", "json", "csv", "baseline", "history")},
            save_baseline=report.get("save-baseline"),
            label=report.get("label", ""),
            path=settings.path,
            text=settings.text,
        )


def find_scenario(name: Path | str) -> Path:
    """Return a scenario file: a path, or the name of one that comes with Naiad, such as ``gallery/dense.toml``.

    Raises:
        InvalidScenario: there is neither.
    """
    for folder in (Path(), *_folders()):
        if _is_file(folder / name):
            return folder / name
    known = sorted(path.relative_to(folder).as_posix() for folder in _folders() for path in folder.rglob("*.toml"))
    raise InvalidScenario(
        f"expected the path of a scenario file, or one of {', '.join(known)}; found {str(name)!r}", path=str(name)
    )


def _is_file(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()  # a pipe will do
    except OSError:  # a name that is too long, a folder that is closed to us
        return False


def _folders() -> tuple[Path, ...]:
    """In a wheel they lie beside this file, in a checkout beside the room's packages."""
    here = Path(__file__).resolve().parent
    installed, checkout = here / "scenarios", here.parents[1] / "scenarios"
    return tuple(folder for folder in (installed if installed.is_dir() else checkout,) if folder.is_dir())

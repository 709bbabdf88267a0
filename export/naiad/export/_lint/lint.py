"""The linter: what a Triton server would say of a repository, without the server."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from naiad.export._check.targets import Target, find_target
from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import CONFIG
from naiad.export._lint.rules import CONFIGURATION, FILES, Rule, name_of
from naiad.export.errors import ModelNotFound
from naiad.export.report import LintFinding


def lint(
    path: str | os.PathLike[str],
    *,
    target: str | Target | None = None,
    auto_complete: bool = False,
) -> tuple[LintFinding, ...]:
    """Check entries of a model repository by the load rules of Triton and of NVIDIA's onnxruntime backend.

    Args:
        path: A repository, or the directory of one model.
        target: The Triton release that is to serve them, such as "26.07".
        auto_complete: The server completes configurations from the model's file, as NVIDIA's containers do unless they
            are told not to. Naiad's embedded server does not.

    Raises:
        ModelNotFound: There is no such directory or model.
        InvalidExport: The release is unknown.
    """
    directory = Path(path).absolute()
    if directory.is_dir() and _is_entry(directory):
        return lint_repository(directory.parent, (directory.name,), target=target, auto_complete=auto_complete)
    return lint_repository(directory, target=target, auto_complete=auto_complete)


def lint_repository(
    directory: Path,
    models: Sequence[str] = (),
    *,
    target: str | Target | None = None,
    auto_complete: bool = False,
) -> tuple[LintFinding, ...]:
    """Check some models of a repository, or all; see `lint`."""
    chosen = find_target(target)
    if not directory.is_dir():
        raise ModelNotFound(f"there is no directory {directory}; name a model repository or a model in one")
    return tuple(_Repository(directory, chosen, auto_complete).findings(models))


def _is_entry(directory: Path) -> bool:
    if (directory / CONFIG).exists():
        return True
    children = [path for path in directory.iterdir() if path.is_dir()]
    return not any((path / CONFIG).exists() for path in children) and any(path.name.isdigit() for path in children)


class _Repository:
    """The entries of one directory, each read once."""

    def __init__(self, path: Path, target: Target, auto_complete: bool) -> None:
        self._path, self._target, self._auto_complete = path, target, auto_complete
        self._entries: dict[str, Entry | None] = {}

    def entry(self, name: str) -> Entry | None:
        """Return an entry; None where there is no directory of that name."""
        if name not in self._entries:
            there = bool(name) and "/" not in name and (self._path / name).is_dir()
            entry = Entry(self._path / name, target=self._target, auto_complete=self._auto_complete, sibling=self.entry)
            self._entries[name] = entry if there else None
        return self._entries[name]

    def require(self, name: str) -> Entry:
        entry = self.entry(name)
        if entry is None:
            known = ", ".join(self._names()) or "none"
            raise ModelNotFound(f"there is no model {name!r} in {self._path}; it has: {known}", model=name)
        return entry

    def findings(self, models: Sequence[str]) -> Iterator[LintFinding]:
        for name in models or self._names():
            yield from _lint_entry(self.require(name))

    def _names(self) -> list[str]:
        # Triton takes every directory for a model, so that none may be passed over here.
        return sorted(path.name for path in self._path.iterdir() if path.is_dir())


def _lint_entry(entry: Entry) -> Iterator[LintFinding]:
    yield from _apply(entry, FILES)
    if entry.config is None:
        return
    yield from _apply(entry, CONFIGURATION)
    yield from _broken_steps(entry)


def _apply(entry: Entry, rules: Iterable[Rule]) -> Iterator[LintFinding]:
    for rule in rules:
        for problem in rule(entry):
            if problem.effect == "does not load on a GPU" and not entry.may_use_gpu:
                continue
            yield LintFinding(
                rule=name_of(rule),
                effect=problem.effect,
                model=entry.name,
                file=problem.file,
                field=problem.field,
                message=problem.message,
                fix=problem.fix,
            )


def _broken_steps(entry: Entry, path: tuple[str, ...] = ()) -> Iterator[LintFinding]:
    """An ensemble does not load where one of its models does not."""
    for index, step in enumerate(entry.config.ensemble_scheduling.step):
        other = entry.sibling(step.model_name)
        if other is None or step.model_name in (*path, entry.name):
            continue
        for effect in dict.fromkeys(found.effect for found in _first_failures(other)):
            yield LintFinding(
                rule="ensemble.models_that_load",
                effect=effect,
                model=entry.name,
                file=CONFIG,
                field=f"ensemble_scheduling.step[{index}].model_name",
                message=f"{step.model_name} itself: {effect}",
                fix=f"see the findings of {step.model_name}",
            )


def _first_failures(entry: Entry) -> Iterator[LintFinding]:
    passes_on = ("stops the server", "does not load", "does not load on a GPU", "needs a GPU", "not with naiad serve")
    for found in (*_apply(entry, FILES), *(_apply(entry, CONFIGURATION) if entry.config is not None else ())):
        if found.effect in passes_on:
            yield found

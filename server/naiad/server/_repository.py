"""Looks at a model repository before Triton does, and refuses what Triton mistreats."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from naiad.server._policy import check_python_files
from naiad.server.errors import RepositoryError, RepositoryNotFound, UnknownModel, UnsafeName

_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_VERSION: Final = re.compile(r"0|[1-9][0-9]*")
_LARGEST_VERSION: Final = 2**63 - 1

Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """What of a model's directory decides whether it has to be loaded again."""

    signature: Signature
    """Path below the model's directory, modification time in ns and size of each file that Triton reads."""


def check(repository: str | os.PathLike[str]) -> Path:
    """The absolute path of a directory that can be read.

    Raises: `RepositoryNotFound`, `RepositoryError`.
    """
    path = Path(repository).expanduser().absolute()
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise RepositoryNotFound(
            f"Expected a model repository (a directory) at {path}, found {found}. "
            "Publish a model there first (`naiad export`), or name another directory.",
            repository=path,
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise RepositoryError(
            f"Expected a readable model repository at {path}, but this user may not list it. Change its permissions.",
            repository=path,
        )
    return path


def select(repository: Path, named: Sequence[str] | None) -> tuple[str, ...]:
    """The models to load: those named, or all that the repository holds; every name is safe for Triton.

    Raises: `UnknownModel`, `UnsafeName`.
    """
    if named is None:
        chosen = models_in(repository)
    else:
        chosen = tuple(dict.fromkeys(named))
        for model in chosen:
            _check_known(repository, model)
    for model in chosen:
        check_model(repository, model)
    return chosen


def models_in(repository: Path) -> tuple[str, ...]:
    """Names of all directories that hold a configuration or a version; hidden ones are no models."""
    entries = (entry for entry in _entries(repository) if not entry.name.startswith(".") and entry.is_dir())
    return tuple(sorted(entry.name for entry in entries if _is_model(Path(entry.path))))


def check_model_name(model: str, repository: Path | None = None) -> None:
    """Raise `UnsafeName` for a name that this Triton would hand to a shell as it is."""
    if not _MODEL_NAME.fullmatch(model) or model.startswith("."):
        raise UnsafeName(
            f"Expected a model name of letters, digits, '_', '-' and '.' that does not start with '.', found "
            f"{model!r}. Rename its directory and the name in its config.pbtxt.",
            repository=repository,
            model=model,
        )


def check_model(repository: Path, model: str) -> None:
    """Raise `UnsafeName` or `RepositoryError` for what of a model makes Triton misbehave instead of refusing it."""
    check_model_name(model, repository)
    names = [entry.name for entry in _entries(repository / model) if entry.is_dir()]
    for name in names:
        check_version(repository, model, name)
    check_python_files(repository / model, [int(name) for name in names if _VERSION.fullmatch(name)])


def files_of(repository: Path, model: str) -> ModelFiles:
    """What the model's directory holds now. Raises `OSError` when it is gone."""
    directory = repository / model
    found = []
    for entry in _entries(directory):
        if entry.is_file():
            found.append(_stamp(entry, ""))
        elif _VERSION.fullmatch(entry.name):
            found += [_stamp(file, f"{entry.name}/") for file in _entries(entry.path) if file.is_file()]
    return ModelFiles(signature=tuple(sorted(found)))


def _entries(directory: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except PermissionError as exc:
        raise RepositoryError(
            f"Expected a readable directory at {directory}, but this user may not list it. Change its permissions, or "
            "name the models to serve.",
            repository=Path(directory).parent,
        ) from exc


def _stamp(entry: os.DirEntry[str], folder: str) -> tuple[str, int, int]:
    info = entry.stat()
    return f"{folder}{entry.name}", info.st_mtime_ns, info.st_size


def _is_model(directory: Path) -> bool:
    return (directory / "config.pbtxt").is_file() or any(
        entry.is_dir() and entry.name[:1].isdigit() for entry in _entries(directory)
    )


def _check_known(repository: Path, model: str) -> None:
    check_model_name(model, repository)
    if not (repository / model).is_dir():
        known = ", ".join(models_in(repository)) or "no models"
        raise UnknownModel(
            f"Expected model {model!r} in {repository}, found {known}.", repository=repository, model=model
        )


def check_version(repository: Path | str, model: str, name: str) -> None:
    """Raise `UnsafeName` for a version directory that Triton would misread."""
    if _VERSION.fullmatch(name):
        if int(name) > _LARGEST_VERSION:
            _refuse_version(repository, model, name, "such a number aborts Triton")
    elif name.isdigit():
        return  # leading zeros: Triton ignores it
    elif re.match(r"\s*[+-]?\d", name):
        _refuse_version(repository, model, name, "Triton would serve it under the number it starts with")


def _refuse_version(repository: Path | str, model: str, name: str, why: str) -> None:
    raise UnsafeName(
        f"Expected version directories of model {model!r} to be plain numbers up to {_LARGEST_VERSION}, found "
        f"{name!r} in {repository}/{model}: {why}. Rename it or move it out of the repository.",
        repository=repository if isinstance(repository, Path) else None,
        model=model,
    )

"""A repository in a directory: versions are built beside it, and renamed in."""

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from naiad.export._repository import config as _config
from naiad.export._repository import durable as _durable
from naiad.export._repository import manifest as _manifest
from naiad.export._repository import names as _names
from naiad.export._repository import stage as _stage
from naiad.export._repository.store import Change
from naiad.export.errors import NotWritable

_REMOVED = "removed"


class LocalStore:
    """A directory, its lock, and the place beside it where versions are built."""

    def __init__(self, root: Path, *, staging: Path | None = None) -> None:
        self._root = root.resolve()
        self.location = str(self._root)
        self._staging = staging.resolve() if staging else self.path.parent / f".{self.path.name}.staging"

    @property
    def path(self) -> Path:
        return self._root

    def translated(self, model: str | None = None) -> contextlib.AbstractContextManager[None]:
        return _durable.translated(self.path, model)

    def exists(self) -> bool:
        return self.path.is_dir()

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(path.parent.name for path in self.path.glob(f"*/{_config.FILE}")))

    def versions(self, model: str) -> tuple[int, ...]:
        return _names.versions(path.name for path in (self.path / model).iterdir() if path.is_dir())

    def is_empty(self, model: str) -> bool:
        directory = self.path / model
        return not directory.exists() or not any(directory.iterdir())

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def digests(self, model: str, number: int) -> Mapping[str, str]:
        return _manifest.digests(self.path / model / str(number))

    @contextlib.contextmanager
    def files(self, model: str, number: int, names: Collection[str] | None = None) -> Iterator[Path]:
        del names  # all are here
        yield self.path / model / str(number)

    @contextlib.contextmanager
    def mirror(self, models: Collection[str] = ()) -> Iterator[Path]:
        del models  # all are here
        yield self._root

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        self.path.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path.parent, os.W_OK) and not self._staging.is_dir():
            raise NotWritable(
                f"versions are built in {self._staging}, beside the repository, and {self._staging.parent} is not "
                "writable; create that directory, or name a staging directory on the same file system",
                repository=self.path,
            )
        with _stage.stage(self.path, self._staging) as path:
            yield path

    def locked(self) -> contextlib.AbstractContextManager[None]:
        return _stage.locked(self.path)

    @contextlib.contextmanager
    def reserve(self, model: str, recorded: Callable[[], Iterable[int]]) -> Iterator[int]:
        with self.locked():
            directory = self.path / model
            names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
            yield _names.next_number(names, recorded())

    def publishing(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # `reserve` has the lock

    def upload(self, model: str, number: int, files: Path) -> None:
        del model, number
        _durable.sync_tree(files)

    def add_model(self, model: str, number: int, files: Path, shared: Path) -> None:
        whole = files.parent / "model"
        shutil.copytree(shared, whole)
        files.rename(whole / str(number))
        _durable.sync_tree(whole)
        whole.rename(self.path / model)
        _durable.sync_directory(self.path)

    def add_version(self, model: str, number: int, files: Path, config: Change | None) -> None:
        directory = self.path / model
        # Written before the version comes in, so that a full disk is known in time.
        prepared = self._prepare(config, files.parent) if config else None
        files.rename(directory / str(number))
        if prepared is not None:
            prepared.replace(directory / _config.FILE)
        _durable.sync_directory(directory)

    def change_config(self, model: str, config: Change, stage: Path) -> None:
        self._prepare(config, stage).replace(self.path / model / _config.FILE)
        _durable.sync_directory(self.path / model)

    def add_file(self, name: str, data: bytes, stage: Path) -> None:
        target, prepared = self.path / name, stage / name.replace("/", ".")
        prepared.unlink(missing_ok=True)
        _durable.write_new(prepared, data)
        prepared.replace(target)
        _durable.sync_directory(target.parent)

    def remove_version(self, model: str, number: int, stage: Path) -> None:
        (self.path / model / str(number)).rename(stage / f"{_REMOVED}-{model}-{number}")
        _durable.sync_directory(self.path / model)
        shutil.rmtree(stage / f"{_REMOVED}-{model}-{number}", ignore_errors=True)

    def append(self, name: str, line: Callable[[bytes], bytes]) -> None:
        _durable.append_line(self.path / name, line(self.read(name) or b""))

    def _prepare(self, config: Change, stage: Path) -> Path:
        prepared = stage / _config.FILE
        prepared.unlink(missing_ok=True)
        _durable.write_new(prepared, config.after)
        return prepared

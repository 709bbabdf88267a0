"""The seam between what a repository means and where its files are: a directory, or a bucket.

Names are relative to the repository and have `/` between their parts: `digits/config.pbtxt`. A store knows files,
versions and locks; what is served, what a manifest says and what a promotion is are the same for every store.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from naiad.export.errors import InvalidName, RepositoryError


class Changed(RepositoryError):
    """Another process replaced the file first: read it again, and decide again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A model's configuration, to be replaced if it still is what the decision was based on."""

    before: bytes
    after: bytes


class Store(Protocol):
    """The files of one repository. Reading needs no lock; every change is whole or absent, also after a kill."""

    location: str
    """Its path or URL, for messages."""

    @property
    def path(self) -> Path | None:
        """Its directory; None where it is not on a file system."""

    def translated(self, model: str | None = None) -> AbstractContextManager[None]:
        """Turn the errors of the system beneath into those of `naiad.export.errors`."""

    def exists(self) -> bool:
        """Whether there is a repository; one without models is one."""

    def models(self) -> tuple[str, ...]:
        """Return the names of the models that have a configuration, sorted."""

    def versions(self, model: str) -> tuple[int, ...]:
        """Return the numbers of a model's whole versions, ascending."""

    def is_empty(self, model: str) -> bool:
        """Whether nothing at all has the model's name."""

    def read(self, name: str) -> bytes | None:
        """Return a small file, or None where there is none."""

    def digests(self, model: str, number: int) -> Mapping[str, str]:
        """Return the SHA-256 of every file of a version, by its name within the version."""

    def files(self, model: str, number: int, names: Collection[str] | None = None) -> AbstractContextManager[Path]:
        """Give a directory with the version's files, or those of `names` that there are; not to be written to."""

    def mirror(self, models: Collection[str] = ()) -> AbstractContextManager[Path]:
        """Give a directory with the repository as a server reads it; not to be written to.

        It has every configuration, and of `models` (or all) the files of the model and of the versions it serves.
        """

    def stage(self) -> AbstractContextManager[Path]:
        """Give an empty private directory in which a version is built, after a look whether it could be published."""

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from changing what is served, or the journal, for a short time."""

    def reserve(self, model: str, recorded: Callable[[], Iterable[int]]) -> AbstractContextManager[int]:
        """Give the next version number to this process alone; `recorded` gives those used before.

        Whether that needs the lock until the end is the store's to know: inside, take `publishing`, not `locked`.
        """

    def publishing(self) -> AbstractContextManager[None]:
        """As `locked`, within `reserve`."""

    def upload(self, model: str, number: int, files: Path) -> None:
        """Bring a version's files close to their place, where nobody sees them; what takes long, before the lock."""

    def add_model(self, model: str, number: int, files: Path, shared: Path) -> None:
        """Add a model with its first version: `shared` is a directory with its configuration and labels.

        Raises:
            Changed: Another process added the model first, without the lock.
        """

    def add_version(self, model: str, number: int, files: Path, config: Change | None) -> None:
        """Add a version, and replace the model's configuration where `config` is given.

        Raises:
            Changed: The version was added, but the configuration is not what it was.
        """

    def change_config(self, model: str, config: Change, stage: Path) -> None:
        """Replace the model's configuration at once.

        Raises:
            Changed: It is not what it was.
        """

    def add_file(self, name: str, data: bytes, stage: Path) -> None:
        """Add or replace one small file at once."""

    def remove_version(self, model: str, number: int, stage: Path) -> None:
        """Remove a version that is not served; a kill in between leaves none of it visible."""

    def append(self, name: str, line: Callable[[bytes], bytes]) -> None:
        """Add one line, under the lock; a line torn by a crash before is closed first.

        `line` gets what is in the file, and gives the line without its end.
        """


def open_store(repository: str | os.PathLike[str], staging: str | os.PathLike[str] | None = None) -> Store:
    """Return the store at a path or an `s3://bucket/prefix` URL.

    Raises:
        InvalidName: Another URL, or one without a bucket.
    """
    url, directory = os.fspath(repository), Path(staging) if staging else None
    scheme = re.match(r"([A-Za-z0-9]+):/", url)
    if scheme is None:
        from naiad.export._repository.local import LocalStore

        return LocalStore(Path(repository), staging=directory)
    if scheme[1] == "s3":
        from naiad.export._repository.s3 import S3Store, parse_url

        return S3Store(*parse_url(url), staging=directory)
    raise InvalidName(f"{url} is not a model repository; expected a directory, or s3://bucket/prefix")

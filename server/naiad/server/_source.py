"""Where the models come from: a directory, or a bucket that Triton reads itself."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from tritonclient.grpc import model_config_pb2

from naiad.server import _policy, _repository
from naiad.server._repository import ModelFiles
from naiad.server.errors import RepositoryError

_BUCKET: Final = "s3://"
_LOOK_S: Final = 0.4


class Source(Protocol):
    """A model repository, as far as it has to be known before and beside Triton."""

    @property
    def repository(self) -> Path | str:
        """Its absolute path, or its URL."""

    @property
    def look_every_s(self) -> float:
        """How long to wait between two looks at what it holds."""

    def prepare(self, private: Path) -> str:
        """Return what Triton is told to serve; `private` is the directory of this server."""

    def select(self, named: Sequence[str] | None) -> tuple[str, ...]:
        """Return the models to load, each checked: those named, or all. Raises `UnknownModel`, `UnsafeName`."""

    def check_model(self, model: str) -> None:
        """Raise `UnsafeName` or `RepositoryError` for what makes Triton misbehave."""

    def configs(self, models: Sequence[str]) -> dict[str, model_config_pb2.ModelConfig]:
        """Return the configurations of those models that have one which can be read."""

    def look(self, named: Sequence[str] | None) -> dict[str, ModelFiles]:
        """Return what there is now of the models named, or of all; one that cannot be read is left out."""


class Directory:
    """A repository on a file system."""

    def __init__(self, repository: Path) -> None:
        self.repository = _repository.check(repository)
        self.look_every_s = _LOOK_S

    def prepare(self, private: Path) -> str:
        """Triton hands paths to a shell: it gets one without spaces."""
        link = private / "repository"
        link.symlink_to(self.repository)
        return str(link)

    def select(self, named: Sequence[str] | None) -> tuple[str, ...]:
        """See `Source`."""
        return _repository.select(self.repository, named)

    def check_model(self, model: str) -> None:
        """See `Source`."""
        _repository.check_model(self.repository, model)

    def configs(self, models: Sequence[str]) -> dict[str, model_config_pb2.ModelConfig]:
        """See `Source`."""
        found = {model: _policy.config(self.repository / model) for model in models}
        return {model: config for model, config in found.items() if config is not None}

    def look(self, named: Sequence[str] | None) -> dict[str, ModelFiles]:
        """See `Source`."""
        found = {}
        for model in self._watched(named):
            try:
                found[model] = _repository.files_of(self.repository, model)
            except (OSError, RepositoryError):
                continue  # removed, or being replaced: the next look sees it
        return found

    def _watched(self, named: Sequence[str] | None) -> Sequence[str]:
        if named is not None:
            return named
        try:
            return _repository.models_in(self.repository)
        except (OSError, RepositoryError):
            return ()


def parse(repository: str | os.PathLike[str]) -> Path | str:
    """Return a path, or the URL of a bucket as it is."""
    text = os.fspath(repository)
    return text if text.startswith(_BUCKET) else Path(repository)


def open_source(repository: Path | str) -> Source:
    """Return the repository at a path or an `s3://bucket/prefix` URL. Raises `RepositoryError`."""
    if isinstance(repository, Path):
        return Directory(repository)
    from naiad.server._bucket import Bucket

    return Bucket(repository)

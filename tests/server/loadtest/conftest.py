"""One server for all load tests that leave it alive."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadtest_data_models import Sender, write_models
from loadtest_helpers import NAIAD, write_repository
from naiad.server import EmbeddedTriton

Naiad = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("loadtest") / "a repository", "linear", "reloaded", "digits")


@pytest.fixture(scope="session")
def triton(repository: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(repository) as server:
        yield server


@pytest.fixture(scope="session")
def golden(repository: Path) -> Path:
    return repository / "linear" / "1" / "golden.npz"


@pytest.fixture(scope="session")
def data_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of models that take what files of samples hold."""
    return write_models(tmp_path_factory.mktemp("data") / "models")


@pytest.fixture(scope="session")
def data_server(data_models: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(data_models) as server:
        yield server


@pytest.fixture(scope="session")
def sender(data_server: EmbeddedTriton) -> Iterator[Sender]:
    """What sends serialised requests to that server; it has the admin secret."""
    made = Sender(data_server.admin_url)
    yield made
    made.close()


@pytest.fixture
def naiad(tmp_path: Path) -> Naiad:
    """Run the command in an empty folder."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*NAIAD, "loadtest", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return call

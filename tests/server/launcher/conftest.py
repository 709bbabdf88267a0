"""Servers that several tests of the launcher share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher_helpers import write_model
from naiad.server import EmbeddedTriton


@pytest.fixture(scope="session")
def identity_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one tiny model, at a path with spaces."""
    return write_model(tmp_path_factory.mktemp("a repository") / "with spaces", "identity")


@pytest.fixture(scope="module")
def triton(identity_repository: Path) -> Iterator[EmbeddedTriton]:
    """A running server, which no test disturbs."""
    with EmbeddedTriton(identity_repository) as running:
        yield running

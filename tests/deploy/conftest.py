"""What the tests of deployment share: real servers that no test disturbs, and the programs they run."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from container_helpers import SERVICE
from deploy_helpers import program
from launcher_helpers import write_model
from naiad.deploy._files import write_all
from naiad.deploy.render import render
from naiad.server import EmbeddedTriton

ADMIN_SECRET = "a-secret-of-thirty-two-characters-or-more"


@pytest.fixture(scope="session")
def envoy() -> Path:
    """The real Envoy."""
    return program("envoy")


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one model, `identity`: answers y = x, after as many seconds as the largest x says."""
    return write_model(tmp_path_factory.mktemp("tiny") / "repository", "identity")


@pytest.fixture(scope="session")
def tritons(tiny_repository: Path) -> Iterator[tuple[EmbeddedTriton, EmbeddedTriton]]:
    """Two running servers of that repository with one admin secret; tests that stop or change one start their own."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(EmbeddedTriton(tiny_repository, admin_secret=ADMIN_SECRET)) for _ in range(2)
        )
        yield first, second


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All rendered files of one service, in a directory whose name has a space."""
    directory = tmp_path_factory.mktemp("a project")
    write_all(directory, render(SERVICE))
    return directory

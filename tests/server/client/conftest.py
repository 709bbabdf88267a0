"""One server for all of the client's tests."""

from collections.abc import Iterator

import pytest

import client_models
from naiad.client import Client


@pytest.fixture(scope="session")
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the models of `client_models`, admin secret included."""
    given = request.config.getoption("--triton")
    if given:
        yield given
        return
    from naiad.server import EmbeddedTriton

    repository = tmp_path_factory.mktemp("client") / "repository"
    client_models.write(repository)
    with EmbeddedTriton(repository) as triton:
        yield triton.admin_url


@pytest.fixture
def triton(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture
def address(url: str) -> str:
    """Host and port, for tritonclient."""
    return url.rpartition("@")[2].removeprefix("grpc://")

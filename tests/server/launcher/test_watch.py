"""A watching server follows its repository."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher_helpers import ask, eventually, write_config, write_model, write_version
from naiad.client import Client
from naiad.server import EmbeddedTriton


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that changes from test to test."""
    path = tmp_path_factory.mktemp("watched") / "my repository"
    for name in ("promoted", "renewed", "broken"):
        write_model(path, name)
    return path


@pytest.fixture(scope="module")
def watching(repository: Path) -> Iterator[Client]:
    """The administrator's client of a server that watches that repository."""
    with EmbeddedTriton(repository, watch=True) as triton, triton.client() as client:
        yield client


def test_promote_and_roll_back_by_configuration(repository: Path, watching: Client) -> None:
    """Replacing config.pbtxt switches the version that is served, there and back, without a failed request."""
    write_version(repository, "promoted", 2, added=2)
    for version, expected in ((2, 2.0), (1, 0.0)):
        write_config(repository, "promoted", policy=f"specific {{ versions: [ {version} ] }}")
        eventually(lambda expected=expected: ask(watching, "promoted")[0, 0] == expected, f"{expected} is answered")


def test_a_new_version_is_served(repository: Path, watching: Client) -> None:
    """With the policy `latest`, a version that appears takes over."""
    write_version(repository, "renewed", 2, added=2)
    eventually(lambda: ask(watching, "renewed")[0, 0] == 2.0, "version 2 answers")


def test_a_half_written_version_is_not_served_until_it_is_whole(
    repository: Path, watching: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A version directory without its model leaves the former version serving; once complete, it takes over."""
    (repository / "broken" / "2").mkdir()
    (repository / "broken" / "2" / "model.py.part").write_text("class Tri")
    eventually(lambda: "Expected model.py in version 2" in caplog.text, "version 2 is refused")
    assert ask(watching, "broken")[0, 0] == 0.0
    (repository / "broken" / "2").rename(repository.parent / "rejected")
    write_version(repository, "broken", 2, added=2)
    eventually(lambda: ask(watching, "broken")[0, 0] == 2.0, "version 2 answers")


def test_a_broken_configuration_leaves_the_former_one_serving(
    repository: Path, watching: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A syntax error in config.pbtxt disturbs nobody, and the correction is noticed."""
    before = ask(watching, "renewed")[0, 0]
    (repository / "renewed" / "config.pbtxt").write_text("name: 'renewed' oops {")
    eventually(lambda: "Model renewed changed, and what was loaded before" in caplog.text, "the load is refused")
    assert "failed to read text proto" in caplog.text
    assert ask(watching, "renewed")[0, 0] == before
    write_version(repository, "renewed", 3, added=3)
    write_config(repository, "renewed")
    eventually(lambda: ask(watching, "renewed")[0, 0] == 3.0, "version 3 answers")


def test_models_come_and_go(repository: Path, watching: Client) -> None:
    """A model that is published while the server runs is loaded, one that is removed is unloaded."""
    write_model(repository, "late")
    eventually(lambda: watching.ready("late"), "the new model is ready")
    shutil.rmtree(repository / "late")
    eventually(lambda: not watching.ready("late"), "the model is no longer served")

"""A process that changes a repository is killed: the repository stays valid, and the next one cleans up."""

from __future__ import annotations

from pathlib import Path

import pytest

import export_killer
from export_kills import kills
from export_publisher import publish
from export_validity import assert_servable
from naiad.export import Repository


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two versions, under a path with spaces."""
    root = tmp_path / "a model repository"
    for _ in range(2):
        publish(root, export_killer.MODEL, labels=("a", "b", "c"))
    return root


def assert_next_export_works(root: Path) -> None:
    """Another process publishes what it is asked to, and nothing of the killed ones is left."""
    number = publish(root, export_killer.MODEL, labels=("a", "b", "c")).number
    repo = Repository(root)
    assert repo.served(export_killer.MODEL) == (number,)
    assert number == max(repo.versions(export_killer.MODEL))
    assert_servable(root)
    assert [path.name for path in root.parent.iterdir()] == [root.name]


def test_killed_before_every_step(root: Path) -> None:
    """Before each change, flush and lock of publications, promotion, rollback and pruning in turn."""
    places = []
    for place in kills(root, "steps", 1, 1):
        places.append(place)
        assert_servable(root)
    assert len(places) > 60
    assert_next_export_works(root)

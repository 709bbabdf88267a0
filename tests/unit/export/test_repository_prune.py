"""Pruning removes old versions, and never one that somebody may still need."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from export_helpers import assert_valid
from export_publisher import publish
from naiad.export import InvalidExport, ModelNotFound, NothingToRollBack, NotWritable, Repository


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """Six versions: 6 is served, and a rollback would serve 5."""
    repo = Repository(tmp_path / "models")
    for _ in range(6):
        publish(repo)
    return repo


def test_the_oldest_go_and_the_newest_stay(repo: Repository) -> None:
    """What is served, what a rollback would serve and the newest are kept, each with its reason."""
    pruned = repo.prune("some", keep=1)
    assert pruned.removed == (1, 2, 3, 4)
    assert pruned.kept == {5: "what the next rollback would serve (remove it with --force)", 6: "served"}
    assert pruned.freed_bytes == 4 * 1100
    assert repo.versions("some") == (5, 6)
    assert_valid(repo.path)
    assert repo.rollback("some") == (5,)


def test_served_versions_stay_however_old(repo: Repository) -> None:
    """A promotion of old versions protects them, and the state before it."""
    repo.promote("some", 1, 3)
    assert repo.prune("some", keep=2).removed == (2, 4)
    assert repo.versions("some") == (1, 3, 5, 6)
    assert repo.served("some") == (1, 3)


def test_a_dry_run_removes_nothing(repo: Repository) -> None:
    """It tells what would go, and leaves files and journal as they are."""
    before = repo.history("some")
    assert repo.prune("some", keep=1, dry_run=True).removed == (1, 2, 3, 4)
    assert repo.versions("some") == (1, 2, 3, 4, 5, 6)
    assert repo.history("some") == before


def test_force_gives_up_the_rollback(repo: Repository) -> None:
    """With `force` the rollback's version goes too, and a rollback then says why it cannot."""
    assert repo.prune("some", keep=1, force=True).removed == (1, 2, 3, 4, 5)
    with pytest.raises(NothingToRollBack, match="it serves 6 and version 5, served before, was removed"):
        repo.rollback("some")


def test_a_rollback_passes_over_what_is_gone(repo: Repository) -> None:
    """It goes to the last state that can still be served, and from there on back as always."""
    repo.promote("some", 2)
    shutil.rmtree(repo.path / "some" / "6")
    assert repo.rollback("some") == (5,)
    assert repo.rollback("some") == (4,)
    assert repo.served("some") == (4,)


def test_numbers_are_never_given_again(repo: Repository) -> None:
    """The next version counts on, also when the journal is lost."""
    repo.prune("some", keep=1, force=True)
    (repo.path / "journal.jsonl").unlink()
    assert publish(repo).number == 7


@pytest.mark.parametrize("keep", [0, -3])
def test_at_least_one_is_kept(repo: Repository, keep: int) -> None:
    """Keeping none would give numbers a second time."""
    with pytest.raises(InvalidExport, match="keep must be at least 1"):
        repo.prune("some", keep=keep)
    assert len(repo.versions("some")) == 6


def test_nothing_to_prune_is_no_act(repo: Repository) -> None:
    """Where everything is kept, nothing happens and nothing is recorded."""
    before = repo.history("some")
    assert repo.prune("some", keep=6).removed == ()
    assert repo.history("some") == before


def test_the_journal_tells_what_went_and_why(repo: Repository) -> None:
    """One entry has the numbers; what is served is the same before and after, and the audit finds nothing."""
    repo.prune("some", keep=3, reason="the disk is full")
    entry = repo.history("some")[-1]
    assert (entry.action, entry.removed, entry.reason) == ("prune", (1, 2, 3), "the disk is full")
    assert entry.before == entry.after == (6,)
    assert repo.audit().problems == ()


def test_what_fails_half_way_is_recorded(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second removal fails, the first has its entry, and every version that is left is whole."""
    store = repo._store
    remove = store.remove_version

    def failing(model: str, number: int, stage: Path) -> None:
        if number == 2:
            raise PermissionError(13, "not permitted", str(stage))
        remove(model, number, stage)

    monkeypatch.setattr(store, "remove_version", failing)
    with pytest.raises(NotWritable):
        repo.prune("some", keep=1)
    assert repo.history("some")[-1].removed == (1,)
    assert repo.versions("some") == (2, 3, 4, 5, 6)
    assert_valid(repo.path)
    assert repo.audit().problems == ()


def test_versions_made_by_hand_can_be_pruned(tmp_path: Path) -> None:
    """A model without manifests or journal keeps the newest, which is what Triton serves then."""
    root = tmp_path / "models"
    for number in ("1", "2", "10"):
        (root / "hand" / number).mkdir(parents=True)
    (root / "hand" / "config.pbtxt").write_text('name: "hand" backend: "onnxruntime"')
    pruned = Repository(root).prune("hand", keep=1)
    assert (pruned.removed, pruned.freed_bytes) == ((1, 2), 0)


def test_nothing_is_left_beside_the_repository(repo: Repository) -> None:
    """What was renamed out is gone when the call returns; an unknown model changes nothing."""
    repo.prune("some", keep=2)
    assert [path.name for path in repo.path.parent.iterdir()] == ["models"]
    with pytest.raises(ModelNotFound):
        repo.prune("other", keep=1)
    shutil.rmtree(repo.path)
    with pytest.raises(ModelNotFound, match="no model repository"):
        repo.prune("some", keep=1)

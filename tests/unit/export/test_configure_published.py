"""A published model's configuration, changed in place and back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from export_publisher import publish
from naiad.export import CheckFailed, InvalidExport, NothingToRollBack, Repository


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    publish(root)
    return root


def text(root: Path) -> str:
    return (root / "some" / "config.pbtxt").read_text()


def test_fields_are_set_and_recorded(root: Path) -> None:
    """The file has the new values, the journal both, and the chain of its hashes holds."""
    found = Repository(root).configure(
        "some", {"instance_group": [{"count": 2}], "parameters.intra_op_thread_count": "1"}, reason="two are faster"
    )
    assert found.changed
    config: Any = Repository(root).config("some")
    assert config.instance_group[0].count == 2
    entry = Repository(root).history("some")[-1]
    assert (entry.action, entry.reason) == ("configure", "two are faster")
    assert entry.settings == found.settings
    assert entry.replaced == found.replaced
    assert Repository(root).audit().ok


def test_the_way_back_gives_what_was_there(root: Path) -> None:
    """Fields that were set are set back, fields that were not there go."""
    before: Any = Repository(root).config("some")
    Repository(root).configure("some", {"instance_group": [{"count": 2}], "parameters.notes.owner": "me"})
    assert Repository(root).config("some") != before
    found = Repository(root).unconfigure("some")
    assert found.changed
    assert Repository(root).config("some") == before
    assert Repository(root).history("some")[-1].reason == "taken back"


def test_what_is_so_already_changes_nothing(root: Path) -> None:
    """No file is replaced, and nothing recorded."""
    before = text(root)
    count = len(Repository(root).history())
    config: Any = Repository(root).config("some")
    found = Repository(root).configure("some", {"max_batch_size": config.max_batch_size})
    assert not found.changed
    assert text(root) == before
    assert len(Repository(root).history()) == count


def test_a_dry_run_says_it_and_writes_nothing(root: Path) -> None:
    """What would change is told."""
    before = text(root)
    found = Repository(root).configure("some", {"instance_group": [{"count": 3}]}, dry_run=True)
    assert found.settings["instance_group"][0]["count"] == 3
    assert text(root) == before


def test_the_served_versions_stay(root: Path) -> None:
    """It is no promotion, and a rollback does not undo it."""
    publish(root)
    Repository(root).configure("some", {"instance_group": [{"count": 2}]})
    assert Repository(root).served("some") == (2,)
    assert Repository(root).rollback("some") == (1,)
    config: Any = Repository(root).config("some")
    assert config.instance_group[0].count == 2


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"instance_grp": []}, InvalidExport, "instance_group"),
        ({"name": "other"}, InvalidExport, "cannot be set"),
        ({"max_batch_size": 10_000}, InvalidExport, "which the export verified"),
        ({"max_batch_size": "8"}, InvalidExport, "which the export verified"),
        ({"dynamic_batching": {"preferred_batch_size": [10_000]}}, CheckFailed, "was not changed"),
    ],
)
def test_what_triton_would_refuse_is_not_written(
    root: Path, settings: dict[str, object], error: type[Exception], words: str
) -> None:
    """The linter looks at it before; the file stays as it is."""
    before = text(root)
    with pytest.raises(error, match=words):
        Repository(root).configure("some", settings)
    assert text(root) == before
    assert not any(entry.action == "configure" for entry in Repository(root).history())


def test_there_may_be_nothing_to_take_back(root: Path) -> None:
    """No change, or one that somebody changed again by hand."""
    with pytest.raises(NothingToRollBack, match="no recorded change"):
        Repository(root).unconfigure("some")
    Repository(root).configure("some", {"instance_group": [{"count": 2}]})
    path = root / "some" / "config.pbtxt"
    path.write_text(path.read_text().replace("count: 2", "count: 5"))
    with pytest.raises(NothingToRollBack, match="no recorded change"):
        Repository(root).unconfigure("some")


def test_the_command_sets_and_takes_back(root: Path) -> None:
    """`naiad models configure --set …` and `--undo`, as JSON for programs."""

    def naiad(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "naiad.cli", "models", "configure", "some", "-r", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    done = naiad("--set", "instance_group.0.count=2", "--json")
    assert json.loads(done.stdout)["settings"]["instance_group"][0]["count"] == 2
    undone = naiad("--undo")
    assert "changed" in undone.stdout
    assert naiad().returncode == 2

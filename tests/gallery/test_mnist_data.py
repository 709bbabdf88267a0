"""MNIST's files: a directory of IDX files is checked before anything is trained."""

import gzip
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from naiad.export import RecipeFailed, load_recipe

RECIPE = load_recipe("mnist")
DATA = sys.modules["_mnist_data"]
NAMES = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]


@pytest.fixture(scope="session")
def originals() -> dict[str, Path]:
    """The files of the package."""
    return {name: DATA._file(name, "") for name in NAMES}


@pytest.fixture
def folder(originals, tmp_path, monkeypatch) -> Path:
    """A directory with all four files, links to those of the package; what a test says holds for that test."""
    for name, path in originals.items():
        (tmp_path / name).symlink_to(path)
    monkeypatch.setattr(DATA, "_directory", "")
    return tmp_path


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def test_a_directory_has_the_images_of_the_package(folder, originals):
    """Plain and compressed, the pixels are those of the package."""
    labels = folder / NAMES[3]
    with gzip.open(f"{labels}.gz", "wb", compresslevel=1) as file:
        file.write(labels.read_bytes())
    labels.unlink()
    package, ours = DATA._load("t10k", ""), DATA._load("t10k", str(folder))
    assert all(one.equal(other) for one, other in zip(package, ours, strict=True))
    assert ours[0].shape == (10_000, 784)
    assert np.bincount(ours[1]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_net_s_mean_and_deviation_are_those_of_the_training_images(originals):
    """The numbers in the recipe come from the data."""
    pixels = DATA._load("train", "")[0].numpy()
    assert (round(float(pixels.mean()), 2), round(float(pixels.std()), 2)) == (33.32, 78.57)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (NAMES[2], lambda old: old[:-1], r"t10k-images.*expected 7840000 bytes after the header, found 7839999"),
        (NAMES[2], lambda old: old + b"x", r"expected 7840000 bytes after the header, found 7840001"),
        (NAMES[2], lambda old: old[:6], r"expected the sizes 10000 × 28 × 28, found a truncated header"),
        (NAMES[2], lambda old: b"", r"magic number 0x00000803, found 0x00000000"),
        (NAMES[2], lambda old: b"<html>no such file</html>", r"magic number 0x00000803, found 0x3c68746d"),
        (
            NAMES[3],
            lambda old: struct.pack(">II", 0x803, 10_000) + old[8:],
            r"magic number 0x00000801, found 0x00000803",
        ),
        (NAMES[3], lambda old: struct.pack(">II", 0x801, 60_000) + bytes(60_000), r"sizes 10000, found 60000"),
        (
            NAMES[3],
            lambda old: old[:-1] + b"\n",
            r"t10k-labels-idx1-ubyte has the label 10; expected digits from 0 to 9",
        ),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(folder, name, content, message):
    """With what was expected and what was found, before anything is trained."""
    replace(folder / name, content((folder / name).read_bytes()))
    DATA.use(str(folder))
    with pytest.raises(RecipeFailed, match=message):
        RECIPE.held_out()


def test_a_truncated_gzip_file_is_named(folder):
    """As a download that broke off leaves it."""
    labels = folder / NAMES[3]
    (folder / f"{NAMES[3]}.gz").write_bytes(gzip.compress(labels.read_bytes())[:-100])
    labels.unlink()
    DATA.use(str(folder))
    with pytest.raises(RecipeFailed, match=r"t10k-labels-idx1-ubyte.gz is no whole gzip file.*download it again"):
        RECIPE.held_out()


def test_images_and_labels_in_each_other_s_place_are_noticed(folder):
    """Both are IDX files, of other kinds."""
    shutil.move(folder / NAMES[0], folder / "x")
    shutil.move(folder / NAMES[1], folder / NAMES[0])
    shutil.move(folder / "x", folder / NAMES[1])
    with pytest.raises(RecipeFailed, match=r"train-images.*magic number 0x00000803, found 0x00000801"):
        RECIPE.build(data=str(folder))


def test_a_missing_file_or_directory_is_said_with_all_that_is_expected(folder, tmp_path):
    """The names that are looked for are in the message."""
    (folder / NAMES[1]).unlink()
    with pytest.raises(RecipeFailed, match=r"expected train-images.*\(or .gz\).*found no train-labels-idx1-ubyte"):
        RECIPE.build(data=str(folder))
    with pytest.raises(RecipeFailed, match="nowhere, found no train-images"):
        RECIPE.build(data=str(tmp_path / "nowhere"))

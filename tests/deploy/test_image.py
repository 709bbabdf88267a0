"""The image of the tools, as far as it can be made without a container engine."""

import re
import shutil
import tomllib
import zipfile
from pathlib import Path

from deploy_helpers import ROOT, program, run

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def copied() -> list[str]:
    """What the Dockerfile takes from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_the_sources_that_are_sent_suffice_for_the_package(tmp_path: Path) -> None:
    """A wheel built from what the Dockerfile copies has every room, and the files that are no Python."""
    for source in copied():
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, tmp_path / source)
    run([program("python"), "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", "."], directory=tmp_path)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    rooms = {name.split("/")[1] for name in names if name.startswith("naiad/") and name.endswith("/__init__.py")}
    assert {"client", "export", "server", "deploy", "loadtest", "cli"} <= rooms
    beside = {path.relative_to(ROOT / "deploy").as_posix() for path in (ROOT / "deploy" / "naiad").rglob("*.*")}
    assert {name for name in beside if not re.search(r"__pycache__|\.pyc$", name)} <= names


def test_only_what_is_copied_is_sent_to_the_builder() -> None:
    """Secrets, models and environments stay here: everything is left out but what the Dockerfile names."""
    first, *rest = [
        line
        for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
        if line[:1] not in ("", "#")
    ]
    assert first == "*"
    assert {line.removeprefix("!") for line in rest if line.startswith("!")} == set(copied())


def test_the_image_has_no_torch() -> None:
    """The extras that it installs ask for no training framework, and there are such extras."""
    found = re.search(r'"\.\[([a-z0-9,]+)\]"', DOCKERFILE)
    assert found is not None
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [requirement for extra in found[1].split(",") for requirement in extras[extra]]
    assert wanted
    assert not [requirement for requirement in wanted if re.match(r"torch|onnx|naiad", requirement)]


def test_the_image_is_made_of_pinned_ones_and_does_not_run_as_root() -> None:
    """Both stages begin with the same release; the last user is a number, which Compose and Kubernetes can check."""
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])
    assert re.findall(r"^USER (\S+)", DOCKERFILE, flags=re.MULTILINE) == ["1000:1000"]

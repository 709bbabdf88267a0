"""The tree and the lists that describe it."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ["client", "export", "server", "deploy", "loadtest", "cli"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_list_of_rooms_is_the_same():
    """The wheel, the editable install, the type checker and the boundaries see the same rooms."""
    tool = PROJECT["tool"]
    assert tool["hatch"]["build"]["dev-mode-dirs"] == ROOMS
    assert tool["hatch"]["build"]["targets"]["wheel"]["packages"] == [f"{room}/naiad" for room in ROOMS]
    assert [Path(entry).name for entry in tool["mypy"]["mypy_path"].split(":")] == ROOMS
    assert tool["mypy"]["packages"] == [f"naiad.{room}" for room in ROOMS]
    assert tool["importlinter"]["root_packages"] == [f"naiad.{room}" for room in ROOMS]


def test_naiad_is_a_namespace_that_no_room_owns():
    """An __init__.py there would hide the other rooms in an editable install."""
    for room in ROOMS:
        assert not (ROOT / room / "naiad" / "__init__.py").exists()
        assert (ROOT / room / "naiad" / room / "py.typed").exists()


def test_every_direct_dependency_is_pinned_for_this_repository():
    """Two machines that run make get the same versions."""
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(entry for extra in extras for entry in extra)]
    names = {entry.partition(";")[0].partition("[")[0].split(">")[0].split("<")[0].strip().lower() for entry in wanted}
    assert names - pinned - {"naiad", "onnxruntime"} == set()

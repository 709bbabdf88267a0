"""The public names of the room."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import naiad.deploy

ROOM = Path(naiad.deploy.__file__).parent


def test_the_public_names_are_these():
    """Removing one breaks somebody; adding one is a promise."""
    public = {name for name in vars(naiad.deploy) if not name.startswith("_")}
    modules = {path.stem for path in ROOM.iterdir() if not path.name.startswith("_")}
    assert public - modules == {
        "Canary",
        "DeployError",
        "Endpoint",
        "GatewayError",
        "Identity",
        "InvalidCertificate",
        "InvalidKeys",
        "InvalidService",
        "Issuer",
        "Key",
        "KeyFile",
        "Limits",
        "Objective",
        "OutputNotWritable",
        "Place",
        "Pool",
        "Rights",
        "Service",
        "Shadow",
        "ToolMissing",
        "Triton",
        "load_service",
    }


def test_describing_a_service_takes_the_standard_library_only():
    """`naiad serve` asks this room what may be exposed, also where its extra is not installed."""
    code = "import sys, naiad.deploy; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint({"yaml", "httpx", "cryptography", "envoy", "psutil", "grpc", "numpy"})


@pytest.mark.parametrize(
    "path", sorted(path for path in ROOM.glob("*.py") if not path.name.startswith("_")), ids=lambda path: path.stem
)
def test_what_a_module_promises_is_there(path):
    """Every name of __all__, each once."""
    module = importlib.import_module(f"naiad.deploy.{path.stem}")
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    assert all(hasattr(module, name) for name in names)
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_every_error_belongs_to_the_tree_that_its_module_draws():
    """And wrong input is a ValueError, as everywhere."""
    errors = importlib.import_module("naiad.deploy.errors")
    drawn = errors.__doc__
    for name in errors.__all__:
        found = getattr(errors, name)
        if isinstance(found, type):
            assert issubclass(found, errors.DeployError)
            assert name in drawn
            assert issubclass(found, ValueError) or not name.startswith("Invalid")

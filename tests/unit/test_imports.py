"""What importing a room brings with it."""

import subprocess
import sys

import pytest

HEAVY = ["torch", "onnx", "onnxruntime", "locust", "gevent", "typer", "rich", "plotly", "sklearn"]
OPTIONAL = ["opentelemetry", "prometheus_client"]


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_client_brings_nothing_heavy():
    """A service that imports the client pays for grpcio and numpy only."""
    assert modules_after("import naiad.client").isdisjoint(HEAVY + OPTIONAL)


@pytest.mark.parametrize("room", ["naiad.export", "naiad.server", "naiad.deploy", "naiad.loadtest", "naiad.cli"])
def test_no_room_patches_or_trains_on_import(room):
    """gevent, locust and torch come in only where they are used."""
    assert modules_after(f"import {room}").isdisjoint({"torch", "locust", "gevent"})


def test_the_command_knows_no_room_until_it_needs_one():
    """`naiad --help` is quick because it imports no room."""
    code = "import sys, naiad.cli.app; print(*[m for m in sys.modules if m.startswith('naiad.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in done.stdout.split()}
    assert rooms == {"cli"}

"""What the README says, done."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from naiad.server import EmbeddedTriton

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = re.findall(r"^\$ (\S.*?)(?:\s+#.*)?$", TEXT, flags=re.MULTILINE)


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_call_on_the_first_screen_works(demo, tmp_path):
    """The code as it stands, but for the port, gets an answer from the demo's model."""
    assert "grpc://localhost:8001" in PYTHON[0]
    with EmbeddedTriton(demo.repository) as triton:
        printed = run(PYTHON[0].replace("grpc://localhost:8001", triton.grpc_url), tmp_path)
    assert re.fullmatch(r"\[\d\] by version 1\n", printed)


def test_exporting_and_serving_from_python_works(tmp_path):
    """The other pieces of code, one after the other in an empty folder, publish a model and get an answer from it."""
    published, answered = (run(code, tmp_path) for code in PYTHON[1:])
    assert "model_repository/tiny/1 (1,)" in published
    assert len(re.findall(r"0\.\d+", answered)) == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_with_its_options(command):
    """A make target is in the Makefile; a subcommand knows the options that the README gives it."""
    program, subcommand, *arguments = command.split()
    if program == "make":
        assert re.search(rf"^{subcommand}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        return
    assert program == "naiad"
    asked = [sys.executable, "-m", "naiad.cli", subcommand, "--help"]
    help_text = subprocess.run(asked, capture_output=True, text=True, check=True, env={"COLUMNS": "300"}).stdout
    assert {word for word in arguments if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", help_text))

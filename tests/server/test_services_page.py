"""The page for services, done: its code runs as it stands, in its order, on two real servers."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import client_models
from naiad.server import EmbeddedTriton

TEXT = (Path(__file__).parents[2] / "docs" / "services.md").read_text()
PYTHON = "".join(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
MODELS = ["digits", "parts", "totals_direct"]


def test_the_code_of_the_page_runs(demo, tmp_path):
    """All of it, with warnings as errors, but for the ports."""
    repository = tmp_path / "repository"
    client_models.write(repository)
    shutil.copytree(demo.repository / "digits", repository / "digits")
    with EmbeddedTriton(repository, models=MODELS) as first, EmbeddedTriton(repository, models=MODELS) as second:
        code = PYTHON.replace("localhost:8001", first.grpc_address).replace("localhost:8002", second.grpc_address)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    assert "input 'image' of model 'digits' is FP32, found FP64" in done.stdout
    assert "(1000, 10)\n200 answers, (1, 10)\n[0]\n[1]\n[2]\n[[1]]\n[[3]]\n[[6]]\n" in done.stdout
    assert re.search(r"8 rows in [12] run", done.stdout)


def test_the_page_names_every_error():
    """A service that handles what the table lists handles all."""
    from naiad.client import errors

    assert {name for name in errors.__all__ if name != "ClientError"} <= set(re.findall(r"`(\w+)`", TEXT))

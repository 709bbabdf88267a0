"""``locust -f loadtest/locustfile.py``: Locust's own command line with our engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCUSTFILE = Path(__file__).resolve().parents[3] / "loadtest" / "locustfile.py"


def locust(cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--users", "4", "--spawn-rate", "4"]
    command += [*map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=90, check=False)


def test_locust_runs_the_engine_and_ends(triton, tmp_path):
    """Locust counts the engine's requests under the model's name, and ends by itself with exit code 0."""
    before = requests_served(triton)
    done = locust(tmp_path, "--host", triton.grpc_url, "--model", "linear", "--run-time", "5s", "--json")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)
    assert (entry["name"], entry["num_failures"]) == ("linear", 0)
    assert entry["num_requests"] > 0
    assert entry["num_requests"] == requests_served(triton) - before


def test_a_model_that_is_not_served_ends_locust_with_its_reason(triton, tmp_path):
    """Exit code 1 and the server's answer, once, instead of a run without requests."""
    done = locust(tmp_path, "--host", triton.grpc_url, "--model", "nothing", "--run-time", "60s")
    assert done.returncode == 1
    assert "does not serve what was asked for" in done.stderr + done.stdout


def test_a_locustfile_without_a_model_ends_with_its_reason(tmp_path):
    """Nothing is sent when it is not known what."""
    done = locust(tmp_path, "--run-time", "60s")
    assert done.returncode == 1
    assert "expected the name of a model" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def requests_served(triton) -> int:
    with triton.client() as client:
        return sum(model.success.count for model in client.statistics("linear"))

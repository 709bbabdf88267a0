"""The whole way, as a new user runs it."""

import json
import subprocess
from pathlib import Path

import numpy as np

from loadtest_helpers import NAIAD
from naiad.client import Client
from naiad.export import Repository
from naiad.server import EmbeddedTriton


def test_the_demo_goes_the_whole_way(demo):
    """It ends well: as accurate served as in PyTorch, no request lost while versions changed, load answered."""
    assert demo.done.returncode == 0, demo.done.stderr
    found = json.loads(demo.done.stdout)
    assert found["passed"], found["failures"]
    assert found["accuracy_served"] == found["accuracy_pytorch"] >= 0.97
    assert found["switch_failed"] == 0
    assert found["switch_requests"] >= 300
    assert found["throughput_per_s"] > 0
    assert (demo.folder / "report" / "report.html").stat().st_size > 50_000
    content = json.loads((demo.folder / "report" / "report.json").read_text())
    assert content["verdict"] in ("passed", "invalid")  # a busy machine makes figures doubtful
    assert content["results"]["errors"] == {}


def test_what_the_demo_leaves_is_a_repository_to_go_on_with(demo):
    """Two intact versions, the first served again after the rollback, and the real Triton takes it as it is."""
    repository = Repository(demo.repository)
    assert repository.versions("digits") == (1, 2)
    assert repository.served("digits") == (1,)
    assert all(repository.verify("digits", number).ok for number in (1, 2))
    golden = np.load(demo.repository / "digits" / "1" / "golden.npz")
    with EmbeddedTriton(demo.repository) as server, Client(server.grpc_url) as triton:
        answer = triton.model("digits")(image=golden["input/0/image"])
    assert answer.model_version == "1"
    np.testing.assert_allclose(answer["probabilities"], golden["output/0/probabilities"], atol=1e-5)


def test_a_scenario_that_comes_with_naiad_runs_on_what_the_demo_leaves(demo):
    """Without a word on the command line but where the server is, and how short."""
    scenario = Path(__file__).resolve().parents[2] / "loadtest" / "scenarios" / "throughput.toml"
    with EmbeddedTriton(demo.repository) as server:
        command = [*NAIAD, "loadtest", str(scenario), "--url", server.grpc_url, "--duration", "1s", "--warmup", "0s"]
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=90, check=False)
    results = json.loads(done.stdout)["results"]
    assert results["completed"] > 0, done.stderr
    assert results["errors"] == {}

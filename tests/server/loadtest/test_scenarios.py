"""Every scenario file that comes with Naiad, on the real Triton, with small models of the names in them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import client_models
from loadtest_helpers import NAIAD, write_repository
from naiad.server import EmbeddedTriton
from repository_helpers import graph, identity, node, write_model

SCENARIOS = Path(__file__).resolve().parents[3] / "loadtest" / "scenarios"
SHORT = ("--duration", "500ms", "--warmup", "0s")
OPTIONS = {
    "single-request": (*SHORT, "--precision", "p99:90%", "--max-duration", "2s"),
    "shared-memory": (*SHORT, "--batch", 8),
    "trace-replay": ("--speed", 10),
}
SEVERAL = {
    "sweep": ("--sweep", "users=1..4"),
    "capacity": ("--find-max", "p50<1us"),  # no rate keeps it: that is known soon
}
ONE = sorted({path.stem for path in SCENARIOS.glob("*.toml")} - {*SEVERAL, "new-version"})
COUNTER = """
name: "counter"
backend: "python"
max_batch_size: 2
input { name: "x" data_type: TYPE_INT32 dims: [ 1 ] }
output [ { name: "total" data_type: TYPE_INT32 dims: [ 1 ] }, { name: "known" data_type: TYPE_INT32 dims: [ 1 ] } ]
sequence_batching {
  oldest { max_candidate_sequences: 32 }
  control_input [
    { name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } },
    { name: "end" control { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } },
    { name: "ready" control { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } },
    { name: "corrid" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
  ]
}
instance_group { kind: KIND_CPU count: 1 }
"""
LLM_CONFIG = """
name: "llm"
backend: "python"
model_transaction_policy { decoupled: true }
input { name: "prompt" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "token" data_type: TYPE_STRING dims: [ 1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""
LLM = '''
import numpy
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Answers with three tokens."""

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for token in (b"a", b"few", b"words"):
                sender.send(pb.InferenceResponse([pb.Tensor("token", numpy.array([token], object))]))
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    root = write_repository(tmp_path_factory.mktemp("scenarios") / "models", "digits")
    shutil.copytree(root / "digits" / "1", root / "digits" / "2")
    with (root / "digits" / "config.pbtxt").open("a") as config:
        config.write("version_policy { all { } }\n")
    dims = "INT64[batch,length]"
    added = graph([node("Add", "ids", "mask", to="sum")], {"ids": dims, "mask": dims}, {"sum": dims})
    tokens = {"ids": "INT64[-1]", "mask": "INT64[-1]"}
    write_model(root, "embeddings", added, inputs=tokens, outputs={"sum": "INT64[-1]"}, max_batch_size=4)
    text, same = {"text": "STRING[1]"}, {"text_out": "STRING[1]"}
    write_model(root, "sentences", identity({"text": "STRING[batch,1]"}), inputs=text, outputs=same, max_batch_size=4)
    client_models.write_python(root, ("counter", client_models.TOTALS, COUNTER), ("llm", LLM, LLM_CONFIG))
    with EmbeddedTriton(root) as running:
        yield running


def naiad(command: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [*NAIAD, command, *map(str, arguments)]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.parametrize("name", ONE)
def test_a_scenario_runs_as_it_is(server, tmp_path, name):
    """Shorter than its file says; every request is answered."""
    options = OPTIONS.get(name, SHORT)
    done = naiad("loadtest", tmp_path, SCENARIOS / f"{name}.toml", "--url", server.admin_url, *options, "--json")
    assert done.stdout, done.stderr
    content = json.loads(done.stdout)
    results = content["results"]
    assert results["completed"] > 0, done.stderr
    assert results["errors"] == {}
    assert server.admin_secret not in done.stdout
    if name == "trace-replay":
        arrivals = (SCENARIOS / "traces" / "burst.txt").read_text().splitlines()
        assert results["counted"]["client"] == sum(line[:1].isdigit() for line in arrivals)
    if name == "two-models":
        assert [part["model"] for part in content["parts"]] == ["digits", "embeddings"]
    if name == "decoupled-stream":
        assert results["responses"] / results["completed"] == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_scenario_of_several_runs_gives_one_line_for_each(server, tmp_path, name):
    """A sweep, and the search for the highest rate."""
    file = SCENARIOS / f"{name}.toml"
    done = naiad("loadtest", tmp_path, file, "--url", server.grpc_url, *SHORT, *SEVERAL[name], "--json")
    assert done.stdout, done.stderr
    content = json.loads(done.stdout)
    assert len(content["points"]) >= 3
    assert all(point["throughput_per_s"] > 0 for point in content["points"])


def test_the_scenario_of_a_new_version_is_a_gate(server, tmp_path):
    """Two versions that are the same: any verdict but an error, since the machine decides how sure it is."""
    file = SCENARIOS / "new-version.toml"
    done = naiad(
        "gate",
        tmp_path,
        file,
        "--url",
        server.grpc_url,
        "--window",
        "250ms",
        "--settle",
        "0s",
        "--max-pairs",
        12,
        "--json",
    )
    assert done.returncode in (0, 1, 2, 3, 4), done.stderr
    content = json.loads(done.stdout)
    assert len(content["pairs"]) >= 7  # that many are discarded before it is given up, on a machine too busy for it
    assert {"baseline", "candidate"} <= set(content)

"""The backend `pytorch` on a real GPU: packages compiled here, served by Triton, equal to PyTorch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch import nn

from naiad.client import Client
from naiad.export import Repository, export
from naiad.export._aoti import toolchain
from naiad.server import EmbeddedTriton

pytestmark = pytest.mark.timeout(600)
BATCHES = (1, 2, 5, 8, 64)


class Mixed(nn.Module):
    """Two inputs, a convolution, a product of matrices and an output of another type."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 4)

    def forward(self, picture: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.relu(self.norm(self.convolution(picture))).mean((2, 3))
        scores = self.linear(features)
        return {"scores": scores * weight, "positive": weight > 0}


def pictures(rows: int, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs by Triton's names."""
    numbers = np.random.default_rng(seed)
    return {
        "INPUT__0": numbers.standard_normal((rows, 3, 16, 16), dtype=np.float32),
        "INPUT__1": numbers.standard_normal((rows, 1), dtype=np.float32),
    }


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Mixed().eval()


@pytest.fixture(scope="module")
def repository(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """One package, served in each way; and two entries that cannot be served on this GPU."""
    if missing := toolchain.lacks_gpu() or toolchain.lacks_tools():
        pytest.skip(missing)
    repo = Repository(tmp_path_factory.mktemp("gpu") / "models")
    inputs = pictures(5)
    sample = (torch.from_numpy(inputs["INPUT__0"]), torch.from_numpy(inputs["INPUT__1"]))
    export(model, "plain", samples=[sample], max_batch_size=64, accelerator="aoti", device="cuda", repository=repo)
    for name, memory, graph in (
        ("recorded", "gpu", "true"),
        ("to_host", "cpu", "false"),
        ("recorded_to_host", "cpu", "true"),
    ):
        _variant(repo, name, {"naiad.output_memory": memory, "naiad.cuda_graph": graph})
    _variant(repo, "from_host", {"FORCE_CPU_ONLY_INPUT_TENSORS": "yes"})
    _variant(repo, "on_cpu", {}, kind="KIND_CPU")
    config = repo.config("plain")
    config.parameters["naiad.cuda_graph"].string_value = "false"
    (repo.path / "plain" / "config.pbtxt").write_text(text_format.MessageToString(config))
    return repo


def _variant(repo: Repository, name: str, parameters: dict[str, str], kind: str = "KIND_GPU") -> None:
    shutil.copytree(repo.path / "plain", repo.path / name)
    config = repo.config("plain")
    config.name = name
    config.ClearField("model_warmup")
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    group = config.instance_group[0]
    group.kind = group.Kind.Value(kind)
    group.count = 1
    (repo.path / name / "config.pbtxt").write_text(text_format.MessageToString(config))


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(repository.path, exit_on_load_error=False, ready_timeout_s=300.0) as triton:
        yield triton


@pytest.fixture(scope="module")
def client(server: EmbeddedTriton) -> Iterator[Client]:
    with server.client() as client:
        yield client


def expected(model: nn.Module, inputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """PyTorch's answer on the processor."""
    with torch.no_grad():
        answer = model(torch.from_numpy(inputs["INPUT__0"]), torch.from_numpy(inputs["INPUT__1"]))
    return {name: value.numpy() for name, value in answer.items()}


@pytest.mark.parametrize("name", ["plain", "recorded", "to_host", "recorded_to_host", "from_host"])
def test_answers_equal_pytorch(name: str, model: nn.Module, client: Client) -> None:
    """At every batch, twice with other values: what was recorded is replayed on those of the request."""
    for seed, rows in enumerate(BATCHES * 2):
        inputs = pictures(rows, seed)
        answer, truth = client.infer(name, inputs), expected(model, inputs)
        np.testing.assert_allclose(answer["OUTPUT__0"], truth["scores"], rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(answer["OUTPUT__1"], truth["positive"])


def test_more_shapes_than_are_recorded(model: nn.Module, client: Client) -> None:
    """Beyond 32 of them the package is run as it is."""
    for rows in range(1, 41):
        inputs = pictures(rows, rows)
        answer = client.infer("recorded", inputs)["OUTPUT__0"]
        np.testing.assert_allclose(answer, expected(model, inputs)["scores"], rtol=1e-3, atol=1e-4)


def test_a_package_for_a_gpu_is_refused_on_the_processor(server: EmbeddedTriton) -> None:
    """The log says what it was compiled for, and what to do."""
    assert "on_cpu" not in server.models
    assert "found one compiled for cuda; export it again with --accelerator aoti --device cpu" in Path(
        server.log_path
    ).read_text(encoding="utf-8")


def test_the_recordings_were_made(server: EmbeddedTriton) -> None:
    """A package that cannot be recorded would be served all the same, with a line in the log."""
    assert "cannot be recorded as a CUDA graph" not in Path(server.log_path).read_text(encoding="utf-8")

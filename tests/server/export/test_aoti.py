"""A `model.pt2` on the real Triton: made by PyTorch's compiler, served by Naiad's backend, equal to PyTorch."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch import nn

from export_helpers import rows
from naiad.client import Client, InvalidInput
from naiad.export import Repository, export
from naiad.server import EmbeddedTriton


class Weighted(nn.Module):
    """Two inputs, one of them of any length, and a dict of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, sequence: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.linear(sequence.mean(1)).softmax(-1)
        if sequence.shape[0] > 40:  # decided when it is compiled
            scores = scores.flip(0)
        return {"scores": scores * weight, "positive": sequence.sum(1) > 0}


class Pictured(nn.Module):
    """A convolution whose statistics are beyond what fp16 holds."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_var.fill_(1e5)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.convolution(picture) * 100)).mean((2, 3))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Weighted().eval()


@pytest.fixture(scope="module")
def repository(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The compiled model, the same with a batch of the server's own, and two that are configured wrongly."""
    repo = Repository(tmp_path_factory.mktemp("compiled") / "models")
    export(
        model,
        "weighted",
        samples=[{"sequence": rows(5, 7, 3), "weight": rows(5, 1, seed=1)}],
        dynamic={"sequence": {0: "batch", 1: "length"}, "weight": {0: "batch"}},
        max_batch_size=8,
        labels={"scores": ["a", "b", "c", "d"]},
        accelerator="aoti",
        cores=2,
        repository=repo,
    )
    export(
        Pictured(),
        "pictured",
        samples=[(rows(5, 3, 8, 8),)],
        max_batch_size=8,
        precision="fp16",
        accelerator="aoti",
        device="cpu",
        repository=repo,
    )
    for name in ("batching", "renamed", "sequences", "elsewhere"):
        _write_variant(repo.path, name)
    return repo


def _write_variant(root: Path, name: str) -> None:
    shutil.copytree(root / "weighted", root / name)
    config = Repository(root).config("weighted")
    config.name = name
    config.ClearField("model_warmup")
    match name:
        case "renamed":
            config.input[0].name = "sequence"
        case "elsewhere":
            _say_compiled_for_a_gpu(root / name / "1" / "model.pt2")
        case "sequences":
            config.sequence_batching.SetInParent()
        case "batching":
            config.max_batch_size = 4
            for tensor in (*config.input, *config.output):
                del tensor.dims[0]
            config.instance_group[0].count = 2
            config.dynamic_batching.preferred_batch_size.append(4)
            config.dynamic_batching.max_queue_delay_microseconds = 120_000_000
    (root / name / "config.pbtxt").write_text(text_format.MessageToString(config))


def _say_compiled_for_a_gpu(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b'"AOTI_DEVICE_KEY": "cpu"', b'"AOTI_DEVICE_KEY": "cuda"'))


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[EmbeddedTriton]:
    options = {"exit_on_load_error": False, "ready_timeout_s": 150.0}
    with EmbeddedTriton(repository.path, **options) as triton:
        yield triton


@pytest.fixture(scope="module")
def client(server: EmbeddedTriton) -> Iterator[Client]:
    with server.client() as client:
        yield client


def test_the_entry_follows_nvidias_rules(repository: Repository) -> None:
    """Tensors have the names of their places, the batch is a dimension, and nothing is joined by the server."""
    config = repository.config("weighted")
    assert (config.backend, config.platform, config.max_batch_size) == ("pytorch", "torch_aoti", 0)
    assert [(tensor.name, list(tensor.dims)) for tensor in (*config.input, *config.output)] == [
        ("INPUT__0", [-1, -1, 3]),
        ("INPUT__1", [-1, 1]),
        ("OUTPUT__0", [-1, 4]),
        ("OUTPUT__1", [-1, 3]),
    ]
    assert not config.HasField("dynamic_batching")
    assert config.output[0].label_filename


def test_the_manifest_says_what_was_compiled_and_what_was_not_measured(repository: Repository) -> None:
    """Which argument is which input, for what processor, and that NVIDIA's backend did not run."""
    manifest = repository.manifest("weighted", 1)
    assert [tensor["argument"] for tensor in manifest["inputs"]] == ["sequence", "weight"]
    assert manifest["inputs"][0]["shape"] == ["batch", "length", 3]
    assert manifest["package"]["AOTI_DEVICE_KEY"] == "cpu"
    assert "26.05" in manifest["not_measured"][0]
    assert [finding["check"] for finding in manifest["report"]["findings"]] == ["machine code", "sizes"]
    assert manifest["largest_sizes"] == {"batch": 40}
    assert {output["output"] for output in manifest["report"]["parity"]} == {"scores", "positive"}


@pytest.mark.parametrize(("batch", "length"), [(1, 7), (2, 1), (5, 12), (40, 3)])
def test_answers_equal_pytorch(model: nn.Module, client: Client, batch: int, length: int) -> None:
    """At every batch and length, also those that were not verified."""
    sequence, weight = rows(batch, length, 3, seed=batch), rows(batch, 1, seed=length)
    with torch.no_grad():
        expected = model(sequence, weight)
    answer = client.infer("weighted", {"INPUT__0": sequence.numpy(), "INPUT__1": weight.numpy()})
    np.testing.assert_allclose(answer["OUTPUT__0"], expected["scores"].numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(answer["OUTPUT__1"], expected["positive"].numpy())


def test_a_package_in_half_precision_takes_and_gives_floats(repository: Repository, client: Client) -> None:
    """What fp16 cannot hold stays in fp32 inside, and clients see no difference."""
    report = repository.manifest("pictured", 1)["report"]
    assert (report["tolerance"]["cosine"], report["parity"][0]["max_abs_error"] > 0) == (0.999, True)
    assert report["not_measured"][0] == "whether fp16 is faster than fp32: one package was compiled"
    with np.load(repository.path / "pictured" / "1" / "golden.npz") as golden:
        inputs = {name.split("/")[2]: golden[name] for name in golden.files if name.startswith("input/0/")}
        expected = golden["output/0/OUTPUT__0"]
    answer = client.infer("pictured", inputs)["OUTPUT__0"]
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())


def test_golden_pairs_have_the_names_of_the_server(repository: Repository, client: Client) -> None:
    """What was verified can be replayed on any server."""
    with np.load(repository.path / "weighted" / "1" / "golden.npz") as golden:
        inputs = {name.split("/")[2]: golden[name] for name in golden.files if name.startswith("input/0/")}
        expected = golden["output/0/OUTPUT__0"]
    np.testing.assert_allclose(client.infer("weighted", inputs)["OUTPUT__0"], expected, rtol=1e-4, atol=1e-6)


def test_sizes_that_the_package_is_not_made_for_are_refused(client: Client) -> None:
    """Compiled code would read beyond the end of the smaller input, or take the other side of an `if`."""
    with pytest.raises(InvalidInput, match="expected batch 3 as in input 'INPUT__0', found 2"):
        client.infer("weighted", {"INPUT__0": rows(3, 7, 3).numpy(), "INPUT__1": rows(2, 1).numpy()})
    with pytest.raises(InvalidInput, match="expected batch up to 40, found 41; send less at once"):
        client.infer("weighted", {"INPUT__0": rows(41, 7, 3).numpy(), "INPUT__1": rows(41, 1).numpy()})
    assert client.infer("weighted", {"INPUT__0": rows(3, 7, 3).numpy(), "INPUT__1": rows(3, 1).numpy()})


def test_requests_are_joined_where_the_configuration_says_so(
    model: nn.Module, repository: Repository, server: EmbeddedTriton, client: Client
) -> None:
    """With a batch of the server's own and two instances, four callers get their own rows of one batch of four."""
    sequence, weight = rows(4, 7, 3, seed=3), rows(4, 1, seed=4)
    with torch.no_grad():
        expected = model(sequence, weight)["scores"].numpy()

    def call(row: int) -> np.ndarray:
        inputs = {"INPUT__0": sequence[row : row + 1].numpy(), "INPUT__1": weight[row : row + 1].numpy()}
        return np.asarray(client.infer("batching", inputs, outputs=["OUTPUT__0"], timeout_s=60)["OUTPUT__0"])

    with ThreadPoolExecutor(4) as callers:
        answers = np.concatenate(list(callers.map(call, range(4))))
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-6)
    assert len(server.stub_pids()) == 4


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("renamed", "expected one of ARGS[0], ARGS[1], INPUT__0, INPUT__1, each once, found no such name"),
        (
            "elsewhere",
            "one compiled for cpu, where this instance is, found one compiled for cuda; export it again with",
        ),
        ("sequences", "sequence_batching: expected nothing, it is not supported for a model.pt2"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_reason(server: EmbeddedTriton, name: str, reason: str) -> None:
    """The log says what was expected, what was found and what to do."""
    assert server.models == ("batching", "pictured", "weighted")
    assert reason in server.log_path.read_text(), json.dumps(server.log_tail(60))

"""Published models in the real Triton: they load, answer as PyTorch does, and follow promote and rollback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc
from torch import nn

from export_helpers import Fused, rows
from export_publisher import publish_again
from naiad.client import Client
from naiad.export import Repository, export, export_recipe, load_recipe
from naiad.server import EmbeddedTriton


@pytest.fixture(scope="module")
def digits() -> nn.Module:
    model: nn.Module = load_recipe("digits").build()
    return model


@pytest.fixture(scope="module")
def fused() -> nn.Module:
    return Fused()


@pytest.fixture(scope="module")
def repository(digits: nn.Module, fused: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The digits, a model with several inputs and outputs, and one without a batch dimension whose class only this
    function knows, as a notebook's is."""
    one = 1.0

    class Total(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.sum() * one, x.cumsum(0)

    repo = Repository(tmp_path_factory.mktemp("export") / "models")
    export_recipe(load_recipe("digits"), repository=repo, model=digits, cores=2)
    sample = {"ids": torch.arange(12).reshape(4, 3) % 10, "weights": rows(4, 3), "unused": rows(4, 2)}
    export(fused, "fused", samples=[sample], repository=repo, max_batch_size=4)
    export(
        Total(),
        "total",
        samples=[(rows(5),)],
        dynamic={"x": {0: "length"}},
        max_batch_size=0,
        outputs=["total", "running"],
        repository=repo,
    )
    return repo


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(repository.path, watch=True) as triton:
        yield triton


@pytest.fixture
def client(server: EmbeddedTriton) -> Iterator[Client]:
    with server.client() as client:
        yield client


def test_names_and_kinds_of_tensors_survive(repository: Repository) -> None:
    """Several inputs, nested dict outputs, a passed-through input and a scalar per row keep their names; an input that
    no operator reads stays, and the report says so."""
    config = repository.config("fused")
    assert [tensor.name for tensor in config.input] == ["ids", "weights", "unused"]
    outputs = [(tensor.name, list(tensor.dims), tensor.HasField("reshape")) for tensor in config.output]
    assert outputs == [("pooled", [4], False), ("more_norm", [1], True), ("same", [3], False)]
    report = repository.version("fused", 1).report
    assert report is not None
    assert "unused input" in [finding.check for finding in report.findings]


@pytest.mark.parametrize("target", ["24.10", "26.07"])
def test_what_is_published_lints_clean(repository: Repository, target: str) -> None:
    """No field of an exported entry is one that the embedded server, or NVIDIA's container, would refuse."""
    assert [str(found) for found in repository.lint(target=target)] == []


def test_without_a_batch_dimension_nothing_is_batched(repository: Repository, client: Client) -> None:
    """With max_batch_size 0 the dims are complete, a scalar is [1], and any length is answered."""
    config = repository.config("total")
    assert [list(tensor.dims) for tensor in (*config.input, *config.output)] == [[-1], [1], [-1]]
    assert not config.HasField("dynamic_batching")
    answer = client.infer("total", {"x": np.arange(4, dtype=np.float32)})
    assert answer["total"].tolist() == [6]
    assert answer["running"].tolist() == [0, 1, 3, 6]


@pytest.mark.parametrize("model", ["digits", "fused", "total"])
def test_golden_pairs_are_answered_as_pytorch_did(repository: Repository, client: Client, model: str) -> None:
    """Every request of `golden.npz` gets its response from the server."""
    (number,) = repository.versions(model)
    with np.load(repository.path / model / str(number) / "golden.npz") as golden:
        cases = {int(name.split("/")[1]) for name in golden.files}
        for case in cases:
            pairs = {name: golden[name] for name in golden.files if name.split("/")[1] == str(case)}
            inputs = {name.split("/")[2]: array for name, array in pairs.items() if name.startswith("input")}
            outputs = {name.split("/")[2]: array for name, array in pairs.items() if name.startswith("output")}
            answer = client.infer(model, inputs)
            for name, expected in outputs.items():
                np.testing.assert_allclose(answer[name].reshape(expected.shape), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", ["digits", "fused", "total"])
def test_the_server_is_verified_against_the_repository(repository: Repository, client: Client, model: str) -> None:
    """What `naiad models verify --server` does: several tensors, a scalar a row, and a model without batches pass."""
    (found,) = repository.verify_served(model, client)
    assert found.problems == ()
    assert found.num_pairs >= 1
    assert {output.output for output in found.outputs} == {tensor.name for tensor in repository.config(model).output}


@pytest.mark.parametrize("batch", [1, 2, 5, 32, 64])
def test_digits_equal_pytorch_at_every_batch(digits: nn.Module, client: Client, batch: int) -> None:
    """The server's probabilities are PyTorch's, also at sizes that were not verified."""
    images = load_recipe("digits").held_out()[0]["image"][:batch]
    expected = digits(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(client.infer("digits", {"image": images})["probabilities"], expected, atol=1e-5)


def test_digits_are_as_accurate_as_in_pytorch(digits: nn.Module, client: Client) -> None:
    """At least 97 % of the held-out digits are right, as many as in PyTorch."""
    recipe = load_recipe("digits")

    def served(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        parts = [inputs["image"][start : start + 64] for start in range(0, len(inputs["image"]), 64)]
        answers = [client.infer("digits", {"image": part})["probabilities"] for part in parts]
        return {"probabilities": np.concatenate(answers)}

    def in_pytorch(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"probabilities": digits(torch.from_numpy(inputs["image"])).detach().numpy()}

    accuracy = recipe.evaluate(served)["accuracy"]
    assert accuracy == recipe.evaluate(in_pytorch)["accuracy"]
    assert accuracy >= 0.97


def test_labels_are_given_with_a_classification(server: EmbeddedTriton) -> None:
    """A client that asks for classes gets the recipe's labels."""
    inputs, labels = load_recipe("digits").held_out()
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as reference:
        image = tritonclient.grpc.InferInput("image", [1, 1, 8, 8], "FP32")
        image.set_data_from_numpy(inputs["image"][:1])
        output = tritonclient.grpc.InferRequestedOutput("probabilities", class_count=1)
        answer = reference.infer("digits", [image], outputs=[output]).as_numpy("probabilities")
    assert answer.ravel()[0].decode().split(":")[1:] == [str(labels[0]), str(labels[0])]


def test_one_warm_instance_batches(client: Client) -> None:
    """The model has one instance, forms batches, and was warmed up with one row and with the largest batch."""
    config = client.model_config("digits")
    assert [group.count for group in config.instance_group] == [1]
    assert config.HasField("dynamic_batching")
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 64]
    assert {1, 64} <= client.statistics("digits")[0].batches.keys()


def test_promote_and_rollback_reach_the_server(repository: Repository, client: Client) -> None:
    """A running server follows promote and rollback while requests flow, and none of them fails."""
    image = load_recipe("digits").held_out()[0]["image"][:1]
    second = publish_again(repository, "digits")
    assert client.infer("digits", {"image": image}).model_version == "1"
    repository.promote("digits", second.number)
    _infer_until_version(client, image, "2")
    assert repository.rollback("digits") == (1,)
    _infer_until_version(client, image, "1")


def _infer_until_version(client: Client, image: np.ndarray, version: str) -> None:
    deadline = time.monotonic() + 60
    while client.infer("digits", {"image": image}).model_version != version:
        assert time.monotonic() < deadline, f"version {version} was not served within a minute"


def test_what_lies_beside_the_models_is_not_served(repository: Repository, client: Client) -> None:
    """The journal and the lock at the root are no models to the server, nor is a stage that is open."""
    with repository.stage():
        assert {state.name for state in client.models()} == {"digits", "fused", "total"}
        assert Path(repository.path / "journal.jsonl").is_file()

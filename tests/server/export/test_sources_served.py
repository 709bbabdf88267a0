"""What came from other sources than a plain module, in the real Triton: text, a saved program, nested states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from export_helpers import rows, run_naiad
from naiad.client import Client
from naiad.export import Repository, export
from naiad.server import EmbeddedTriton


class Steps(nn.Module):
    """An LSTM of any length whose state goes in and comes out as a list, and a number that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: torch.Tensor, state: list[torch.Tensor], scale: float = 1.0) -> dict[str, object]:
        y, (h, c) = self.lstm(x, (state[0].transpose(0, 1), state[1].transpose(0, 1)))
        return {"y": y * scale, "state": [h.transpose(0, 1), c.transpose(0, 1)]}


class Looks(nn.Module):
    """A table that is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids).mean(1)


@pytest.fixture(scope="module")
def steps() -> Steps:
    return Steps().eval()


@pytest.fixture(scope="module")
def looks() -> Looks:
    return Looks().eval()


@pytest.fixture(scope="module")
def repository(steps: Steps, looks: Looks, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    directory = tmp_path_factory.mktemp("sources")
    repo = Repository(directory / "models")
    _export_labels(directory)
    shapes = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(looks, (torch.zeros(5, 6, dtype=torch.int64),), dynamic_shapes=shapes, strict=False)
    torch.export.save(program, directory / "looks.pt2")
    export(directory / "looks.pt2", "looks", repository=repo, max_batch_size=4)
    export(
        steps,
        "steps",
        samples=[(rows(3, 5, 4), [rows(3, 1, 6), rows(3, 1, 6, seed=1)], 2.0)],
        dynamic={"x": {0: "batch", 1: "length"}, "state_0": {0: "batch"}, "state_1": {0: "batch"}},
        repository=repo,
        max_batch_size=4,
    )
    return repo


def _export_labels(directory: Path) -> None:
    """Publish a label encoder, from text to text, by the command, with samples in a file."""
    encode = helper.make_node(
        "LabelEncoder", ["word"], ["label"], domain="ai.onnx.ml", keys_strings=["cat", "dög"], values_strings=["0", "1"]
    )
    tensors = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n", 1]) for name in ("word", "label")]
    graph = helper.make_graph([encode], "labels", tensors[:1], tensors[1:])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), directory / "labels.onnx")
    np.savez(directory / "words.npz", word=np.array([["cat"], ["dög"], ["other"]]))
    done = run_naiad(
        "export", "labels.onnx", "--samples", "words.npz", "-r", "models", "--max-batch-size", "4", cwd=directory
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def client(repository: Repository) -> Iterator[Client]:
    with EmbeddedTriton(repository.path) as server, server.client() as client:
        yield client


def test_text_is_served(client: Client) -> None:
    """An ONNX file from text to text answers words of any script, in batches."""
    words = np.array([["dög"], ["cat"], ["dög"]], dtype=object)
    labels = client.infer("labels", {"word": words})["label"].ravel().tolist()
    assert [label.decode() if isinstance(label, bytes) else label for label in labels] == ["1", "0", "1"]


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 9), (4, 3)])
def test_a_saved_program_is_served_at_every_size(looks: Looks, client: Client, batch: int, length: int) -> None:
    """A `.pt2` file that was exported without samples answers as the module that it came from."""
    ids = torch.arange(batch * length).reshape(batch, length) % 10
    answer = client.infer("looks", {"ids": ids.numpy()})["output"]
    np.testing.assert_allclose(answer, looks(ids).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 9), (4, 3)])
def test_a_nested_state_goes_in_and_out(steps: Steps, client: Client, batch: int, length: int) -> None:
    """The parts of a list are inputs and outputs of the server; two calls with the state between them are one long
    call, at lengths that no sample had."""
    x = rows(batch, 2 * length, 4, seed=3)
    state = [torch.zeros(batch, 1, 6), torch.zeros(batch, 1, 6)]
    expected = steps(x, state, 2.0)["y"]
    assert isinstance(expected, torch.Tensor)
    found = []
    for part in x.split(length, dim=1):
        inputs = {"x": part.numpy(), "state_0": state[0].numpy(), "state_1": state[1].numpy()}
        answer = client.infer("steps", inputs)
        found.append(answer["y"])
        state = [torch.from_numpy(np.array(answer[f"state_{index}_out"])) for index in (0, 1)]
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected.detach().numpy(), atol=1e-5)


def test_the_report_says_which_exporter_and_why(repository: Repository) -> None:
    """The recurrent net of any length came out of the legacy exporter, because dynamo fixes the length."""
    report = repository.version("steps", 1).report
    assert report is not None
    assert report.graph is not None
    assert report.graph.exporter == "legacy"
    assert "dimension 1 of input 'x' was declared dynamic" in report.graph.reason
    assert report.graph.operators["LSTM"] == 1
    assert repository.manifest("steps", 1)["onnx"]["exporter"] == "legacy"
    assert repository.manifest("labels", 1)["onnx"]["exporter"] == "copy"

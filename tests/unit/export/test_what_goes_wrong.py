"""What goes silently wrong with `torch.onnx.export` alone, and what the export does instead: one test for each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export_helpers import (
    Eigenvalues,
    Fused,
    Recurrent,
    Scores,
    ViewsThree,
    answer_of,
    contents,
    rows,
)
from naiad.export import CaptureFailed, CheckFailed, VerificationFailed, Version, export

DYNAMIC = torch.export.Dim.DYNAMIC


class TriplesSmallBatches(nn.Module):
    """A Python `if` on the batch size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] >= 3:
            return x * 2
        return x * 3


class ReshapesOneRow(nn.Module):
    """Another way to the same shape for a single row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 2
        return x.reshape(1, -1) if x.shape[0] == 1 else x.flatten(1)


class ReversedWhenExported(nn.Module):
    """Stands for an exporter that gets a model wrong: every class is another one in the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(-1) if torch.compiler.is_exporting() else x * 1.0


def plain(model: nn.Module, *inputs: torch.Tensor, dynamic: bool = True, **options: Any) -> Any:
    """Export as the manual says, with an open first dimension."""
    shapes = tuple({0: DYNAMIC} for _ in inputs) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.onnx.export(model, inputs, dynamo=True, verbose=False, dynamic_shapes=shapes, **options)


def run(graph: Any, **feeds: np.ndarray[Any, Any]) -> list[Any]:
    """Run what `plain` gave."""
    data = graph.model_proto.SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)


def dims(graph: Any) -> list[list[Any]]:
    """Return the declared dimensions of the outputs of `plain`'s graph."""
    return [
        [dim if isinstance(dim, int) else "open" for dim in value.shape.dims] for value in graph.model.graph.outputs
    ]


def test_1_a_python_if_on_the_batch_size(tmp_path: Path) -> None:
    """Plain: exported without a word, and wrong at batch 1. Here: refused, with the batches it would be right for."""
    graph = plain(TriplesSmallBatches(), rows(3, 4))
    one = rows(1, 4).numpy()
    assert not np.allclose(run(graph, x=one)[0], one * 3)
    with pytest.raises(CheckFailed, match=r"only valid for batch >= 3: a Python `if` on that size"):
        export(TriplesSmallBatches(), "wrong", samples=[(rows(3, 4),)], repository=tmp_path / "models")
    assert contents(tmp_path) == ["models"]


def test_2_a_constant_where_the_batch_belongs(tmp_path: Path) -> None:
    """Plain: the output is declared static although the input is not, and the ranges do not show it. Here: refused."""
    graph = plain(ViewsThree(), rows(3, 4))
    assert dims(graph)[0][0] == 3
    assert [limits.lower for limits in graph.exported_program.range_constraints.values()] == [0]
    with pytest.raises(CheckFailed, match=r"itself fails in PyTorch at batch 1.*A constant in view\(\)"):
        export(ViewsThree(), "wrong", samples=[(rows(3, 4),)], repository=tmp_path / "models")
    assert contents(tmp_path) == ["models"]


def test_3_a_sample_of_one_row(tmp_path: Path) -> None:
    """Plain: an output is static [1, 4], which Triton refuses with a batch. Here: captured with several rows."""
    assert dims(plain(ReshapesOneRow(), rows(1, 4), dynamic=False)) == [[1, 4]]
    version = export(ReshapesOneRow(), "one", samples=[(rows(1, 4),)], repository=tmp_path / "models", max_batch_size=4)
    assert json.loads((version.path / "manifest.json").read_text())["outputs"][0]["shape"] == ["batch", 4]
    for batch in (1, 3):
        x = rows(batch, 4).numpy()
        np.testing.assert_allclose(answer_of(version.path, x=x)[0], x * 2)


def test_4_a_second_recurrent_net_in_one_process(tmp_path: Path) -> None:
    """Plain: the second export of a process fails on a size that is left from the first. Here: a fresh process each."""
    code = (
        "import torch\n"
        "from export_helpers import Recurrent, rows\n"
        "shapes = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)\n"
        "for batch in (4, 6):\n"
        "    torch.onnx.export(Recurrent(), (rows(batch, 5, 4),), dynamo=True, verbose=False, dynamic_shapes=shapes)\n"
        "    print('exported')\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    tests = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "exported\n"
    assert "tracing inferred a static shape of 5" in done.stderr
    model = Recurrent()
    with ThreadPoolExecutor(2) as pool:
        versions = list(pool.map(lambda name: _publish_recurrent(model, name, tmp_path / "models"), ("one", "two")))
    for version in versions:
        for length in (3, 9):
            x = rows(2, length, 4, seed=9)
            np.testing.assert_allclose(answer_of(version.path, x=x.numpy())[0], model(x).detach().numpy(), atol=1e-5)
        assert version.report is not None
        assert "exporter" in [finding.check for finding in version.report.findings]


def _publish_recurrent(model: nn.Module, name: str, repository: Path) -> Version:
    return export(
        model,
        name,
        samples=[(rows(4, 5, 4),)],
        dynamic={"x": {0: "batch", 1: "length"}},
        repository=repository,
        max_batch_size=4,
        exporter="legacy",
    )


class Trained(Fused):
    """In train mode, with weights that are too large to lie in the graph, and an input that is passed through."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 100)
        self.dropout = nn.Dropout(0.5)

    def forward(self, ids: torch.Tensor, weights: torch.Tensor, unused: torch.Tensor) -> dict[str, Any]:
        return super().forward(ids, self.dropout(weights), unused)


SAMPLE = {"ids": torch.arange(12).reshape(4, 3) % 10, "weights": rows(4, 3), "unused": rows(4, 2)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Version]:
    model = Trained().train()
    repository = tmp_path_factory.mktemp("trained") / "models"
    return model, export(model, "trained", samples=[SAMPLE], repository=repository, max_batch_size=4)


def test_5_train_mode(trained: tuple[nn.Module, Version]) -> None:
    """Plain: dropout stays in the graph. Here: exported in eval mode, said in a finding, and put back."""
    graph = plain(Scores().train(), rows(5, 4))
    assert "Dropout" in [node.op_type for node in graph.model.graph]
    model, version = trained
    assert "Dropout" not in [node.op_type for node in onnx.load(version.path / "model.onnx").graph.node]
    assert version.report is not None
    assert "train mode" in [finding.check for finding in version.report.findings]
    assert all(module.training for module in model.modules())


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> VerificationFailed:
    """What the export says of a model that the exporter gets wrong; nothing is published."""
    x = torch.eye(4)
    directory = tmp_path_factory.mktemp("refused")
    with pytest.raises(VerificationFailed) as caught:
        export(ReversedWhenExported(), "wrong", samples=[(x,)], repository=directory / "models", max_batch_size=4)
    assert contents(directory) == ["models"]
    return caught.value


def test_6_a_mismatch_that_was_asked_to_be_verified(
    refused: VerificationFailed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain: `verify=True` prints a cross and returns as if nothing were. Here: refused, with the largest error."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    x = torch.eye(4)
    graph = plain(ReversedWhenExported(), x, verify=True)
    assert not np.allclose(run(graph, x=x.numpy())[0], x.numpy())
    assert "output 'output' of wrong differs from PyTorch at batch 1" in str(refused)
    assert refused.max_abs_error == 1.0


def test_7_weights_beside_the_graph(trained: tuple[nn.Module, Version], tmp_path: Path) -> None:
    """Plain: a side file is always written, and the graph alone does not load. Here: one file."""
    plain(Trained().eval(), *SAMPLE.values(), f=tmp_path / "plain.onnx")
    assert (tmp_path / "plain.onnx.data").is_file()
    (tmp_path / "alone").mkdir()
    copied = shutil.copy(tmp_path / "plain.onnx", tmp_path / "alone" / "model.onnx")
    with pytest.raises(Exception, match="External data"):
        onnxruntime.InferenceSession(str(copied), providers=["CPUExecutionProvider"])
    copied = shutil.copy(trained[1].path / "model.onnx", tmp_path / "alone" / "model.onnx")
    onnxruntime.InferenceSession(str(copied), providers=["CPUExecutionProvider"])


def test_8_names_of_tensors(trained: tuple[nn.Module, Version]) -> None:
    """Plain: an input that is passed through is renamed, and dict outputs lose their names. Here: they keep them."""
    graph = plain(Fused(), *SAMPLE.values()).model.graph
    assert [value.name for value in graph.inputs] == ["ids", "weights_orig", "unused"]
    assert "pooled" not in [value.name for value in graph.outputs]
    manifest = json.loads((trained[1].path / "manifest.json").read_text())
    assert [tensor["name"] for tensor in manifest["inputs"]] == ["ids", "weights", "unused"]
    assert [tensor["name"] for tensor in manifest["outputs"]] == ["pooled", "more_norm", "same"]


def test_9_what_the_exporter_cannot_read(tmp_path: Path) -> None:
    """Plain: a ScriptModule is refused, an operator without a conversion is a page of text. Here: the legacy exporter
    reads the one and says so, and the other is named with its line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(Scores().eval())
    with pytest.raises(Exception, match=r"Failed to export the model with torch\.export"):
        plain(script, rows(5, 4))
    version = export(script, "script", samples=[(rows(5, 4),)], repository=tmp_path / "models", max_batch_size=4)
    assert version.report is not None
    assert version.report.graph is not None
    assert version.report.graph.exporter == "legacy"
    assert version.report.graph.reason == "the model is a ScriptModule, which only the legacy exporter reads"
    with pytest.raises(CaptureFailed, match=r"ONNX has no operator for aten\.linalg_eig; .*export_helpers\.py:\d+"):
        export(Eigenvalues(), "eigen", samples=[(rows(5, 4, 4),)], repository=tmp_path / "models", exporter="dynamo")


def test_10_a_graph_that_is_wrong_without_an_error(refused: VerificationFailed) -> None:
    """Plain: no class is right any more, and nothing says so. Here: real samples are compared before publishing."""
    x = torch.eye(4)
    graph = plain(ReversedWhenExported(), x)
    assert (run(graph, x=x.numpy())[0].argmax(1) == x.numpy().argmax(1)).mean() == 0.0
    assert "nothing was published" in str(refused)


def test_a_file_stamped_newer_than_the_server_reads(tmp_path: Path) -> None:
    """Plain: `onnx.helper.make_model` stamps the newest format, which an older runtime refuses. Here: it is taken back
    where nothing newer is used, and the report says so."""
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "made",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(rows(4, 2).numpy(), "w")],
    )
    model = onnx.helper.make_model(made)
    newest = (model.ir_version, model.opset_import[0].version)
    assert newest > (10, 23)
    onnx.save(model, tmp_path / "made.onnx")
    version = export(tmp_path / "made.onnx", "made", samples=[(rows(3, 4).numpy(),)], repository=tmp_path / "models")
    published = onnx.load(version.path / "model.onnx")
    assert (published.ir_version, published.opset_import[0].version) < newest
    assert version.report is not None
    assert [finding.check for finding in version.report.findings].count("format") == 2

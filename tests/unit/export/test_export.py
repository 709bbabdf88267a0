"""What `export` publishes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export_helpers import (
    FreezesLength,
    MixesRows,
    Random,
    Scores,
    Stateful,
    WrongAlone,
    answer_of,
    contents,
    rows,
)
from naiad.export import (
    CaptureFailed,
    CheckFailed,
    InvalidExport,
    InvalidName,
    NotWritable,
    Repository,
    Tolerance,
    VerificationFailed,
    Version,
    export,
)
from naiad.export._source.module import ModuleSubject
from naiad.export._source.reference import answers, check_rows
from naiad.export._source.subject import bind


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scores, Version, Repository]:
    """A model that was in train mode, published once with a labels file, a setting and a batch of eight at most."""
    repository = Repository(tmp_path_factory.mktemp("a repository with spaces") / "models")
    model = Scores().train()
    version = export(
        model,
        "scores",
        samples=[(rows(5, 4),), (rows(2, 4, seed=1),)],
        repository=repository,
        max_batch_size=8,
        labels=["low", "middle", "high"],
        settings={"dynamic_batching.max_queue_delay_microseconds": 100, "parameters.notes.owner": "team-a"},
        cores=2,
    )
    return model, version, repository


class TestPublished:
    def test_answers_as_pytorch_at_every_batch(self, scores: tuple[Scores, Version, Repository]) -> None:
        """The published graph equals PyTorch in eval mode, also at sizes that were not verified."""
        model, version, _ = scores
        model.eval()
        for batch in (1, 2, 5, 8, 13):
            x = rows(batch, 4, seed=batch)
            (actual,) = answer_of(version.path, x=x.numpy())
            np.testing.assert_allclose(actual, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
        model.train()

    def test_leaves_the_model_as_it_was(self, scores: tuple[Scores, Version, Repository]) -> None:
        """A model in train mode is exported in eval mode, is in train mode again afterwards, and the report says so."""
        model, version, _ = scores
        assert all(module.training for module in model.modules())
        assert version.report is not None
        assert [finding.check for finding in version.report.findings] == ["train mode"]

    def test_verifies_one_two_three_seven_and_the_largest_batch(
        self, scores: tuple[Scores, Version, Repository]
    ) -> None:
        """The report names the batch sizes that were compared, and the errors are within the tolerance."""
        _, version, _ = scores
        assert version.report is not None
        assert version.report.batches == (1, 2, 3, 7, 8)
        assert [parity.output for parity in version.report.parity] == ["output"]
        assert version.report.parity[0].max_rel_error < 1e-4

    def test_config_is_complete(self, scores: tuple[Scores, Version, Repository]) -> None:
        """The configuration has all that Triton needs without auto-complete, and what was asked for."""
        _, version, repository = scores
        config = repository.config("scores")
        assert (config.name, config.backend, config.max_batch_size) == ("scores", "onnxruntime", 8)
        assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [("x", [4])]
        assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [("output", [3])]
        assert config.dynamic_batching.max_queue_delay_microseconds == 100
        assert not config.dynamic_batching.HasField("default_queue_policy")
        assert [group.count for group in config.instance_group] == [1]
        assert [warmup.batch_size for warmup in config.model_warmup] == [1, 8]
        assert config.parameters["notes.owner"].string_value == "team-a"
        assert list(config.version_policy.specific.versions) == [version.number]
        labels = repository.path / "scores" / config.output[0].label_filename
        assert labels.read_text().splitlines() == ["low", "middle", "high"]

    def test_manifest_says_how_it_was_made(self, scores: tuple[Scores, Version, Repository]) -> None:
        """The manifest has hashes of all files, the tensors, the parity report and the versions of the libraries."""
        _, version, repository = scores
        manifest = json.loads((version.path / "manifest.json").read_text())
        assert set(manifest["files"]) == {"export-report.html", "golden.npz", "model.onnx"}
        assert manifest["inputs"] == [{"name": "x", "dtype": "FP32", "shape": ["batch", 4]}]
        assert manifest["onnx"] == {"opset": 20, "ir_version": 10, "exporter": "dynamo"}
        assert manifest["versions"]["torch"] == torch.__version__
        assert len(manifest["source"]["weights_sha256"]) == 64
        assert manifest["report"]["batches"] == [1, 2, 3, 7, 8]
        assert repository.version("scores", version.number) == version

    def test_golden_pairs_are_pytorchs_answers(self, scores: tuple[Scores, Version, Repository]) -> None:
        """`golden.npz` has a request and its response for each verified batch size."""
        model, version, _ = scores
        model.eval()
        with np.load(version.path / "golden.npz") as golden:
            sizes = [golden[f"input/{case}/x"].shape[0] for case in range(5)]
            expected = model(torch.from_numpy(golden["input/2/x"])).detach().numpy()
            np.testing.assert_allclose(golden["output/2/output"], expected, rtol=1e-6)
            assert len(golden.files) == 10
        model.train()
        assert sizes == [1, 2, 3, 7, 8]

    def test_leaves_nothing_else_behind(self, scores: tuple[Scores, Version, Repository]) -> None:
        """Beside the version are configuration, labels, warm-up data and journal; nothing is next to the repository."""
        _, version, repository = scores
        assert contents(repository.path) == [
            "journal.jsonl",
            "scores",
            f"scores/{version.number}",
            *(
                f"scores/{version.number}/{name}"
                for name in ("export-report.html", "golden.npz", "manifest.json", "model.onnx")
            ),
            "scores/config.pbtxt",
            "scores/labels.txt",
            "scores/warmup",
            "scores/warmup/0_0_x",
        ]
        assert [path.name for path in repository.path.parent.iterdir()] == ["models"]


def test_a_state_that_goes_in_and_out_has_two_names(tmp_path: Path) -> None:
    """An output that PyTorch names like an input is told apart, as ONNX needs it; sizes that a convolution needs at
    least are no error."""
    model = Stateful()
    version = export(
        model,
        "stateful",
        samples=[(rows(3, 1, 9), rows(3, 6))],
        dynamic={"x": {0: "batch", 2: "length"}, "h": {0: "batch"}},
        repository=tmp_path / "models",
        max_batch_size=4,
    )
    assert version.report is not None
    assert [parity.output for parity in version.report.parity] == ["y", "h_out"]
    assert [finding.message for finding in version.report.findings] == ["the graph is valid for length >= 3 only"]


REFUSED = [
    pytest.param(
        WrongAlone(),
        (5, 4),
        VerificationFailed,
        r"at batch 1 .*the largest error .*helpers\.py:\d+: return x \* 3",
        id="batch 1",
    ),
    pytest.param(Random(), (5, 4), CheckFailed, r"differs between two calls", id="chance"),
    pytest.param(nn.Flatten(0), (5, 4), CheckFailed, r"shape \[4\] at batch 1.*must be the batch", id="no batch"),
]


@pytest.mark.parametrize(("model", "shape", "error", "message"), REFUSED)
def test_a_wrong_model_is_refused_and_nothing_is_published(
    model: nn.Module, shape: tuple[int, ...], error: type[Exception], message: str, tmp_path: Path
) -> None:
    """A model that would answer wrongly once served is refused with the reason, and the repository stays empty."""
    with pytest.raises(error, match=message) as caught:
        export(model, "wrong", samples=[(rows(*shape),)], repository=tmp_path / "models")
    assert contents(tmp_path) == ["models"]
    if isinstance(caught.value, VerificationFailed):
        assert (caught.value.model, caught.value.output, caught.value.batch) == ("wrong", "output", 1)
        assert caught.value.max_rel_error is not None
        assert caught.value.max_rel_error > 0.1
        assert caught.value.divergence is not None
        assert caught.value.divergence.cause == "capture"


def test_a_model_that_mixes_the_rows_of_a_batch_is_refused() -> None:
    """A row whose answer depends on its neighbours is refused: the server decides who they are."""
    subject = ModuleSubject(MixesRows())
    samples = bind(subject, [(rows(5, 4),)], None, 8)
    found = answers(subject, samples)
    with pytest.raises(CheckFailed, match=r"'output' of one row is not the same alone and at batch 2"):
        check_rows(found, samples, Tolerance())


def test_a_dynamic_length_that_the_graph_fixes_is_refused(tmp_path: Path) -> None:
    """A loop over a dimension that was declared dynamic is an error that names the input and the dimension."""
    with pytest.raises(CaptureFailed, match=r"dimension 1 of input 'x' was declared dynamic and the model fixes it"):
        export(
            FreezesLength(),
            "frozen",
            samples=[(rows(4, 5),)],
            dynamic={"x": {0: "batch", 1: "length"}},
            repository=tmp_path / "models",
        )
    assert contents(tmp_path) == ["models"]


WRONG_USE = [
    pytest.param({"samples": []}, InvalidExport, "at least one tuple or dict", id="no samples"),
    pytest.param({"samples": rows(3, 4)}, InvalidExport, "must be a list", id="a bare tensor"),
    pytest.param({"samples": [(rows(3, 4), rows(3, 4))]}, InvalidExport, "does not fit forward", id="too many"),
    pytest.param({"samples": [{"y": rows(3, 4)}]}, InvalidExport, "does not fit forward", id="unknown name"),
    pytest.param({"samples": [(3,)]}, InvalidExport, "baked in as a constant", id="a number"),
    pytest.param({"samples": [(rows(3, 4).bfloat16(),)]}, InvalidExport, "bfloat16; expected one of", id="dtype"),
    pytest.param({"dynamic": {"y": {0: "batch"}}}, InvalidExport, "names the input 'y'", id="dynamic of no input"),
    pytest.param({"dynamic": {"x": {7: "batch"}}}, InvalidExport, "from 0 to 1", id="dynamic of no dimension"),
    pytest.param({"dynamic": {}}, InvalidExport, "first dimension of every input is the batch", id="frozen batch"),
    pytest.param({"max_batch_size": -1}, InvalidExport, "at least 0", id="negative batch"),
    pytest.param({"precision": "int9"}, InvalidExport, "precision must be one of fp32", id="precision"),
    pytest.param({"opset": 99}, InvalidExport, "opset must be from 18", id="opset"),
    pytest.param({"outputs": ["a", "b"]}, InvalidExport, "1 outputs .*; 2 names", id="output names"),
    pytest.param({"name": "../up"}, InvalidName, "not a model name", id="name"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG_USE)
def test_wrong_use_is_refused_before_anything_is_written(
    change: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    """A wrong argument gives one clear message, a ValueError, and an empty repository."""
    arguments: dict[str, object] = {"name": "scores", "samples": [(rows(3, 4),)], "repository": tmp_path / "models"}
    with pytest.raises(error, match=message) as caught:
        export(Scores(), **(arguments | change))  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    assert contents(tmp_path) in ([], ["models"])


def test_a_repository_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    """A file in the repository's place is reported before the model is run even once."""
    (tmp_path / "models").write_text("not a directory")

    class Untouched(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError(x)

    with pytest.raises(NotWritable, match="cannot write to the model repository"):
        export(Untouched(), "scores", samples=[(rows(3, 4),)], repository=tmp_path / "models")

"""The precision step: what is published for a precision that was asked for, and what is refused."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from rich.console import Console

from export_helpers import contents, run_naiad
from naiad.cli._precision import precision_notes, precision_table
from naiad.export import InvalidExport, PrecisionRefused, Report, Repository, Tolerance, Version, export
from naiad.export._precision.choose import Asked, _split
from naiad.export._precision.served import served
from naiad.export._runtime import turns
from naiad.export._source.samples import Samples
from precision_helpers import Encoder, Net, answers, choose, sentences

RECIPE = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv1d(2, 3, 1), torch.nn.Flatten())

def samples():
    return [(torch.randn(4, 2, 5),)]
"""


@pytest.fixture(scope="module", autouse=True)
def _short_timing() -> Iterator[None]:
    """A few rounds each: these tests judge no speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "_MAX_ROUNDS", 7)
        patch.setattr(turns, "_BLOCK_S", 0.0002)
        yield


@pytest.fixture(scope="module")
def automatic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Version, Report, Repository]:
    """An encoder, published with whatever is the fastest on this machine."""
    repository = Repository(tmp_path_factory.mktemp("auto") / "models")
    version = export(
        Encoder(), "encoder", samples=[sentences()], repository=repository, max_batch_size=8, precision="auto"
    )
    assert version.report is not None
    return version, version.report, repository


class TestAuto:
    def test_is_never_slower_than_fp32(self, automatic: tuple[Version, Report, Repository]) -> None:
        """Exactly one candidate is chosen: one with a gain, or fp32 if none has."""
        _, report, _ = automatic
        (chosen,) = [result for result in report.precision if result.chosen]
        assert chosen.refused is None
        assert chosen.precision == "fp32" or (chosen.speed_up or 0) >= 1.05
        assert report.precision[0].precision == "fp32"

    def test_every_candidate_is_in_the_table(self, automatic: tuple[Version, Report, Repository]) -> None:
        """What was tried is verified and timed at three batch sizes, or refused in words."""
        _, report, _ = automatic
        tried = {f"{result.precision} {result.method}".strip() for result in report.precision}
        static = {"int8 static minmax", "int8 static entropy", "int8 static percentile"}
        assert tried == {"fp32", "fp32 fused", "fp16", "bf16", "int8 dynamic", "int4 weights", *static}
        for result in report.precision:
            assert result.refused or [item.batch for item in result.latency] == [1, 3, 8]
            assert result.parity or result.refused

    def test_the_published_graph_is_the_chosen_one(self, automatic: tuple[Version, Report, Repository]) -> None:
        """The version's file has the chosen candidate's size and error, and nothing else lies beside it."""
        version, report, repository = automatic
        (chosen,) = [result for result in report.precision if result.chosen]
        assert contents(version.path) == ["export-report.html", "golden.npz", "manifest.json", "model.onnx"]
        assert (version.path / "model.onnx").stat().st_size == chosen.size_bytes == report.size_bytes
        assert report.parity == chosen.parity
        assert report.tolerance == Tolerance.of(chosen.precision)
        assert json.loads((version.path / "manifest.json").read_text())["precision"] == chosen.precision
        assert repository.verify("encoder", version.number).problems == ()

    def test_the_table_survives_the_manifest(self, automatic: tuple[Version, Report, Repository]) -> None:
        """What is read from the manifest is what the export reported."""
        version, report, repository = automatic
        stored = repository.version("encoder", version.number).report
        assert stored is not None
        assert stored.precision == report.precision

    def test_a_mask_of_minus_infinity_is_calibrated(self, automatic: tuple[Version, Report, Repository]) -> None:
        """Histograms cannot hold infinities; none of the static candidates failed because of them."""
        _, report, _ = automatic
        static = [result for result in report.precision if result.method.startswith("static")]
        assert all(result.num_changed >= 8 and result.parity for result in static)


class TestNamed:
    def test_a_layer_that_spoils_the_rest_stays_in_fp32(self, spoilt_net: Net, tmp_path: Path) -> None:
        """int8 as a whole is beyond its tolerance; without one layer it passes, and the finding names that layer."""
        choice, files = choose(spoilt_net, tmp_path, "int8-dynamic", allow_slower=True)
        first, whole, chosen = choice.results
        assert (first.precision, first.chosen) == ("fp32", False)
        assert "expected at most" in str(whole.refused)
        assert chosen.chosen
        assert chosen.left_in_fp32 == ("node_linear_2",)
        assert any("node_linear_2" in finding.message for finding in choice.findings)
        expected, actual = (
            answers(spoilt_net.graph, spoilt_net.inputs),
            answers(files / "model.onnx", spoilt_net.inputs),
        )
        assert np.abs(actual[0] - expected[0]).max() < 0.05 * np.abs(expected[0]).max()

    def test_what_no_exclusion_saves_is_given_up(self, encoder_net: Net, tmp_path: Path) -> None:
        """With a tolerance that int8 cannot keep, half of the nodes are tried in fp32, and the numbers are told."""
        strict = Tolerance(rtol=1e-6, atol=1e-6, cosine=0.999999)
        with pytest.raises(PrecisionRefused, match=r"even with \d+ of 8 nodes left in fp32") as caught:
            choose(encoder_net, tmp_path, "int8-dynamic", tolerance=strict, allow_slower=True)
        assert contents(tmp_path / "files") == ["model.onnx"]
        assert [result.chosen for result in caught.value.results] == [True, False, False]

    def test_nothing_to_change_is_refused(self, convolutions_net: Net, tmp_path: Path) -> None:
        """int4 needs a MatMul; a graph without one is refused, even where slower is allowed, and fp32 is kept."""
        with pytest.raises(PrecisionRefused, match="no node was changed: the graph has no MatMul") as caught:
            choose(convolutions_net, tmp_path, "int4", allow_slower=True)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.model, again.precision, again.results) == ("net", "int4", caught.value.results)
        assert (tmp_path / "files" / "model.onnx").read_bytes() == convolutions_net.graph.read_bytes()

    def test_bf16_needs_other_hardware(self, digits_net: Net, tmp_path: Path) -> None:
        """What cannot be verified here is not published."""
        with pytest.raises(PrecisionRefused, match="no bf16 kernels on the CPU"):
            choose(digits_net, tmp_path, "bf16", allow_slower=True)

    @pytest.mark.parametrize("precision", ["int8", "int4"])
    def test_smaller_is_published_where_slower_is_allowed(
        self, digits_net: Net, tmp_path: Path, precision: str
    ) -> None:
        """A named precision that passes is published for its size, within the tolerance of its precision."""
        choice, files = choose(digits_net, tmp_path, precision, allow_slower=True)
        assert choice.precision == precision.partition("-")[0]
        assert contents(files) == ["model.onnx"]
        assert (files / "model.onnx").stat().st_size < 0.7 * digits_net.graph.stat().st_size
        assert choice.comparison.passed

    def test_of_calibrations_the_nearest_stands_for_all(self, digits_net: Net, tmp_path: Path) -> None:
        """Calibrations make the same operators, so that only the nearest is timed and the others say why not."""
        choice, _ = choose(digits_net, tmp_path, "int8-static", allow_slower=True)
        static = [result for result in choice.results if result.method.startswith("static")]
        (chosen,) = [result for result in static if result.chosen]
        assert len(static) == 3
        for result in static:
            assert result.chosen or "are nearer to PyTorch" in str(result.refused)
            assert max(item.max_rel_error for item in chosen.parity) <= max(
                item.max_rel_error for item in result.parity
            )

    def test_an_unknown_precision_is_refused_before_anything_is_run(self, tmp_path: Path) -> None:
        """The message has the list of what there is."""
        with pytest.raises(InvalidExport, match=r"precision must be one of fp32, auto, .*; found 'int2'"):
            export(Encoder(), "encoder", samples=[sentences()], repository=tmp_path / "models", precision="int2")
        assert not (tmp_path / "models").exists()


class TestTargets:
    def test_tensorrt_computes_in_fp16_from_the_graph_in_fp32(self, digits_net: Net, tmp_path: Path) -> None:
        """TensorRT chooses its layers for fp16 when it builds an engine; the file stays, and the finding says so."""
        choice, files = choose(digits_net, tmp_path, "fp16", accelerator="tensorrt")
        assert (files / "model.onnx").read_bytes() == digits_net.graph.read_bytes()
        assert ["not measured" in finding.message for finding in choice.findings] == [True]

    def test_for_cuda_fp16_is_verified_and_not_timed(self, digits_net: Net, tmp_path: Path) -> None:
        """The file is in fp16; its speed on this machine's CPU would say nothing."""
        choice, files = choose(digits_net, tmp_path, "fp16", accelerator="cuda")
        (chosen,) = [result for result in choice.results if result.chosen]
        assert (chosen.precision, chosen.latency, chosen.speed_up) == ("fp16", (), None)
        weights = onnx.load(files / "model.onnx").graph.initializer
        assert onnx.TensorProto.FLOAT16 in {item.data_type for item in weights}

    def test_tensorrt_gets_integers_around_zero(self, digits_net: Net, tmp_path: Path) -> None:
        """Zero points of 0, weights and activations in 8 bits, biases in fp32: what TensorRT reads."""
        choice, files = choose(digits_net, tmp_path, "int8-static", accelerator="tensorrt")
        assert choice.precision == "int8"
        made = onnx.load(files / "model.onnx").graph
        weights = {item.name: onnx.numpy_helper.to_array(item) for item in made.initializer}
        pairs = [node for node in made.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert pairs
        assert {weights[node.input[2]].dtype.name for node in pairs} == {"int8"}
        assert not any(weights[node.input[2]].any() for node in pairs)

    def test_for_cuda_integers_are_refused(self, digits_net: Net, tmp_path: Path) -> None:
        """Its provider has hardly any kernels for them."""
        with pytest.raises(PrecisionRefused, match="these integers are made for CPUs; GPUs gain with fp16"):
            choose(digits_net, tmp_path, "int8-static", accelerator="cuda")

    @pytest.mark.parametrize("accelerator", ["cuda", "tensorrt", "aoti"])
    def test_auto_keeps_fp32_where_nothing_can_be_timed(
        self, digits_net: Net, tmp_path: Path, accelerator: str
    ) -> None:
        """Without the accelerator nothing is known to be faster."""
        choice, _ = choose(digits_net, tmp_path, "auto", accelerator=accelerator)
        assert choice.precision == "fp32"
        assert all(result.refused for result in choice.results[1:])

    def test_made_up_samples_calibrate_nothing(self) -> None:
        """Ranges of made-up values would be wrong for real ones."""
        made_up = Samples(rows=({"x": np.zeros((2, 2))},), dynamic={}, batch="batch", max_batch_size=2, generated=True)
        tried, hopeless = _split(Asked(model="net", precision="int8"), made_up)
        assert [conversion.method for conversion in tried] == ["dynamic"]
        assert all("real samples" in str(trial.refused) for trial in hopeless)

    def test_threads_are_those_of_the_configuration(self, digits_net: Net, tmp_path: Path) -> None:
        """A setting wins over what an earlier version published, and that over what latency suggests."""
        config = Repository(digits_net.path.parents[1]).config("net")
        gate = digits_net.gate(tmp_path / "files")
        config.parameters["intra_op_thread_count"].string_value = "1"
        config.optimization.graph.level = 1
        published = served(config, {}, gate.samples, gate.answers, None)
        assert (published.num_threads(gate.graph.path), published.level) == (1, 1)
        asked = served(config, {"parameters.intra_op_thread_count": 2}, gate.samples, gate.answers, None)
        assert asked.fixed_threads == 2
        assert served(None, {}, gate.samples, gate.answers, None).num_threads(gate.graph.path) == 1


class TestCommand:
    def test_a_refused_precision_is_told_with_its_numbers(self, tmp_path: Path) -> None:
        """The command ends with 1, says why each candidate was refused, and publishes nothing."""
        (tmp_path / "net.py").write_text(RECIPE)
        done = run_naiad("export", "net.py", "--precision", "int4", "-r", "models", cwd=tmp_path)
        assert done.returncode == 1
        assert "no node was changed" in done.stderr
        assert not (tmp_path / "models" / "net").exists()

    def test_the_table_fits_a_terminal(self, automatic: tuple[Version, Report, Repository]) -> None:
        """Each candidate has its row in 80 columns; the chosen one is marked, the refused ones say why below."""
        _, report, _ = automatic
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(precision_table(report.precision), *precision_notes(report.precision), sep="\n")
        lines = console.export_text().splitlines()
        assert not any("…" in line for line in lines)
        assert sum(line.rstrip().endswith("✓") for line in lines) == 1
        notes = [str(note) for note in precision_notes(report.precision)]
        assert notes[0] == "candidates: verified and timed on ONNX Runtime on the CPU"
        assert len(notes) == 1 + sum(bool(result.refused or result.left_in_fp32) for result in report.precision)
        assert all(": " in note for note in notes)


def test_an_interrupt_ends_the_converter(spoilt_net: Net, tmp_path: Path) -> None:
    """Ctrl-C between two candidates leaves the graph as it was and no process behind."""

    def interrupt(step: str) -> None:
        if "static minmax" in step:
            raise KeyboardInterrupt

    before = {process.pid for process in psutil.Process().children()}
    with pytest.raises(KeyboardInterrupt):
        choose(spoilt_net, tmp_path, "int8", on_step=interrupt)
    assert {process.pid for process in psutil.Process().children()} <= before
    assert (tmp_path / "files" / "model.onnx").read_bytes() == spoilt_net.graph.read_bytes()

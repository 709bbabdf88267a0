"""An export for GPUs, with ONNX Runtime's CPU provider in the place of a GPU's: the same code, the same binding."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2

from export_helpers import run_naiad
from naiad.export import InvalidExport, PrecisionRefused, Repository, VerificationFailed, export, export_pipeline
from naiad.export import _hardware as hardware
from naiad.export._pipeline.configs import keep_on_gpu
from naiad.export._pipeline.reference import Stage
from naiad.export._precision import judge
from naiad.export._runtime import gpu, placement, turns
from naiad.export._runtime.bound import Bound, caller
from naiad.export._runtime.place import CPU_PROVIDER, CUDA_PROVIDER, TENSORRT_PROVIDER, Place
from naiad.export._runtime.session import replayed, session
from naiad.export.steps import Function, Model

BOUND = Place(name="a stand-in for a GPU", memory="cpu", on_gpu=True)


class Net(torch.nn.Module):
    """A small net of fixed shapes beside the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(x)
        return scores


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """`z = relu(x @ 1)`, and the words beside."""
    tensors = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    made = helper.make_graph(
        nodes,
        "g",
        tensors,
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor("w", TensorProto.FLOAT, [4, 3], np.ones(12, np.float32))],
    )
    path = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs for GPUs run in the stand-in's place."""
    monkeypatch.setattr(turns, "_MAX_ROUNDS", 7)
    monkeypatch.setattr(hardware, "find", lambda *_: hardware.Hardware(place_of=lambda precision: BOUND))


def rows(num: int) -> torch.Tensor:
    return torch.linspace(-1, 1, num * 16).reshape(num, 16)


class TestBinding:
    def test_a_bound_session_answers_as_a_plain_one(self, graph: Path) -> None:
        """At every shape, for all outputs and for one that is named."""
        bound = session(graph, place=BOUND)
        assert isinstance(bound, Bound)
        assert bound.on_host() == ["x", "z"]
        for num in (1, 3):
            x = np.arange(4 * num, dtype=np.float32).reshape(num, 4)
            (expected,) = session(graph).run(None, {"x": x})
            np.testing.assert_array_equal(bound.run(None, {"x": x})[0], expected)
            np.testing.assert_array_equal(bound.run(["z"], {"x": x})[0], expected)

    def test_what_is_timed_runs_again_and_again(self, graph: Path) -> None:
        """The inputs are bound before, and stay."""
        found = turns.in_turns(
            session(graph), session(graph, place=BOUND), {2: {"x": np.ones((2, 4), np.float32)}}, budget_s=0.01
        )
        assert len(found[2].candidate_s) >= 7

    def test_a_replayed_session_takes_new_values_and_keeps_old_answers(self, graph: Path) -> None:
        """Each set of shapes has its own memory; what was returned does not change with the next run."""
        kept = replayed(graph, level=0, place=BOUND)
        ones, twos = np.ones((2, 4), np.float32), np.full((2, 4), 2, np.float32)
        (first,) = kept.run(None, {"x": ones})
        (second,) = kept.run(None, {"x": twos})
        (third,) = kept.run(["z"], {"x": np.ones((3, 4), np.float32)})
        assert (first[0, 0], second[0, 0], third.shape) == (4.0, 8.0, (3, 3))
        call = caller(kept, {"x": ones})
        call()
        assert kept.run(None, {"x": twos})[0][0, 0] == 8.0

    def test_a_scalar_stays_one(self, tmp_path: Path) -> None:
        """A tensor of rank 0 is bound as it is."""
        names = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in ("a", "b")]
        made = helper.make_graph([helper.make_node("Abs", ["a"], ["b"])], "g", names[:1], names[1:])
        path = tmp_path / "s.onnx"
        onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        minus = np.array(-2, np.float32)
        for runtime in (session(path, place=BOUND), replayed(path, level=0, place=BOUND)):
            (value,) = runtime.run(None, {"a": minus})
            assert (value.shape, float(value)) == ((), 2.0)

    def test_text_is_run_without_binding(self, tmp_path: Path) -> None:
        """A GPU's memory holds no text."""
        names = [helper.make_tensor_value_info(name, TensorProto.STRING, [None]) for name in ("a", "b")]
        made = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "g", names[:1], names[1:])
        onnx.save(
            helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "t.onnx"
        )
        bound = session(tmp_path / "t.onnx", place=BOUND)
        words = np.array(["one", "two"], object)
        assert bound.run(None, {"a": words})[0].tolist() == ["one", "two"]
        caller(bound, {"a": words})()


class TestPlacement:
    def test_nodes_are_counted_by_provider(self, graph: Path) -> None:
        """Of the graph as it was optimised, by operator."""
        nodes = placement.providers_of_nodes(graph, {"x": np.ones((1, 4), np.float32)}, level=0, place=BOUND)
        assert nodes == {CPU_PROVIDER: {"MatMul": 1, "Relu": 1}}

    def test_what_is_left_to_the_cpu_is_named(self) -> None:
        """Some operators cost copies; a graph of them alone has nothing to do on a GPU."""
        shapes = placement.Counter({"Shape": 3, "Gather": 1})
        (some,) = placement.findings({CUDA_PROVIDER: placement.Counter(Conv=6), CPU_PROVIDER: shapes}, BOUND)
        assert some.message.startswith("4 of 10 nodes run on the CPU: Shape 3, Gather 1.")
        (every,) = placement.findings({CPU_PROVIDER: shapes}, BOUND)
        assert every.message.startswith("no node of this graph runs on the GPU")
        assert placement.findings({CUDA_PROVIDER: placement.Counter(Conv=6)}, BOUND) == ()


class TestEngines:
    def test_graphs_have_engines_of_their_own(self, graph: Path, tmp_path: Path) -> None:
        """ONNX Runtime knows an engine by names; two graphs of the same names would share one."""
        place = Place(
            name="",
            providers=((TENSORRT_PROVIDER, {"trt_engine_cache_path": "/elsewhere"}),),
            engines=tmp_path / "engines",
        )
        other = tmp_path / "other" / "graph.onnx"
        other.parent.mkdir()
        other.write_bytes(graph.read_bytes() + b"\x9a\x06\x00")
        paths = {place.options(path)[0][1]["trt_engine_cache_path"] for path in (graph, other, graph)}
        assert len(paths) == 2
        assert all(Path(path).parent == tmp_path / "engines" for path in paths)
        assert place.options(None)[0][1]["trt_engine_cache_enable"] == "0"


@pytest.mark.usefixtures("stand_in")
class TestExport:
    def test_candidates_are_verified_and_timed_in_the_place(self, tmp_path: Path) -> None:
        """The report and the manifest say where, and nothing is left as not measured."""
        version = export(
            Net(),
            "net",
            samples=[(rows(8),)],
            repository=tmp_path / "models",
            max_batch_size=8,
            accelerator="cuda",
            precision="fp16",
            allow_slower=True,
        )
        report = Repository(tmp_path / "models").version("net", 1).report
        assert version.report is not None
        assert report == version.report
        assert (report.verified_on, report.timed_on, report.not_measured) == (BOUND.name, BOUND.name, ())
        fp32, fp16 = report.precision
        assert {fp32.verified_on, fp32.timed_on, fp16.verified_on, fp16.timed_on} == {BOUND.name}
        assert [item.batch for item in fp16.latency] == [1, 3, 8]
        assert fp16.chosen

    def test_fixed_shapes_that_passed_as_a_replay_get_cuda_graphs(self, tmp_path: Path) -> None:
        """Written where it was tried and not slower; else a finding has the reason."""
        version = export(
            Net(), "net", samples=[(rows(8),)], repository=tmp_path / "models", max_batch_size=8, accelerator="cuda"
        )
        config = Repository(tmp_path / "models").config("net")
        assert version.report is not None
        findings = {finding.check: finding.message for finding in version.report.findings}
        on = "naiad.cuda_graph" in config.parameters
        assert on != ("CUDA graphs" in findings)
        assert not on or config.parameters["naiad.cuda_graph"].string_value == "true"
        assert "no gain" in findings.get("CUDA graphs", "no gain")
        assert findings["not on the GPU"].startswith("no node of this graph runs on the GPU")
        assert config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value == "no"
        assert [(group.count, group.Kind.Name(group.kind)) for group in config.instance_group] == [(2, "KIND_AUTO")]

    def test_a_length_that_varies_gets_no_cuda_graphs(self, tmp_path: Path) -> None:
        """Each length would be captured anew."""
        export(
            torch.nn.ReLU(),
            "relu",
            samples=[(rows(4),)],
            dynamic={"input": {0: "batch", 1: "length"}},
            repository=tmp_path / "models",
            accelerator="cuda",
        )
        assert "naiad.cuda_graph" not in Repository(tmp_path / "models").config("relu").parameters

    def test_what_the_gpu_gets_wrong_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The CPU is right, and nothing is published: the message names the place."""
        run = Bound.run
        monkeypatch.setattr(Bound, "run", lambda self, names, feeds: [value + 1 for value in run(self, names, feeds)])
        with pytest.raises(VerificationFailed, match="differs from PyTorch on a stand-in for a GPU at batch"):
            export(Net(), "net", samples=[(rows(8),)], repository=tmp_path / "models", accelerator="cuda")
        assert Repository(tmp_path / "models").models() == ()

    def test_tensorrt_converts_the_graph_itself_and_is_timed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file stays in fp32; a stand-in that computes nothing in fp16 gains nothing, and is refused for it."""
        monkeypatch.setattr(judge, "MIN_GAIN", 1e9)
        options: dict[str, Any] = {
            "samples": [(rows(8),)],
            "repository": tmp_path / "models",
            "accelerator": "tensorrt",
        }
        with pytest.raises(PrecisionRefused, match=r"fp16 by TensorRT: .*asked for"):
            export(Net(), "net", precision="fp16", **options)
        version = export(Net(), "net", precision="fp16", allow_slower=True, **options)
        config = Repository(tmp_path / "models").config("net")
        (tensorrt, _) = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert tensorrt.parameters["precision_mode"] == "FP16"
        weights = onnx.load(version.path / "model.onnx").graph.initializer
        assert TensorProto.FLOAT16 not in {item.data_type for item in weights}


class TestPipelines:
    def test_results_for_models_on_a_gpu_stay_in_its_memory(self, tmp_path: Path) -> None:
        """The last model's results are for the client: nothing is said of them."""
        version = export_pipeline(
            [
                Model("first", Net(), outputs=["scores"]),
                Model("second", torch.nn.Linear(4, 2), inputs={"input": "scores"}, outputs=["verdict"]),
            ],
            "both",
            samples=[{"x": rows(4).numpy()}],
            repository=tmp_path / "models",
            max_batch_size=4,
            options={"accelerator": "cuda"},
        )
        repository = Repository(tmp_path / "models")
        assert version.model == "both"
        assert repository.config("both_first").parameters["naiad.output_memory"].string_value == "gpu"
        assert "naiad.output_memory" not in repository.config("both_second").parameters

    def test_results_for_a_function_are_left_to_the_backend(self) -> None:
        """A function is a process on the CPU."""
        net, function = (model_config_pb2.ModelConfig(name=name) for name in ("net", "function"))
        net.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
        first, second = (
            Stage(step=Function(name, len), model=name, inputs={"a": a}, outputs={"b": b}, subject=None)
            for name, a, b in (("net", "x", "y"), ("function", "y", "z"))
        )
        keep_on_gpu([(first, net), (second, function)])
        assert not net.parameters


class TestWithoutAGpu:
    """On a machine without a driver: what is missing is the real answer of this machine."""

    @pytest.fixture(autouse=True)
    def _without(self) -> None:
        if not isinstance(gpu._driver(), str):
            pytest.skip("this machine has an NVIDIA driver")

    @pytest.mark.parametrize("accelerator", ["cuda", "tensorrt"])
    def test_asking_for_one_fails_before_long_work(self, tmp_path: Path, accelerator: str) -> None:
        """With the name of what is missing; the recipe's model is not even built."""
        recipe = tmp_path / "recipe.py"
        recipe.write_text("def build():\n    raise RuntimeError('long work')\n\n\ndef samples():\n    return []\n")
        done = run_naiad(
            "export",
            str(recipe),
            "-r",
            str(tmp_path / "models"),
            "--accelerator",
            accelerator,
            "--device",
            "cuda",
            cwd=tmp_path,
        )
        assert done.returncode == 2
        assert "libcuda.so.1" in done.stderr
        assert "expected NVIDIA's driver, found none" in " ".join(done.stderr.split())

    def test_auto_verifies_on_the_cpu_and_says_so(self, tmp_path: Path) -> None:
        """Not timed, with the reason, for the file and for each candidate."""
        version = export(
            Net(), "net", samples=[(rows(8),)], repository=tmp_path / "models", accelerator="cuda", precision="fp16"
        )
        assert version.report is not None
        assert "verified on the CPU, not timed (no GPU here: expected NVIDIA's driver" in version.report.not_measured[0]
        chosen = next(result for result in version.report.precision if result.chosen)
        assert (chosen.verified_on, chosen.timed_on) == ("ONNX Runtime on the CPU", "not timed: no GPU here")


class TestLacking:
    def test_a_driver_without_a_gpu_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """cuInit's own status is in the message."""

        class Driver:
            def __init__(self, name: str) -> None:
                assert name == "libcuda.so.1"

            def cuInit(self, flags: int) -> int:
                return 100 + flags

        monkeypatch.setattr(gpu.ctypes, "CDLL", Driver)
        gpu._driver.cache_clear()
        try:
            assert "expected a GPU, found none (the driver's status is 100)" in gpu.lacking("cuda")
        finally:
            monkeypatch.undo()
            gpu._driver.cache_clear()

    def test_a_build_without_the_provider_is_told(self) -> None:
        """The version, and what it has instead."""
        assert gpu._build("NoExecutionProvider").startswith("expected an ONNX Runtime with its NoExecutionProvider")
        assert gpu._build(CPU_PROVIDER) == ""

    def test_a_provider_that_is_dropped_is_an_error(self, graph: Path) -> None:
        """ONNX Runtime would go on on the CPU with a line on standard error."""
        if not isinstance(gpu._driver(), str):
            pytest.skip("this machine has an NVIDIA driver")
        if gpu._build(CUDA_PROVIDER):
            pytest.skip("this ONNX Runtime is built without CUDA")
        place = dataclasses.replace(BOUND, providers=((CUDA_PROVIDER, {}), (CPU_PROVIDER, {})))
        with pytest.raises(InvalidExport, match="could not start its CUDAExecutionProvider"):
            session(graph, place=place)

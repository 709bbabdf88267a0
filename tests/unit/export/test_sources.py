"""What an export can start from: nested arguments, exported programs, ONNX files, TorchScript."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from export_helpers import Scores, answer_of, contents, rows
from naiad.export import CaptureFailed, CheckFailed, ExportError, Input, InvalidExport, Repository, Version, export
from naiad.export._capture.explain import explain
from naiad.export._source.module import ModuleSubject
from naiad.export._source.subject import bind, open_subject

DYNAMIC = torch.export.Dim.DYNAMIC


class Nested(nn.Module):
    """Tensors in lists and dicts, keywords of any name, a number and a flag, and an optional argument left out."""

    def forward(
        self,
        x: torch.Tensor,
        state: list[Any],
        mask: torch.Tensor | None = None,
        *,
        scale: float = 1.0,
        negate: bool = False,
        **more: torch.Tensor,
    ) -> dict[str, Any]:
        y = x * scale + state[0] + more["bias"]
        if mask is not None:
            y = y * mask
        return {"y": -y if negate else y, "state": [state[0] + 1, {"k": state[1]["k"] * 2}]}


class Looks(nn.Module):
    """A table that is looked up, and weights."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return (self.table(ids) * weights.unsqueeze(-1)).mean(1)


def nested_sample(**change: Any) -> dict[str, Any]:
    x = rows(5, 4)
    return {"x": x, "state": [x + 1, {"k": x}], "scale": 2.0, "negate": True, "bias": x * 3} | change


def manifest(version: Version) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((version.path / "manifest.json").read_text())
    return found


class TestArguments:
    def test_nested_arguments_are_flat_inputs(self, tmp_path: Path) -> None:
        """Lists and dicts of tensors become inputs named by their places, and a number and a flag constants that are
        said; the graph answers as the model called with the nest."""
        version = export(
            Nested(), "nested", samples=[nested_sample()], repository=tmp_path / "models", max_batch_size=4
        )
        made = manifest(version)
        assert [tensor["name"] for tensor in made["inputs"]] == ["x", "state_0", "state_1_k", "bias"]
        assert [tensor["name"] for tensor in made["outputs"]] == ["y", "state_0_out", "state_1_k_out"]
        assert version.report is not None
        constants = [finding.message for finding in version.report.findings if finding.check == "constant"]
        assert [message.partition(" in every")[0] for message in constants] == [
            "argument 'scale' is 2.0",
            "argument 'negate' is True",
        ]
        x = rows(2, 4, seed=3).numpy()
        y, first, second = answer_of(version.path, x=x, state_0=x, state_1_k=x, bias=x)
        np.testing.assert_allclose(y, -(x * 2 + x + x), rtol=1e-6)
        np.testing.assert_allclose(first, x + 1)
        np.testing.assert_allclose(second, x * 2)

    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            ([nested_sample(), nested_sample(scale=3.0)], r"sample 1 has the constants .*sample 0 has .*same in every"),
            ([nested_sample(), nested_sample(mask=rows(5, 4))], r"an optional input is given in every sample or in no"),
            ([nested_sample(x=object())], r"input 'x' is object; expected a tensor or an array, or lists"),
            ([nested_sample(x=np.array(["a"]))], r"input 'x' is text; PyTorch has no tensors of it"),
            ([nested_sample(bias_=1, state_1_k=rows(5, 4))], r"two inputs would have the name 'state_1_k'"),
            ([nested_sample(x=rows(5, 4).bfloat16())], r"torch\.bfloat16; expected .*Call model\.float\(\)"),
            ([nested_sample(x=rows(5, 4).to(torch.complex64))], r"torch\.complex64; expected one of bool"),
        ],
    )
    def test_samples_that_do_not_fit_are_named(self, samples: list[Any], message: str) -> None:
        """What differs between samples, or is no tensor, is one sentence that names the input."""
        with pytest.raises(InvalidExport, match=message):
            bind(ModuleSubject(Nested()), samples, None, 4)

    def test_inputs_of_any_number(self) -> None:
        """The arguments of `forward(*tensors)` are numbered."""

        class Any(nn.Module):
            def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
                return torch.stack(tensors).sum(0)

        subject = ModuleSubject(Any())
        samples = bind(subject, [(rows(3, 2), rows(3, 2))], None, 4)
        assert samples.names == ("tensors_0", "tensors_1")
        np.testing.assert_allclose(subject.run(samples.rows[0])["output"], 2 * rows(3, 2).numpy())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    model, path = Looks().eval(), tmp_path_factory.mktemp("programs") / "looks.pt2"
    sample = (torch.zeros(5, 6, dtype=torch.int64), rows(5, 6))
    shapes = ({0: DYNAMIC, 1: DYNAMIC},) * 2
    torch.export.save(torch.export.export(model, sample, dynamic_shapes=shapes, strict=False), path)
    return model, path


class TestPrograms:
    def test_a_saved_program_says_what_it_takes(self, saved: tuple[nn.Module, Path]) -> None:
        """A `.pt2` file needs no samples: dims, types and the range of its indices are in it, and that these were made
        up is said; it answers as the module."""
        model, path = saved
        subject = open_subject(path)
        samples = bind(subject, None, None, None)
        assert samples.generated
        assert samples.max_batch_size == 64
        assert samples.dynamic == {key: {0: "batch", 1: "ids_1"} for key in ("ids", "weights")}
        assert "ids: int64 from 0 to 9; weights: float32, normally" in samples.notes[0].message
        assert subject.describe()["file"] == "looks.pt2"
        assert len(subject.describe()["sha256"]) == 64
        ids, weights = torch.arange(6).reshape(2, 3), rows(2, 3)
        answer = subject.run({"ids": ids.numpy(), "weights": weights.numpy()})["output"]
        np.testing.assert_allclose(answer, model(ids, weights).detach().numpy(), atol=1e-6)

    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            (
                [(rows(5, 6), rows(5, 6))],
                r"input 'ids' of sample 0 is float32 \[5, 6\]; looks\.pt2 was exported for int64",
            ),
            ([(rows(5, 6),)], r"does not fit forward"),
            ([(torch.zeros(5, dtype=torch.int64), rows(5, 6))], r"for int64 \['any', 'any'\]"),
        ],
    )
    def test_samples_that_it_was_not_exported_for(
        self, saved: tuple[nn.Module, Path], samples: list[Any], message: str
    ) -> None:
        """Types and dimensions are compared with those of the program."""
        with pytest.raises(InvalidExport, match=message):
            bind(open_subject(saved[1]), samples, None, 4)

    def test_a_program_in_train_mode_is_refused(self) -> None:
        """Dropout that was exported as random cannot be put right any more."""
        program = torch.export.export(Scores().train(), (rows(5, 4),), dynamic_shapes=({0: DYNAMIC},), strict=False)
        with pytest.raises(InvalidExport, match=r"exported in train mode: dropout .*model\.eval\(\)"):
            bind(open_subject(program), [(rows(5, 4),)], None, 4)

    def test_a_program_that_would_run_code_is_refused(self, saved: tuple[nn.Module, Path], tmp_path: Path) -> None:
        """A pickle in the archive is looked at before PyTorch would run it, and so are its formulas."""
        flag = tmp_path / "ran"
        for name, replace in {
            "pickle": lambda n, data: pickle.dumps(_Runs(flag)) if n.endswith("sample_inputs/model.pt") else data,
            "formula": lambda n, data: data.replace(b"Symbol('s", b"exec('s") if n.endswith("model.json") else data,
        }.items():
            path = tmp_path / f"{name}.pt2"
            with zipfile.ZipFile(saved[1]) as source, zipfile.ZipFile(path, "w") as target:
                for member in source.namelist():
                    target.writestr(member, replace(member, source.read(member)))
            with pytest.raises(InvalidExport, match=r"can run any code of the file's author; say --trust-pickle"):
                open_subject(path)
        assert not flag.exists()


class _Runs:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def save_graph(
    path: Path, *nodes: Any, dims: list[Any] | None = None, out: list[Any] | None = None, **kind: Any
) -> Path:
    """Save a graph from `x` to `y` with a weight `w` of [4, 4]."""
    x, y = kind.pop("x", TensorProto.FLOAT), kind.pop("y", TensorProto.FLOAT)
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", x, dims or ["n", 4])],
        [helper.make_tensor_value_info("y", y, out or ["n", 4])],
        [onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", kind.pop("opset", 20)), helper.make_opsetid("ai.onnx.ml", 4)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path, **kind)
    return path


MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"])


class TestGraphs:
    def test_a_file_with_external_weights_is_one_version(self, tmp_path: Path) -> None:
        """Weights beside the graph come along, small ones inside of it; an old opset stays; the manifest has the
        source's hash and the batch has its name."""
        path = save_graph(
            tmp_path / "m.onnx", MATMUL, opset=13, save_as_external_data=True, location="w.bin", size_threshold=0
        )
        version = export(path, "m", samples=[{"x": rows(5, 4)}], repository=tmp_path / "models")
        made = manifest(version)
        assert made["inputs"] == [{"name": "x", "dtype": "FP32", "shape": ["batch", 4]}]
        assert made["max_batch_size"] == 64
        assert made["onnx"]["exporter"] == "copy"
        assert made["onnx"]["opset"] == 13
        assert {"golden.npz", "model.onnx"} <= set(made["files"])
        assert "model.onnx.data" not in made["files"]
        x = rows(3, 4).numpy()
        np.testing.assert_allclose(answer_of(version.path, x=x)[0], x)
        assert version.report is not None
        summary = version.report.graph
        assert summary is not None
        assert (summary.num_nodes, summary.operators, summary.num_parameters) == (1, {"MatMul": 1}, 16)
        assert (summary.inputs, summary.dynamic) == ({"x": "FLOAT [batch, 4]"}, ("batch",))
        assert [(each.dtype, each.num_tensors, each.size_bytes) for each in summary.weights] == [("FLOAT", 1, 64)]
        assert Repository(tmp_path / "models").version("m", 1).report == version.report

    def test_text_goes_in_and_comes_out(self, tmp_path: Path) -> None:
        """Strings are a label encoder's inputs and outputs, made up from its own words where no samples are given."""
        encode = helper.make_node(
            "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_strings=["cat", "dög"], values_strings=["0", "1"]
        )
        path = save_graph(
            tmp_path / "l.onnx", encode, dims=["n", 1], out=["n", 1], x=TensorProto.STRING, y=TensorProto.STRING
        )
        version = export(path, "labels", repository=tmp_path / "models", max_batch_size=4)
        assert [tensor["dtype"] for tensor in manifest(version)["inputs"]] == ["STRING"]
        assert answer_of(version.path, x=np.array([["dög"]], dtype=object))[0].tolist() == [["1"]]
        with np.load(version.path / "golden.npz") as golden:
            assert set(golden["input/3/x"].ravel().tolist()) <= {"cat", "dög"}

    def test_a_fixed_batch_is_served_without_batches(self, tmp_path: Path) -> None:
        """A graph whose first dimension is fixed gets max_batch_size 0, said in a finding; asked for more, it is
        refused."""
        path = save_graph(tmp_path / "m.onnx", MATMUL, dims=[2, 4], out=[2, 4])
        version = export(path, "fixed", samples=[(rows(2, 4),)], repository=tmp_path / "models")
        assert manifest(version)["max_batch_size"] == 0
        assert version.report is not None
        assert "no batch" in [finding.check for finding in version.report.findings]
        with pytest.raises(
            InvalidExport, match=r"m\.onnx fixes the first dimension of an input.*or use max_batch_size=0"
        ):
            export(path, "more", samples=[(rows(2, 4),)], repository=tmp_path / "models", max_batch_size=8)

    @pytest.mark.parametrize(
        ("node", "change", "samples", "error", "message"),
        [
            (MATMUL, {"out": [1, 4]}, (3, 4), CheckFailed, r"dimension 0 of output 'y' is fixed at 1 .* gives 1 or 2"),
            (MATMUL, {}, (3, 5), InvalidExport, r"input 'x' of sample 0 is float32 \[3, 5\]; m\.onnx takes float32"),
            (helper.make_node("RandomNormalLike", ["x"], ["y"]), {}, (3, 4), CheckFailed, r"differs between two calls"),
            (
                helper.make_node("Foo", ["x"], ["y"], domain="me"),
                {},
                (3, 4),
                InvalidExport,
                r"cannot load m\.onnx: .*Foo",
            ),
            (MATMUL, {"x": TensorProto.BFLOAT16}, (3, 4), InvalidExport, r"input 'x' is BFLOAT16; .*add a Cast"),
        ],
    )
    def test_a_graph_that_cannot_be_served(
        self, tmp_path: Path, node: Any, change: dict[str, Any], samples: tuple[int, ...], error: Any, message: str
    ) -> None:
        """A frozen output, wrong samples, chance, an unknown operator and a type of no numpy are one sentence each."""
        path = save_graph(tmp_path / "m.onnx", node, **change)
        with pytest.raises(error, match=message):
            export(path, "m", samples=[(rows(*samples),)], repository=tmp_path / "models", max_batch_size=4)

    def test_a_graph_that_gives_no_tensors(self, tmp_path: Path) -> None:
        """A list of dicts, as a scikit-learn classifier gives by default, is refused with the option that helps."""
        path = save_graph(tmp_path / "m.onnx", MATMUL)
        model = onnx.load(path)
        value = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(value))
        onnx.save(model, path)
        with pytest.raises(
            InvalidExport, match=r"output 'y' is a sequence; Triton knows tensors only.*'zipmap': False"
        ):
            open_subject(path)

    def test_weights_that_are_missing(self, tmp_path: Path) -> None:
        """A graph without the file of its weights names it."""
        path = save_graph(tmp_path / "m.onnx", MATMUL, save_as_external_data=True, location="w.bin", size_threshold=0)
        (tmp_path / "w.bin").unlink()
        with pytest.raises(ExportError, match=r"w\.bin"):
            export(path, "m", samples=[(rows(3, 4),)], repository=tmp_path / "models")
        assert contents(tmp_path / "models") == []


class TestLegacy:
    def test_what_a_recording_would_bake_in_is_refused(self, tmp_path: Path) -> None:
        """The legacy exporter decides a Python `if` by the recorded run; here that is an error with its line."""

        class Branches(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * 2 if x.sum() > 0 else x

        with pytest.raises(CaptureFailed, match=r"boolean would be baked in; use torch\.where.*test_sources\.py:\d"):
            export(Branches(), "b", samples=[(rows(5, 4),)], repository=tmp_path / "models", exporter="legacy")

    def test_saved_torchscript_with_an_input_that_is_dropped(self, tmp_path: Path) -> None:
        """TorchScript in a file is a model; an input that no operator reads is declared all the same."""

        class Drops(nn.Module):
            def forward(self, x: torch.Tensor, unused: torch.Tensor) -> torch.Tensor:
                return x * 2

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.trace(Drops(), (rows(3, 4), rows(3, 2))).save(tmp_path / "drops.pt")
        version = export(
            tmp_path / "drops.pt",
            "drops",
            samples=[(rows(5, 4), rows(5, 2))],
            repository=tmp_path / "models",
            max_batch_size=4,
        )
        made = manifest(version)
        assert [tensor["name"] for tensor in made["inputs"]] == ["x", "unused"]
        assert made["source"]["file"] == "drops.pt"
        assert version.report is not None
        assert {"unused input", "exporter"} <= {finding.check for finding in version.report.findings}


class TakesTheMaximum(nn.Module):
    """A number out of a tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.max())


class LoopsOverLength(nn.Module):
    """As many steps as the input is long."""

    def forward(self, x: torch.Tensor, state: list[torch.Tensor]) -> torch.Tensor:
        total = state[0]
        for step in range(x.shape[1]):
            total = total + x[:, step]
        return total


@pytest.mark.parametrize(
    ("model", "inputs", "message", "line"),
    [
        (TakesTheMaximum(), (rows(5, 4),), r"depends on the values in a tensor.*torch\.where or torch\.cond", "float("),
        (LoopsOverLength(), (rows(5, 4), [rows(5)]), r"", ""),
    ],
)
def test_a_failure_is_explained(model: nn.Module, inputs: tuple[Any, ...], message: str, line: str) -> None:
    """What PyTorch says in pages is one sentence with the line of the model, or the dimension that it fixes."""
    shapes = ({0: DYNAMIC, 1: DYNAMIC}, [{0: DYNAMIC}])[: len(inputs)]
    with pytest.raises(Exception) as caught:
        torch.export.export(model, inputs, dynamic_shapes=shapes, strict=False)
    found = explain(caught.value)
    if line:
        assert re.search(message, found["message"])
        path, _, number = found["source"].rpartition(":")
        assert line in Path(path).read_text().splitlines()[int(number) - 1]
    else:
        assert found["fixed"] == {"input": "x", "index": None, "axis": 1, "size": 4}


def test_what_is_no_model() -> None:
    """Anything else is named with what is expected."""
    with pytest.raises(InvalidExport, match=r"a model is a torch\.nn\.Module, an ExportedProgram.* found int"):
        open_subject(3)
    with pytest.raises(InvalidExport, match=r"x\.h5 is no model file; expected \.onnx, \.pt2, or \.pt"):
        open_subject("x.h5")
    with pytest.raises(InvalidExport, match=r"needs samples.*or say what its inputs are"):
        bind(open_subject(Scores()), None, None, 4)


def test_made_up_samples_that_the_model_refuses(tmp_path: Path) -> None:
    """A range that was not given is what the message asks for."""
    inputs = {
        "ids": Input(dtype="int64", shape=["batch", 3], low=10, high=99),
        "weights": Input(shape=["batch", 3]),
    }
    with pytest.raises(
        CheckFailed, match=r"fails in PyTorch on made-up samples: IndexError.*give real ones, or the range"
    ):
        export(Looks(), "looks", inputs=inputs, repository=tmp_path / "models")


def test_made_up_samples_have_the_declared_types_sizes_and_ranges() -> None:
    """Samples are made up as `Input` says, the same each time, at two sizes of each dimension that varies."""
    inputs = {
        "ids": Input(dtype="int64", shape=["batch", "length"], low=3, high=9),
        "weights": Input(shape=["batch", "length"], low=0, high=1),
    }
    first, again = (bind(open_subject(Looks()), None, None, 4, inputs) for _ in range(2))
    assert first.generated
    assert first.dynamic == {"ids": {0: "batch", 1: "length"}, "weights": {0: "batch", 1: "length"}}
    assert [row["ids"].shape for row in first.rows] == [(8, 7), (8, 12)]
    ids = np.concatenate([row["ids"].ravel() for row in first.rows])
    assert (ids.dtype, ids.min(), ids.max()) == (np.int64, 3, 9)
    np.testing.assert_array_equal(first.rows[1]["weights"], again.rows[1]["weights"])
    for wrong in ({"dtype": "float99"}, {"shape": [0]}, {"low": 1}, {"low": 2, "high": 1}):
        with pytest.raises(InvalidExport, match="an Input"):
            Input(**wrong)  # type: ignore[arg-type]

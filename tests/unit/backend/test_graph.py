"""Reading the graph of an ONNX file, without a server."""

import pickle
from pathlib import Path

import _ort_errors
import numpy as np
import onnx
import pytest
from _ort_errors import BackendError, ModelFileError
from _ort_graph import TensorInfo, graph_of
from _ort_session import graph_session, model_file
from onnx import TensorProto, helper

from backend_configs import config
from repository_helpers import ONNX_TYPES, affine, graph, identity, node


def loaded(model: onnx.ModelProto, folder: Path) -> object:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return graph_of(graph_session(config(), path))


@pytest.mark.parametrize("data_type", ONNX_TYPES)
def test_every_type_is_known(data_type: str, tmp_path: Path) -> None:
    """Each of ONNX's types that Triton has is read as Triton names it."""
    found = loaded(identity({"x": f"{data_type}[2]"}), tmp_path)
    assert found.inputs == (TensorInfo(name="x", data_type=f"TYPE_{data_type}", shape=(2,)),)


@pytest.mark.parametrize(
    ("text", "shape"), [("FP32[]", ()), ("FP32[batch,3]", (-1, 3)), ("FP32[-1,h,0]", (-1, -1, 0))], ids=str
)
def test_dynamic_dimensions(text: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Named and unnamed dynamic dimensions are -1, and a scalar has none."""
    found = loaded(identity({"x": text}), tmp_path)
    assert (found.inputs[0].shape, found.outputs[0].shape) == (shape, shape)


def test_replaceable_initializers_are_apart(tmp_path: Path) -> None:
    """An initializer that is an input too is one that a request may give."""
    model = graph(
        [node("Mul", "x", "scale", to="y")],
        {"x": "FP32[2]"},
        {"y": "FP32[2]"},
        defaults={"scale": np.ones(1, np.float32)},
    )
    found = loaded(model, tmp_path)
    assert [each.name for each in found.inputs] == ["x"]
    assert [each.name for each in found.initializers] == ["scale"]
    assert found.input("scale") == TensorInfo(name="scale", data_type="TYPE_FP32", shape=(1,))
    assert found.input("y") is None


def test_what_is_no_tensor_is_refused(tmp_path: Path) -> None:
    """A model that gives a sequence of tensors cannot be served, and says so."""
    made = helper.make_graph(
        [node("SequenceConstruct", "x", to="y")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(ModelFileError, match=r"output 'y'.*found seq\(tensor\(float\)\).*plain tensor"):
        loaded(model, tmp_path)


def test_file_in_a_directory(tmp_path: Path) -> None:
    """Where the configured file is a directory, the model lies in it as model.onnx."""
    (tmp_path / "net").mkdir()
    onnx.save(affine(), tmp_path / "net" / "model.onnx")
    assert model_file(str(tmp_path), config(default_model_filename="net")) == tmp_path / "net" / "model.onnx"


@pytest.mark.parametrize("cut", [0, 10, -20], ids=["empty", "head", "tail"])
def test_damaged_file_is_refused(cut: int, tmp_path: Path) -> None:
    """A file that is empty or cut off is no model."""
    path = tmp_path / "model.onnx"
    path.write_bytes(affine().SerializeToString()[:cut])
    with pytest.raises(ModelFileError, match=r"expected a valid ONNX model in .*bytes"):
        graph_of(graph_session(config(), path))


def test_errors_survive_pickling() -> None:
    """Every error keeps its message when it is pickled."""
    classes = [each for each in vars(_ort_errors).values() if isinstance(each, type) and issubclass(each, BackendError)]
    for each in classes:
        assert str(pickle.loads(pickle.dumps(each("what happened")))) == "what happened"

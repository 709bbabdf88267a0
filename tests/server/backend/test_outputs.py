"""What the client asks for is what it gets, and nothing that contradicts the configuration."""

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from backend_helpers import Caller, tensors

X = np.array([[-1, 2, -3]], np.float32)


@pytest.mark.parametrize("outputs", [["size"], ["minus"], ["minus", "size"], None], ids=str)
def test_only_wanted_outputs_are_sent(serving: Caller, outputs: list[str] | None) -> None:
    """The outputs asked for are answered, all configured ones where none is named."""
    x = np.concatenate([X, 10 * X])
    answer = serving("several", {"x": x}, outputs=outputs)
    assert set(answer) == set(outputs or ["minus", "size"])
    for name, got in answer.items():
        np.testing.assert_array_equal(got, -x if name == "minus" else abs(x))


def test_each_request_of_a_batch_gets_its_own_outputs(serving: Caller) -> None:
    """Requests in one batch may want different outputs."""
    under_way = []
    for name, x in (("size", X), ("minus", 10 * X)):
        under_way.append(serving.start("several", {"x": x}, outputs=[triton_grpc.InferRequestedOutput(name)])[0])
    first, second = [future.result(60) for future in under_way]
    assert (list(first), list(second)) == (["size"], ["minus"])
    np.testing.assert_array_equal(first["size"], abs(X))
    np.testing.assert_array_equal(second["minus"], -10 * X)


def test_classification_names_the_labels(serving: Caller) -> None:
    """A request for the best classes gets value, index and label from label_filename."""
    asked = [triton_grpc.InferRequestedOutput("x_out", class_count=2)]
    result = serving.client.infer("labelled", tensors({"x": np.array([[0.25, 1, 0.5]], np.float32)}), outputs=asked)
    assert result.as_numpy("x_out").tolist() == [[b"1.000000:1:bee", b"0.500000:2:cat"]]


def test_output_of_another_shape_is_refused(serving: Caller) -> None:
    """An output that contradicts the configured dims is an error that names both, not a surprise for the client."""
    x = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(serving("liar", {"x": x, "shape": np.array([2, 3])})["y"], x.reshape(2, 3))
    with pytest.raises(InferenceServerException, match=r"output 'y': expected shape \[-1, 3\], found \[3, 2\]"):
        serving("liar", {"x": x, "shape": np.array([3, 2])})

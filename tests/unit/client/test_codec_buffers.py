"""Memory of the caller's that receives outputs."""

import ml_dtypes
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from naiad.client import InvalidInput, InvalidResponse, Output, TensorMetadata
from naiad.client._protocol.buffers import Buffers
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.request import InferOptions, buffers_of, decode_infer
from naiad.client._protocol.shared import Place, decode_shared
from naiad.client._protocol.tensors import encode


def contract() -> Contract:
    outputs = {
        name: TensorMetadata(name=name, datatype=datatype, shape=(-1, 3))
        for name, datatype in {"y": "FP32", "bits": "UINT8", "words": "BYTES"}.items()
    }
    return Contract(model="m", inputs={}, outputs=outputs, optional=frozenset(), max_batch_size=8)


def answer(*outputs: tuple[str, np.ndarray, str]) -> bytes:
    message = pb.ModelInferResponse(model_name="m", model_version="1", id="q")
    for name, array, datatype in outputs:
        message.outputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_output_contents.append(b"".join([encode(array, datatype)]))
    return message.SerializeToString()


ARRAYS = {
    "numbers": (np.arange(6, dtype=np.float32).reshape(2, 3), "FP32"),
    "bfloat16": (np.arange(4).astype(ml_dtypes.bfloat16), "BF16"),
    "booleans": (np.array([True, False]), "BOOL"),
    "strings": (np.array([b"a", b"", b"bc"], object), "BYTES"),
    "a scalar": (np.array(2.5), "FP64"),
    "nothing": (np.empty((0, 3), np.int64), "INT64"),
}


@pytest.mark.parametrize(("array", "datatype"), ARRAYS.values(), ids=ARRAYS)
def test_an_output_is_received_in_the_buffer_itself(array, datatype):
    """The result has the object that was given; other outputs have arrays of their own."""
    buffer, memory = np.zeros_like(array), np.arange(2.0)
    view = buffer[...]
    message = answer(("y", array, datatype), ("z", memory, "FP64"))
    result = decode_infer(message, buffers_of(InferOptions(out={"y": buffer}), None))
    assert result["y"] is buffer
    assert view.tolist() == array.tolist()
    assert result["z"].tolist() == [0, 1]
    assert (result.model_name, result.request_id) == ("m", "q")


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_8_bit_floats_are_received_as_their_bits(dtype):
    """In place, and when an array of their bits is there already."""
    values = np.array([[1.5, -2, 0.25]], dtype)
    message, buffer = answer(("bits", values.view(np.uint8), "UINT8")), np.zeros((1, 3), dtype)
    assert decode_infer(message, Buffers({"bits": buffer}, contract()))["bits"] is buffer
    assert buffer.tobytes() == values.tobytes()
    buffer[...] = 0
    assert Buffers({"bits": buffer}, contract()).fill(decode_infer, message)["bits"] is buffer
    assert buffer.tobytes() == values.tobytes()


def test_a_torch_tensor_is_a_buffer_too():
    """bfloat16 as well; the result has the tensor."""
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    for dtype, datatype in ((torch.float32, "FP32"), (torch.bfloat16, "BF16")):
        tensor = torch.zeros(2, 3, dtype=dtype)
        array = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16 if datatype == "BF16" else np.float32)
        result = decode_infer(answer(("y", array, datatype)), Buffers({"y": tensor}, None))
        assert result["y"] is tensor
        assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]


def read_only() -> np.ndarray:
    array = np.zeros((1, 3), np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ({"q": np.zeros((1, 3), np.float32)}, r"no output 'q'; its outputs are: y FP32"),
        ({"y": np.zeros((1, 3))}, r"out\['y'\] is float64 \[1, 3\], the output of model 'm' is y FP32 \[\?, 3\]"),
        ({"y": np.zeros((1, 4), np.float32)}, r"out\['y'\] is float32 \[1, 4\], the output .* y FP32 \[\?, 3\]"),
        ({"y": np.zeros(3, np.float32)}, r"out\['y'\] is float32 \[3\]"),
        ({"words": np.zeros((1, 3), "S4")}, r"out\['words'\] is \|S4, .* an object array receives strings"),
        ({"words": np.zeros((1, 3), np.dtypes.StringDType())}, "an object array receives strings"),
        ({"y": read_only()}, "memory that may be written, found a read-only array"),
        ({"y": np.zeros((3, 2), np.float32).T}, r"row-major and without gaps, .* found <f4 with strides \(4, 8\)"),
        ({"y": np.zeros((2, 3), ">f4")}, "in this machine's byte order; found >f4"),
        ({"y": [[0, 0, 0]]}, r"out\['y'\] is a NumPy array or a tensor with DLPack on the CPU, found list"),
    ],
)
def test_a_buffer_that_cannot_receive_is_refused_before_anything_is_sent(out, message):
    """The message names the output, what is needed and what was given."""
    with pytest.raises(InvalidInput, match=message):
        buffers_of(InferOptions(out=out), contract())


def test_a_buffer_for_an_output_that_does_not_come_is_refused():
    """Because it is not asked for, or asked for as classes."""
    out = {"y": np.zeros((1, 3), np.float32)}
    with pytest.raises(InvalidInput, match="asked for not at all"):
        buffers_of(InferOptions(out=out, outputs=["bits"]), contract())
    with pytest.raises(InvalidInput, match="asked for as classes"):
        buffers_of(InferOptions(out=out, outputs=[Output(name="y", class_count=2)]), contract())
    assert "y" in buffers_of(InferOptions(out=out, outputs=["bits", Output(name="y")]), contract())


@pytest.mark.parametrize(
    "buffer", [np.zeros((2, 3)), np.zeros((3, 2), np.float32), np.zeros(6, np.float32), np.zeros((2, 3), np.int32)]
)
def test_a_buffer_of_another_type_or_shape_than_the_answer_is_refused(buffer):
    """Where no metadata said so before."""
    message = answer(("y", ARRAYS["numbers"][0], "FP32"))
    for read in (lambda out: decode_infer(message, out), lambda out: out.fill(decode_infer, message)):
        with pytest.raises(InvalidInput, match=r"out\['y'\] is .*, the answer has FP32 \[2, 3\]"):
            read(Buffers({"y": buffer}, None))
    assert not buffer.any()


def test_contents_of_the_wrong_size_leave_the_buffer_alone():
    """The answer is at fault, not the buffer."""
    message, buffer = pb.ModelInferResponse(raw_output_contents=[bytes(23)]), np.ones((2, 3), np.float32)
    message.outputs.add(name="y", datatype="FP32", shape=[2, 3])
    with pytest.raises(InvalidResponse, match="output 'y': expected 24 bytes"):
        decode_infer(message.SerializeToString(), Buffers({"y": buffer}, None))
    assert buffer.all()


def test_typed_contents_are_received_in_the_buffer():
    """From servers that answer in the typed fields."""
    message, buffer = pb.ModelInferResponse(), np.zeros(2, np.float32)
    message.outputs.add(name="y", datatype="FP32", shape=[2]).contents.fp32_contents.extend([1, 2])
    assert decode_infer(message.SerializeToString(), Buffers({"y": buffer}, None))["y"] is buffer
    assert buffer.tolist() == [1, 2]


def test_an_output_in_shared_memory_is_received_in_the_buffer():
    """With one copy, from the place to the buffer; strings end where they end."""
    memory = memoryview(bytearray(64))
    memory[:24] = ARRAYS["numbers"][0].tobytes()
    memory[32:43] = b"\1\0\0\0a\2\0\0\0bc"
    message = pb.ModelInferResponse(raw_output_contents=[b"", b""])
    message.outputs.add(name="y", datatype="FP32", shape=[2, 3])
    message.outputs.add(name="words", datatype="BYTES", shape=[2])
    places = {"y": Place("r", 0, 32, memory[:32]), "words": Place("r", 32, 32, memory[32:])}
    out = {"y": np.zeros((2, 3), np.float32), "words": np.empty(2, object)}
    result = decode_shared(message.SerializeToString(), places, Buffers(out, None))
    assert result["y"] is out["y"]
    assert out["y"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert out["words"].tolist() == [b"a", b"bc"]

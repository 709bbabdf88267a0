"""The hand-written messages against protobuf's own encoder and decoder, on whatever hypothesis thinks of."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.grpc import service_pb2 as pb

from naiad.client import InvalidResponse, Output, TensorMetadata
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.datatypes import triton_datatype
from naiad.client._protocol.request import InferOptions, decode_infer, encode_infer
from naiad.client._protocol.tensors import encode
from wire_agreement import a_codec, check

EXAMPLES = settings(max_examples=300, deadline=None)
TEXT = st.text(max_size=12)
INT64 = st.integers(-(2**63), 2**63 - 1)
PARAMETER = st.one_of(st.booleans(), INT64, st.floats(allow_nan=False), TEXT)
DTYPES = st.sampled_from(
    [
        "?",
        "u1",
        "<u2",
        ">u2",
        "<u4",
        "<u8",
        "i1",
        "<i2",
        "<i4",
        ">i8",
        "<f2",
        "<f4",
        ">f4",
        "<f8",
        "bf16",
        "S3",
        "U2",
        "O",
    ]
)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensor(draw: st.DrawFn) -> np.ndarray:
    """An array of any type and shape, in any layout."""
    dtype, shape = draw(DTYPES), draw(SHAPES)
    if dtype == "bf16":
        array = draw(arrays.arrays(np.float16, shape)).astype(ml_dtypes.bfloat16)
    elif dtype == "O":
        array = draw(arrays.arrays(object, shape, elements=st.one_of(st.binary(max_size=5), TEXT)))
    else:
        text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=2)
        elements = text if dtype == "U2" else None
        array = draw(arrays.arrays(np.dtype(dtype), shape, elements=elements))
    layout = draw(st.sampled_from(["C", "F", "strided"]))
    if layout == "strided" and array.ndim:
        return np.repeat(array, 2, axis=0)[::2]
    return np.asfortranarray(array) if layout == "F" else array


def row_major_bytes(array: np.ndarray) -> bytes:
    if array.dtype.kind in "OSU":
        items = [item if isinstance(item, bytes) else item.encode() for item in array.reshape(-1).tolist()]
        return b"".join(len(item).to_bytes(4, "little") + item for item in items)
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def set_parameter(into: pb.InferParameter, value: object, *, unsigned: bool = False) -> None:
    if isinstance(value, bool):
        into.bool_param = value
    elif isinstance(value, int):
        setattr(into, "uint64_param" if unsigned else "int64_param", value)
    elif isinstance(value, float):
        into.double_param = value
    else:
        into.string_param = value


@EXAMPLES
@given(
    model=TEXT,
    version=TEXT,
    inputs=st.dictionaries(TEXT, tensor(), max_size=3),
    request_id=TEXT,
    parameters=st.dictionaries(TEXT.filter(lambda key: key != "priority"), PARAMETER, max_size=3),
    outputs=st.lists(st.builds(Output, name=TEXT, class_count=st.integers(0, 9)), max_size=3),
    priority=st.integers(0, 2**64 - 1),
)
def test_a_request_is_what_protobuf_would_have_written(
    model, version, inputs, request_id, parameters, outputs, priority
):
    """Field by field, and the second time from a codec's memory too."""
    expected = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for key, value in parameters.items():
        set_parameter(expected.parameters[key], value)
    if priority:
        expected.parameters["priority"].uint64_param = priority
    for name, array in inputs.items():
        expected.inputs.add(name=name, datatype=triton_datatype(array.dtype), shape=array.shape)
        expected.raw_input_contents.append(row_major_bytes(array))
    for output in outputs:
        asked = expected.outputs.add(name=output.name)
        if output.class_count:
            asked.parameters["classification"].int64_param = output.class_count
    options = InferOptions(request_id=request_id, parameters=parameters, outputs=outputs, priority=priority)
    message = encode_infer(model, version, inputs, options, None)
    assert pb.ModelInferRequest.FromString(message) == expected
    described = {
        name: TensorMetadata(name=name, datatype=triton_datatype(array.dtype), shape=array.shape)
        for name, array in inputs.items()
    }
    known = Contract(
        model=model,
        inputs=described,
        outputs={output.name: TensorMetadata(name=output.name, datatype="FP32", shape=()) for output in outputs},
        optional=frozenset(),
        max_batch_size=0,
    )
    codec = Codec(model, version, known)
    if inputs:
        assert [codec.encode(inputs, options) for _ in range(2)] == [message, message]


@st.composite
def answer(draw: st.DrawFn) -> pb.ModelInferResponse:
    """An answer as a server could send it, right or with tensors that do not fit their description."""
    message = pb.ModelInferResponse(model_name=draw(TEXT), model_version=draw(TEXT), id=draw(TEXT))
    for key, value in draw(st.dictionaries(TEXT, PARAMETER, max_size=2)).items():
        set_parameter(message.parameters[key], value)
    for name in draw(st.lists(TEXT, max_size=3, unique=draw(st.booleans()))):
        array = draw(tensor())
        output = message.outputs.add(name=name, datatype=triton_datatype(array.dtype), shape=array.shape)
        for key, value in draw(st.dictionaries(TEXT, PARAMETER, max_size=1)).items():
            set_parameter(output.parameters[key], value)
        raw = b"".join([encode(array, output.datatype)])
        message.raw_output_contents.append(draw(st.one_of(st.just(raw), st.just(raw), st.binary(max_size=20))))
    return message


@EXAMPLES
@given(st.lists(answer(), min_size=1, max_size=2), st.binary(max_size=12))
def test_an_answer_is_read_as_protobuf_reads_it(parts, more):
    """Also in parts that are merged, with fields that nobody knows, and with anything behind it."""
    codec, whole = a_codec(), b"".join(part.SerializeToString() for part in parts)
    check(whole, codec)
    check(whole + b"\xfa\x7f\3abc\xf8\x7f\1", codec)
    check(whole + more, codec)


@EXAMPLES
@given(answer(), st.data())
def test_a_damaged_answer_is_read_as_protobuf_reads_it_or_refused(message, data):
    """Cut off, with bytes changed, taken out or put in."""
    whole = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole)))
        end = data.draw(st.integers(at, min(at + 4, len(whole))))
        whole[at:end] = data.draw(st.binary(max_size=4))
    check(bytes(whole), a_codec())


@EXAMPLES
@given(st.binary(max_size=60))
@example(b"\x32\x00")
@example(b"\x2a\x00")
def test_any_bytes_are_read_as_protobuf_reads_them_or_refused(message):
    """No other error comes out."""
    check(message, a_codec())


@EXAMPLES
@given(tensor())
def test_a_tensor_goes_round(array):
    """What a server echoes is what was sent, in every type, shape and layout."""
    datatype = triton_datatype(array.dtype)
    message = pb.ModelInferResponse(raw_output_contents=[row_major_bytes(array)])
    message.outputs.add(name="y", datatype=datatype, shape=array.shape)
    back = decode_infer(message.SerializeToString())["y"]
    assert back.shape == array.shape
    assert row_major_bytes(back) == row_major_bytes(array)


@pytest.mark.parametrize("field", ["bool", "int", "int64", "uint", "uint64", "fp32", "fp64", "bytes"])
@EXAMPLES
@given(data=st.data())
def test_typed_contents_are_the_values_that_protobuf_has(field, data):
    """Every typed field under every data type: the values, or InvalidResponse where they do not fit."""
    values = {"bool": st.booleans(), "int": st.integers(-(2**31), 2**31 - 1), "int64": INT64}
    values |= {"uint": st.integers(0, 2**32 - 1), "uint64": st.integers(0, 2**64 - 1), "bytes": st.binary(max_size=4)}
    values |= {"fp32": st.floats(width=32, allow_nan=False), "fp64": st.floats(allow_nan=False)}
    content = data.draw(st.lists(values[field], max_size=4))
    datatype = data.draw(
        st.sampled_from(["BOOL", "INT8", "INT32", "INT64", "UINT16", "UINT64", "FP32", "FP64", "BYTES"])
    )
    message = pb.ModelInferResponse()
    output = message.outputs.add(name="y", datatype=datatype, shape=[data.draw(st.integers(0, 4))])
    getattr(output.contents, f"{field}_contents").extend(content)
    try:
        result = decode_infer(message.SerializeToString())
    except InvalidResponse:
        return
    if result["y"].size:
        assert result["y"].tolist() == content

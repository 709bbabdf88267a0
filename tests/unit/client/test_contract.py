"""What a model's configuration says about its requests, and what is converted for it."""

import ml_dtypes
import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.model_config_pb2 import ModelConfig

from naiad.client import InvalidInput, ModelMetadata, TensorMetadata
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.datatypes import numpy_dtype
from naiad.client._protocol.request import NO_OPTIONS, InferOptions, encode_infer


def contract(config: str) -> Contract:
    metadata = ModelMetadata(name="m", versions=("1",), platform="", inputs=(), outputs=())
    return Contract.of(metadata, text_format.Parse(config, ModelConfig()))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", False),
        ("dynamic_batching {}", False),
        ("dynamic_batching { default_queue_policy { allow_timeout_override: true } }", False),
        ("dynamic_batching { default_queue_policy { default_timeout_microseconds: 9 } }", False),
        (
            "dynamic_batching { default_queue_policy { allow_timeout_override: true "
            "default_timeout_microseconds: 9 } }",
            True,
        ),
        (
            "dynamic_batching { priority_queue_policy { key: 2 value { allow_timeout_override: true "
            "default_timeout_microseconds: 9 } } }",
            True,
        ),
        ("sequence_batching {}", False),
    ],
)
def test_requests_bring_their_own_limit_where_it_shortens_one(config, expected):
    """Triton ignores a request's limit where none is configured, even if it may be overridden."""
    assert contract(config).queue_timeout is expected


def test_optional_inputs_and_the_largest_batch_come_from_the_configuration():
    """The metadata has neither."""
    known = contract('max_batch_size: 4 input { name: "a" } input { name: "b" optional: true }')
    assert known.optional == {"b"}
    assert known.max_batch_size == 4


def tensors(**datatypes: str) -> dict[str, TensorMetadata]:
    return {name: TensorMetadata(name=name, datatype=datatype, shape=(-1,)) for name, datatype in datatypes.items()}


@pytest.mark.parametrize(
    ("given", "datatype", "safe"),
    [
        ("float16", "FP32", True),
        ("float32", "FP64", True),
        ("int32", "FP64", True),
        ("int32", "FP32", False),
        ("float64", "FP32", False),
        ("uint8", "INT16", True),
        ("int8", "UINT16", False),
        ("bool", "FP32", True),
        (">f2", "FP32", True),
        (ml_dtypes.bfloat16, "FP32", True),
        (ml_dtypes.float8_e4m3fn, "FP32", True),
        ("float16", "BF16", False),
        ("float32", "BYTES", False),
        ("S3", "FP32", False),
        ("complex64", "FP64", False),
    ],
)
def test_a_safe_cast_is_numpys_and_only_on_request(given, datatype, safe):
    """Nothing is converted without being asked to, and nothing that could lose a value with it."""
    known = Contract(model="m", inputs=tensors(x=datatype), outputs={}, optional=frozenset(), max_batch_size=0)
    x = np.ones(3, given)
    message = r"input 'x' of model 'm' is " + datatype
    for options in (NO_OPTIONS, InferOptions(cast="safe")):
        for always in (None, "safe"):
            codec = Codec("m", "", known, cast=always)
            if safe and (options.cast or always):
                sent = pb.ModelInferRequest.FromString(codec.encode({"x": x}, options))
                assert sent.raw_input_contents[0] == np.ones(3, numpy_dtype(datatype)).tobytes()
                assert codec.placeable({"x": x}, options)[0].datatype == datatype
            else:
                with pytest.raises(InvalidInput, match=message):
                    codec.encode({"x": x}, options)
                with pytest.raises(InvalidInput, match=message):
                    codec.placeable({"x": x}, options)


def test_8_bit_floats_for_a_model_of_bytes_are_not_converted():
    """Their bits are what the model computes with."""
    known = Contract(model="m", inputs=tensors(x="UINT8"), outputs={}, optional=frozenset(), max_batch_size=0)
    x = np.array([1.5, -2], ml_dtypes.float8_e5m2)
    message = Codec("m", "", known).encode({"x": x}, InferOptions(cast="safe"))
    assert pb.ModelInferRequest.FromString(message).raw_input_contents[0] == x.tobytes()


def test_a_cast_that_is_not_safe_or_has_no_model_is_refused():
    """The message says what to do instead."""
    with pytest.raises(InvalidInput, match="cast is None or 'safe', found 'unsafe'"):
        InferOptions(cast="unsafe")
    with pytest.raises(InvalidInput, match="cast is None or 'safe', found True"):
        Codec("m", "", contract(""), cast=True)
    with pytest.raises(InvalidInput, match="has no input 'x'"):
        Codec("m", "", contract(""), cast="safe").encode({"x": np.ones(1)}, NO_OPTIONS)
    with pytest.raises(InvalidInput, match=r"cast='safe' needs to know the model's types: call client.model\(name\)"):
        encode_infer("m", "", {"x": np.ones(1)}, InferOptions(cast="safe"), None)

"""When an answer counts as right."""

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from naiad.loadtest._data.answers import answers_match, checker
from naiad.loadtest._data.codec import decode_answer
from naiad.loadtest._data.samples import Sample
from naiad.loadtest._data.stream import outputs_in


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_last_bits_may_differ(dtype):
    """Another batch sums in another order: that is no wrong answer."""
    expected = np.linspace(0.1, 1, 10, dtype=dtype)
    assert answers_match({"y": np.nextafter(expected, dtype(2))}, {"y": expected})


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"y": np.array([1.0, 2.5], np.float32)},
        {"y": np.array([1.0], np.float32)},
        {"y": np.array([1.0, 2.0], np.float64)},
        {"y": np.array([1.0, np.nan], np.float32)},
    ],
)
def test_a_missing_or_different_output_is_wrong(found):
    """Names, types, shapes and values all count."""
    assert not answers_match(found, {"y": np.array([1.0, 2.0], np.float32)})


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.object_])
def test_whole_numbers_and_strings_are_compared_exactly(dtype):
    """Only floating point has a tolerance."""
    expected = np.array([b"a", b"b"], object) if dtype is np.object_ else np.array([0, 1], dtype)
    assert answers_match({"y": expected.copy()}, {"y": expected})
    assert not answers_match({"y": expected[::-1]}, {"y": expected})


def answer(values, request_id=""):
    """A serialised answer with the output ``y``."""
    array = np.asarray(values, np.float32)
    message = service_pb2.ModelInferResponse(model_name="m", id=request_id)
    message.outputs.add(name="y", datatype="FP32", shape=array.shape)
    message.raw_output_contents.append(array.tobytes())
    return message.SerializeToString()


SAMPLES = [Sample(inputs={}, outputs={"y": np.array([[value]], np.float32)}) for value in (1.0, 2.0)]


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("key", [bytes, outputs_in, None])
def test_an_answer_is_compared_with_its_own_sample(kind, key):
    """Also when it comes again, whatever the connection holds it in."""
    check = checker(SAMPLES, key=key)
    for _ in range(2):
        assert check(0, kind(answer([[1.00001]])))
        assert check(1, kind(answer([[2.0]], "an id")), slot=7)
        assert not check(0, kind(answer([[2.0]])))
        assert not check(1, kind(b"\xff no answer"))


def test_answers_found_right_are_not_decoded_again():
    """They are recognised, with a stream whatever id they have."""
    decoded = []

    def decode(message, slot):
        decoded.append(slot)
        return decode_answer(message)

    check = checker(SAMPLES, decode, key=outputs_in)
    assert all(check(0, answer([[1.0]], str(index)), index) for index in range(5))
    assert decoded == [0]
    uncertain = checker(SAMPLES, decode, key=None)
    assert all(uncertain(0, answer([[1.0]]), index) for index in range(3))
    assert decoded == [0, 0, 1, 2]

"""A model's codec: what it remembers changes nothing about what it writes and reads."""

import random
from dataclasses import replace

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from naiad.client import InvalidInput, InvalidResponse, TensorMetadata
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.request import NO_OPTIONS, InferOptions, decode_infer, encode_infer


def a_response(**extra) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(model_name="m", model_version="1", id="q", **extra)
    message.parameters["triton_final_response"].bool_param = True
    message.parameters["score"].double_param = -0.25
    message.parameters["count"].int64_param = -3
    return message


def add_output(message, name, array, datatype):
    output = message.outputs.add(name=name, datatype=datatype, shape=array.shape)
    output.parameters["k"].string_param = "v"
    message.raw_output_contents.append(array.tobytes())


def contract_of(datatype: str) -> Contract:
    tensor = TensorMetadata(name="x", datatype=datatype, shape=(-1, -1))
    return Contract(model="m", inputs={"x": tensor}, outputs={"y": tensor}, optional=frozenset(), max_batch_size=8)


@pytest.mark.parametrize(
    "x",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.zeros((2, 0), np.float32),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(6, dtype=">f4").reshape(2, 3),
        [[1.0, 2.0]],
    ],
    ids=["plain", "empty", "fortran", "big-endian", "list"],
)
def test_a_codec_writes_the_same_bytes_the_second_time(x):
    """A request that is built from memory is the one that is built from scratch."""
    codec = Codec("m", "1", contract_of("FP32"))
    fresh = encode_infer("m", "1", {"x": x}, NO_OPTIONS, contract_of("FP32"))
    codec.encode({"x": np.ones((2, 3), np.float32)}, NO_OPTIONS)
    assert [codec.encode({"x": x}, NO_OPTIONS) for _ in range(3)] == [fresh] * 3


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray], ids=["C", "F"])
@pytest.mark.parametrize(
    "options",
    [
        InferOptions(request_id="r"),
        InferOptions(outputs=["y"], priority=3),
        InferOptions(sequence_id="s", sequence_start=True, parameters={"n": -1}),
    ],
    ids=["id", "outputs", "sequence"],
)
def test_what_is_said_with_a_request_does_not_change_its_tensors(options, layout):
    """The first and the second request say the same with the tensors, whether the first one was plain or not."""
    x = layout(np.arange(6, dtype=np.float32).reshape(2, 3))
    expected = pb.ModelInferRequest.FromString(encode_infer("m", "1", {"x": x}, options, contract_of("FP32")))
    plain = pb.ModelInferRequest.FromString(encode_infer("m", "1", {"x": x}, NO_OPTIONS, contract_of("FP32")))
    assert expected != plain
    codec = Codec("m", "1", contract_of("FP32"))
    for given, message in [(options, expected), (options, expected), (NO_OPTIONS, plain), (options, expected)]:
        assert pb.ModelInferRequest.FromString(codec.encode({"x": x}, given)) == message


def test_the_queue_timeout_is_sent_where_the_model_takes_one():
    """It is rounded up to milliseconds, stands beside whatever else is said, and yields to what the caller said."""
    x = {"x": np.ones((2, 3), np.float32)}

    def timeout(options: InferOptions = NO_OPTIONS, *, queue_timeout: bool = True, timeout_us: int = 1_234_567) -> int:
        known = replace(contract_of("FP32"), queue_timeout=queue_timeout)
        codec = Codec("m", "", known)
        fresh, again = (codec.encode(x, options, timeout_us) for _ in range(2))
        assert fresh == again == encode_infer("m", "", x, options, known, timeout_us)
        return pb.ModelInferRequest.FromString(again).parameters["timeout"].int64_param

    assert timeout() == 1_235_000
    assert timeout(timeout_us=1) == 1000
    assert timeout(timeout_us=0) == 0
    assert timeout(queue_timeout=False) == 0
    assert timeout(InferOptions(request_id="r")) == 1_235_000
    assert timeout(InferOptions(parameters={"timeout": 77})) == 77
    assert timeout(InferOptions(queue_timeout_us=5), queue_timeout=False) == 5


def test_a_codec_still_checks_what_it_has_not_seen():
    """A remembered request lets no other through."""
    codec = Codec("m", "", contract_of("FP32"))
    codec.encode({"x": np.ones((2, 3), np.float32)}, NO_OPTIONS)
    for wrong in (np.ones((2, 3)), np.ones((9, 3), np.float32), np.ones(3, np.float32)):
        with pytest.raises(InvalidInput):
            codec.encode({"x": wrong}, NO_OPTIONS)


def test_a_codec_reads_answers_that_look_alike_by_what_they_say():
    """Answers of one size but another name, type, shape, version or id are each read rightly, in any order."""
    codec, messages = Codec("m", "", contract_of("FP32")), []
    for name, array, datatype, version, request_id in [
        ("y", np.arange(6, dtype=np.float32).reshape(2, 3), "FP32", "1", ""),
        ("z", np.arange(6, dtype=np.float32).reshape(2, 3), "FP32", "1", ""),
        ("y", np.arange(6, dtype=np.float32).reshape(3, 2), "FP32", "1", ""),
        ("y", np.arange(6, dtype=np.float32).reshape(2, 3), "FP32", "2", ""),
        ("y", np.arange(6, dtype=np.float32).reshape(2, 3) + 1, "FP32", "1", ""),
        ("y", np.arange(6, dtype=np.int64).reshape(2, 3), "INT64", "1", "q"),
        ("y", np.zeros((0, 3), np.float32), "FP32", "1", ""),
        ("s", np.frombuffer(b"\x02\0\0\0ab", np.uint8), "BYTES", "1", ""),
    ]:
        message = pb.ModelInferResponse(model_name="m", model_version=version, id=request_id)
        add_output(message, name, array, datatype)
        if datatype == "BYTES":
            message.outputs[0].shape[:] = [1]
        messages.append(message.SerializeToString())
    for message in messages * 3:
        fresh, known = decode_infer(message), codec.decode(message)
        assert list(fresh) == list(known)
        assert (fresh.model_version, fresh.request_id) == (known.model_version, known.request_id)
        for name, array in fresh.items():
            assert array.dtype == known[name].dtype
            np.testing.assert_array_equal(array, known[name])
            assert known[name].flags.writeable


def test_answers_with_an_id_are_known_by_the_rest():
    """Each has the id that it says, of the same length or another, and one that is no text is refused."""
    codec = Codec("m", "", contract_of("FP32"))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)

    def answer(request_id: str) -> bytes:
        message = a_response()
        message.id = request_id
        add_output(message, "y", x, "FP32")
        return message.SerializeToString()

    for request_id in ("aaaa", "bbbb", "ßß", "", "aaaaa", "bbbbb", "\ufffda", "aaaa"):
        known = codec.decode(answer(request_id))
        assert known.request_id == decode_infer(answer(request_id)).request_id == request_id
        assert known.parameters["count"] == -3
        np.testing.assert_array_equal(known["y"], x)
    with pytest.raises(InvalidResponse, match="UTF-8"):
        codec.decode(answer("aaaa").replace(b"aaaa", b"aa\xff\xfe"))


def test_contents_that_look_like_the_framing_of_others_are_not_taken_for_it():
    """What follows the contents moves them away from the end; what they end with is theirs."""
    codec, x = Codec("m", "", contract_of("FP32")), np.zeros(6, np.float32)
    message = a_response()
    message.id = ""
    add_output(message, "y", x, "FP32")
    whole = bytearray(message.SerializeToString())
    whole[-17:-15] = b"\x32\x18"  # what precedes 24 bytes of contents
    moved = bytes(whole) + b"\x7a\x07" + bytes(7)  # an unknown field of nine bytes
    for _ in range(2):
        assert codec.decode(moved)["y"].tobytes() == bytes(whole[-24:])
    other = bytearray(moved)
    other[-24:-9] = bytes(15)
    assert codec.decode(bytes(other))["y"].tobytes() == bytes(other[-33:-9])


def test_of_two_ids_in_one_answer_the_later_counts():
    """Also when the answer is known."""
    codec, message = Codec("m", "", contract_of("FP32")), pb.ModelInferResponse(id="aa")
    add_output(message, "y", np.ones(1, np.float32), "FP32")
    whole = message.SerializeToString()
    twice = whole[:4] + whole
    assert codec.decode(twice).request_id == "aa"
    assert codec.decode(b"\x1a\2bb" + whole).request_id == "aa"


def test_known_answers_are_not_parsed_again(monkeypatch):
    """Also where several kinds of one size take turns, and whatever their ids."""
    codec, messages = Codec("m", "", contract_of("FP32")), []
    for version in "123":
        message = pb.ModelInferResponse(model_name="m", model_version=version, id=f"id {version}")
        add_output(message, "y", np.ones(3, np.float32), "FP32")
        messages.append(message.SerializeToString())
    for message in messages:
        codec.decode(message)
    monkeypatch.setattr("naiad.client._protocol.codec.read_response", None)
    for version, message in zip("123", messages, strict=True):
        known = codec.decode(message.replace(b"id", b"ID"))
        assert (known.model_version, known.request_id) == (version, f"ID {version}")


def test_a_codec_refuses_what_is_cut_off_or_changed():
    """Every truncation, and 10,000 mutations, of an answer it knows give a result or InvalidResponse."""
    codec, message = Codec("m", "", contract_of("FP32")), a_response()
    message.id = ""
    add_output(message, "y", np.arange(3, dtype=np.float32), "FP32")
    add_output(message, "z", np.arange(5, dtype=np.int8), "INT8")
    original, dice = message.SerializeToString(), random.Random(11)
    codec.decode(original)
    for number in range(10_000):
        data = bytearray(original[: dice.randrange(len(original))] if number % 2 else original)
        for _ in range(dice.randint(1, 3)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            fresh = decode_infer(bytes(data))
        except InvalidResponse:
            with pytest.raises(InvalidResponse):
                codec.decode(bytes(data))
            continue
        known = codec.decode(bytes(data))
        assert {name: array.tobytes() for name, array in known.items()} == {
            name: array.tobytes() for name, array in fresh.items()
        }

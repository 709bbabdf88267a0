"""Every data type, shape and memory layout on the real Triton: the bits that tritonclient gets, which are those sent.

The model gives its inputs back, so that what comes out is what the server saw.
"""

import asyncio
from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as reference

import client_models
from naiad.client import AsyncClient, Client
from naiad.client._protocol.datatypes import numpy_dtype

SHAPES = [
    (1,),
    (0,),
    (7,),
    (1, 1),
    (0, 4),
    (3, 0),
    (3, 5),
    (1, 1, 1),
    (2, 0, 3),
    (2, 3, 4),
    (1, 1, 1, 1),
    (2, 3, 4, 5),
    (0, 2, 0, 1),
    (2**10,),
    (2**16,),
    (2**9, 2**9),
    (2**18 + 1,),
]
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "row-major": np.ascontiguousarray,
    "column-major": np.asfortranarray,
    "every second": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "backwards": lambda array: np.ascontiguousarray(array[::-1])[::-1],
    "a part": lambda array: np.pad(array, 1)[(slice(1, -1),) * array.ndim],
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "big-endian, column-major": lambda array: np.asfortranarray(array.astype(array.dtype.newbyteorder(">"))),
    "unaligned": lambda array: np.frombuffer(b"x" + array.tobytes(), array.dtype, offset=1).reshape(array.shape),
}


@pytest.fixture(scope="module")
def peer(url: str) -> Iterator[reference.InferenceServerClient]:
    with reference.InferenceServerClient(url.rpartition("@")[2].removeprefix("grpc://")) as client:
        yield client


def numbers(datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Any bits that are a value of the type, NaNs, infinities and the like among them."""
    dtype = numpy_dtype(datatype)
    dice = np.random.default_rng(len(datatype) * 1000 + sum(shape))
    if datatype == "BOOL":
        return dice.integers(0, 2, shape).astype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    return dice.integers(0, 256, size, dtype=np.uint8).view(dtype).reshape(shape)


def answer_of_peer(peer: reference.InferenceServerClient, name: str, array: np.ndarray, datatype: str) -> np.ndarray:
    tensor = reference.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return peer.infer("mirror", [tensor]).as_numpy(f"{name}_out")


def ask_async(url: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    async def ask() -> np.ndarray:
        async with AsyncClient(url) as client:
            (array,) = (await client.model("mirror").infer(inputs)).values()
            return array

    return asyncio.run(ask())


def answers(triton: Client, url: str, name: str, array: np.ndarray) -> Iterator[np.ndarray]:
    """The answers of every way to ask: with a handle, again from its memory, into a buffer, without, and by asyncio."""
    inputs, mirror = {name: array}, triton.model("mirror")
    for _ in range(2):
        yield mirror.infer(inputs)[f"{name}_out"]
    buffer = np.empty(array.shape, object if array.dtype.kind in "OSUT" else array.dtype.newbyteorder("="))
    received = mirror.infer(inputs, out={f"{name}_out": buffer})
    assert received[f"{name}_out"] is buffer
    yield buffer
    yield triton.infer("mirror", inputs)[f"{name}_out"]
    yield ask_async(url, inputs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("datatype", client_models.NUMBERS)
def test_numbers_have_the_bits_that_tritonclient_gets(triton, url, peer, datatype, shape):
    """Whatever the type and the shape, and however the array lies in memory."""
    array, name = numbers(datatype, shape), f"in_{datatype}_{len(shape)}"
    expected = answer_of_peer(peer, name, array, datatype)
    assert expected.tobytes() == array.tobytes()
    for layout, arrange in LAYOUTS.items():
        given = arrange(array)
        assert given.shape == shape
        mirror = triton.model("mirror")
        for got in (
            answers(triton, url, name, given) if layout == "row-major" else [mirror(**{name: given})[f"{name}_out"]]
        ):
            assert got.dtype == expected.dtype
            assert got.shape == expected.shape
            assert got.tobytes() == expected.tobytes(), layout
            assert got.flags.writeable
            assert got.flags.c_contiguous
            assert got.flags.aligned


@pytest.mark.parametrize("datatype", ["UINT8", "FP16", "BF16", "INT32", "FP64"])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_large_numbers_have_the_bits_that_tritonclient_gets(triton, url, peer, datatype, extra):
    """At 4 MiB, one element more and one less: tritonclient itself copies just 2ⁿ bytes in another way."""
    array = numbers(datatype, (2**22 // numpy_dtype(datatype).itemsize + extra,))
    expected = answer_of_peer(peer, f"in_{datatype}_1", array, datatype)
    for got in answers(triton, url, f"in_{datatype}_1", array):
        assert got.tobytes() == expected.tobytes() == array.tobytes()
        assert got.ctypes.data % 64 == 0 or got.base is None


WORDS = ["", "a", "häß", "日本", "x" * 300, "ab\0cd", "\0", "tail\0"]
STRINGS: dict[str, Callable[[list[str]], np.ndarray]] = {
    "object of bytes": lambda words: np.array([word.encode() for word in words] + [None], object)[:-1],
    "object of str": lambda words: np.array([*words, None], object)[:-1],
    "object of both": lambda words: np.array(
        [w if i % 2 else w.encode() for i, w in enumerate(words)] + [None], object
    )[:-1],
    "S": lambda words: np.array([word.encode() for word in words]),
    "S of one width": lambda words: np.array([word.encode()[:1] or b"x" for word in words]),
    "U": np.array,
    "U, ASCII": lambda words: np.array([word.encode("ascii", "ignore").decode() for word in words]),
    "StringDType": lambda words: np.array(words, np.dtypes.StringDType()),
    "StringDType, short": lambda words: np.array([word[:1] or "x" for word in words], np.dtypes.StringDType()),
}


@pytest.mark.parametrize("shape", [(8,), (1,), (0,), (2, 4), (4, 0), (2, 2, 2), (1, 2, 1, 4)], ids=str)
@pytest.mark.parametrize("kind", STRINGS)
def test_strings_are_those_that_tritonclient_gets(triton, url, peer, kind, shape):
    """From every kind of string array, in any layout, with NULs and beyond ASCII."""
    array = np.resize(STRINGS[kind](WORDS), shape) if 0 not in shape else np.empty(shape, STRINGS[kind](WORDS).dtype)
    as_objects = np.empty(shape, object)
    as_objects[...] = array.astype(object)
    name = f"in_STRING_{len(shape)}"
    expected = answer_of_peer(peer, name, as_objects, "BYTES").tolist()
    for given in (array, np.asfortranarray(array)):
        for got in answers(triton, url, name, given):
            assert got.dtype == object
            assert got.shape == shape
            assert got.tolist() == expected
            assert got.flags.writeable


def test_many_strings_are_those_that_tritonclient_gets(triton, url, peer):
    """A hundred thousand, of one length and of many, beyond what text can be."""
    dice = np.random.default_rng(1)
    one_length = np.array([dice.bytes(16) for _ in range(100_000)], object)
    many_lengths = np.array([dice.bytes(int(size)) for size in dice.integers(0, 40, 100_000)], object)
    for array in (one_length, many_lengths):
        expected = answer_of_peer(peer, "in_STRING_1", array, "BYTES")
        for got in answers(triton, url, "in_STRING_1", array):
            assert got.tolist() == expected.tolist() == array.tolist()


@pytest.mark.parametrize("name", [name for name in dir(ml_dtypes) if name.startswith("float8_")])
def test_8_bit_floats_are_the_bytes_that_the_server_sees(triton, peer, name):
    """Every value of every kind, into an array of that kind too."""
    bits = np.arange(256, dtype=np.uint8)
    array = bits.view(getattr(ml_dtypes, name))
    assert answer_of_peer(peer, "in_UINT8_1", bits, "UINT8").tobytes() == bits.tobytes()
    mirror, buffer = triton.model("mirror"), np.empty_like(array)
    assert mirror(in_UINT8_1=array)["in_UINT8_1_out"].tobytes() == bits.tobytes()
    assert mirror.infer({"in_UINT8_1": array}, out={"in_UINT8_1_out": buffer})["in_UINT8_1_out"] is buffer
    assert buffer.tobytes() == bits.tobytes()


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int64", "bool"])
def test_torch_tensors_go_in_and_come_out(triton, name):
    """By DLPack: as they lie, into a tensor, and out of a result."""
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    tensor = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 2.0]]).to(getattr(torch, name)).T
    datatype = {"bfloat16": "BF16", "bool": "BOOL"}.get(name) or name.upper().replace("FLOAT", "FP")
    mirror, received = triton.model("mirror"), torch.zeros(3, 2, dtype=tensor.dtype)
    output = f"in_{datatype}_2_out"
    result = mirror(**{f"in_{datatype}_2": tensor})
    assert torch.equal(torch.from_dlpack(result.dlpack(output)), tensor)
    assert mirror.infer({f"in_{datatype}_2": tensor}, out={output: received})[output] is received
    assert torch.equal(received, tensor)


def test_all_types_go_together_in_one_request(triton, peer):
    """Fifty-six tensors of every type and rank, each with its own bits."""
    inputs = {}
    for datatype in client_models.MIRRORED:
        for rank in client_models.MIRROR_RANKS:
            shape = (2,) * rank
            strings = np.resize(STRINGS["object of bytes"](WORDS), shape)
            inputs[f"in_{datatype}_{rank}"] = strings if datatype == "STRING" else numbers(datatype, shape)
    result = triton.model("mirror").infer(inputs)
    assert {name.removesuffix("_out") for name in result} == set(inputs)
    for name, array in inputs.items():
        datatype = "BYTES" if array.dtype == object else name.split("_")[1]
        expected = answer_of_peer(peer, name, array, datatype)
        got = result[f"{name}_out"]
        if datatype == "BYTES":
            assert got.tolist() == expected.tolist()
        else:
            assert got.tobytes() == expected.tobytes()

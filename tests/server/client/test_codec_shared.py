"""The messages for shared memory, on the real Triton; who owns the memory and when is tested elsewhere."""

import mmap
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as reference
from tritonclient.utils import InferenceServerException

from naiad.client import Client, InvalidInput
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.request import NO_OPTIONS, Inputs
from naiad.client._protocol.shared import Place, decode_shared, encode_shared, placeable
from naiad.client.result import Result

SIZE = 1 << 16
PlaceAt = Callable[[int, int], Place]


def unregister(client: reference.InferenceServerClient, name: str, headers: dict[str, str]) -> None:
    """Take a region back; the server lets go of it a moment after the last answer."""
    for _ in range(200):
        try:
            client.unregister_system_shared_memory(name, headers=headers)
        except InferenceServerException as refused:
            if "currently in use" not in str(refused):
                raise
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"{name} stays in use")


@pytest.fixture
def place_at(url: str, address: str) -> Iterator[PlaceAt]:
    """A region that the server knows, handed out by offset and size."""
    if not address.startswith("127."):
        pytest.skip("the server is not on this machine")
    name = f"naiad_test_{os.getpid()}_{secrets.token_hex(4)}"
    secret = url.partition("@")[0].rpartition(":")[2]
    headers = {"triton-grpc-protocol-admin-key": secret}
    path = Path("/dev/shm") / name
    with path.open("w+b") as file, reference.InferenceServerClient(address) as client:
        file.truncate(SIZE)
        memory = mmap.mmap(file.fileno(), SIZE)
        try:
            client.register_system_shared_memory(name, f"/{name}", SIZE, headers=headers)
            yield lambda offset, size: Place(name, offset, size, memoryview(memory)[offset : offset + size])
            unregister(client, name, headers)
        finally:
            path.unlink()


def ask(address: str, model: str, known: Contract, inputs: Inputs, places: dict, outputs: dict) -> Result:
    message = encode_shared(model, "", placeable(inputs, known), NO_OPTIONS, known, places, outputs)
    with grpc.insecure_channel(address) as channel:
        answer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message, timeout=30)
    return decode_shared(answer, outputs)


def contract(client: Client, model: str) -> Contract:
    return Contract.of(client.model_metadata(model), client.model_config(model))


@pytest.mark.parametrize("where", ["in", "out", "both"])
def test_tensors_in_shared_memory_are_those_on_the_wire(triton, address, place_at, where):
    """Inputs, outputs or both in a region at an offset give the same answer as a plain call, big-endian or not."""
    x = np.arange(6, dtype=">f4").reshape(2, 3)
    places = {"x": place_at(4096, 24)} if where != "out" else {}
    outputs = {"y": place_at(8192, 100)} if where != "in" else {}
    answer = ask(address, "scale", contract(triton, "scale"), {"x": x}, places, outputs)
    np.testing.assert_array_equal(answer["y"], triton.model("scale")(x=x)["y"])
    assert (answer.model_name, answer.model_version) == ("scale", "2")


def test_placed_and_carried_tensors_mix_in_one_request(triton, address, place_at):
    """Each output is read from where it is, in whatever order."""
    inputs = {"a": [1, 2], "b": [10, 20]}
    known = contract(triton, "maybe")
    for placed, carried in (("sum", "difference"), ("difference", "sum")):
        answer = ask(address, "maybe", known, inputs, {"b": place_at(0, 8)}, {placed: place_at(512, 8)})
        expected = triton.model("maybe")(**inputs)
        assert answer[placed].tolist() == expected[placed].tolist()
        assert answer[carried].tolist() == expected[carried].tolist()


def test_strings_and_empty_tensors_go_through_shared_memory(triton, address, place_at):
    """Strings of any length and tensors of no size come back as they went."""
    known = contract(triton, "words")
    for words in (np.array([[b"", "häß".encode(), b"x" * 300]], object), np.empty((0, 2), object)):
        answer = ask(
            address,
            "words",
            known,
            {"in_STRING": words},
            {"in_STRING": place_at(0, 4096)},
            {"in_STRING_out": place_at(4096, 4096)},
        )
        assert answer["in_STRING_out"].tolist() == words.tolist()
        assert answer["in_STRING_out"].shape == words.shape


def test_an_output_that_does_not_fit_its_place_is_refused_by_the_server(triton, address, place_at):
    """The server says how much room it needs, and stays usable."""
    known = contract(triton, "scale")
    with pytest.raises(grpc.RpcError, match="at least 24 bytes"):
        ask(address, "scale", known, {"x": np.ones((2, 3), np.float32)}, {}, {"y": place_at(0, 8)})
    answer = ask(address, "scale", known, {"x": [[1, 2, 3]]}, {}, {"y": place_at(0, 12)})
    assert answer["y"].tolist() == [[3, 6, 9]]


def test_an_input_that_does_not_fit_its_place_is_refused_here(triton, place_at):
    """Nothing is sent, nothing is written."""
    known = contract(triton, "scale")
    place = place_at(0, 8)
    with pytest.raises(InvalidInput, match="12 bytes, its place in shared memory 8"):
        encode_shared("scale", "", placeable({"x": [[1, 2, 3]]}, known), NO_OPTIONS, known, {"x": place}, {})
    assert place.memory is not None
    assert not any(place.memory)

"""Tensors in shared memory, on the real Triton: the same answers as over the connection, wherever it is allowed."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from arena_helpers import SHM, Regions, files_of, owner_of, owners_here
from client_models import NUMBERS
from naiad.client import AsyncClient, Client, InvalidInput, SharedMemory
from naiad.client._protocol.datatypes import numpy_dtype

ALL = SharedMemory(min_tensor_bytes=1)
LAYOUTS = {
    "plain": lambda x: x,
    "fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3],
    "reversed": lambda x: x[::-1, ::-1],
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")) if x.dtype.kind in "iuf" else x,
    "one row": lambda x: x[:1],
    "one value": lambda x: x[:1, :1],
}


@pytest.fixture(autouse=True)
def new_owners(address: str) -> Callable[[], set[str]]:
    """What gives the owners of shared memory that came to live in this process since the test began."""
    if not address.startswith("127."):
        pytest.skip("the server is not on this machine")
    before = owners_here()
    return lambda: owners_here() - before


@pytest.fixture
def regions(url: str) -> Iterator[Regions]:
    found = Regions(url)
    yield found
    found.close()


@pytest.fixture
def shared(url: str, regions: Regions, new_owners: Callable[[], set[str]]) -> Iterator[Client]:
    """A client that sends everything through memory, and must leave nothing behind."""
    with Client(url, shared_memory=ALL) as client:
        yield client
        owners = new_owners()
    assert_gone(owners, regions)


@pytest.fixture
def wire(url: str) -> Iterator[Client]:
    """A client that sends nothing that way."""
    with Client(url, shared_memory=False) as client:
        yield client


def memory(client: Client) -> bytes:
    """The bytes of a client's only slot, as the file system has them."""
    (slot,) = client._caller.router.pool.peers[0].transport._registry._known
    return (SHM / slot).read_bytes()


def assert_gone(owners: set[str], regions: Regions) -> None:
    assert owners
    assert files_of(owners) == set()
    assert not {name for name in regions.names() if owner_of(name) in owners}


def values(datatype: str) -> np.ndarray:
    return np.arange(-20, 100).reshape(10, 12).astype(np.int8).astype(numpy_dtype(datatype))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_type_and_layout_arrives_as_over_the_connection(shared, wire, layout):
    """Bit by bit, with metadata and without, and it is the memory that carries them."""
    inputs = {f"in_{name}": LAYOUTS[layout](values(name)) for name in NUMBERS}
    expected = wire.model("echo")(**inputs)
    for answer in (shared.model("echo")(**inputs), shared.infer("echo", inputs)):
        assert list(answer) == list(expected)
        for name, array in expected.items():
            assert answer[name].dtype == array.dtype
            assert answer[name].shape == array.shape
            assert answer[name].tobytes() == array.tobytes()
            assert answer[name].flags.writeable
    for array in inputs.values():
        assert array.astype(array.dtype.newbyteorder("<")).tobytes() in memory(shared)


@pytest.mark.parametrize(
    "words",
    [
        np.array([[b"", b"a" * 300_000, "häß".encode()]], object),
        np.array([["x" * 1000, "ü"]]),
        np.array([[b"fixed", b"width"]]),
    ],
    ids=["objects", "text", "fixed"],
)
def test_strings_arrive_as_over_the_connection(shared, wire, words):
    """Any length, any kind of array."""
    expected = wire.model("words")(in_STRING=words)["in_STRING_out"]
    assert shared.model("words")(in_STRING=words)["in_STRING_out"].tolist() == expected.tolist()


def test_tensors_of_no_size_go_along_with_others(shared):
    """They need no place."""
    inputs = {f"in_{name}": values(name)[: 0 if name == "INT8" else 10] for name in NUMBERS}
    answer = shared.model("echo")(**inputs)
    assert answer["in_INT8_out"].shape == (0, 12)
    assert answer["in_FP64_out"].tobytes() == inputs["in_FP64"].tobytes()


def test_small_requests_make_no_memory(url, regions, new_owners):
    """By default it is for tensors of 256 KiB and more."""
    with Client(url) as client:
        client.model("scale")(x=np.ones((8, 3), np.float32))
        client.infer("scale", {"x": np.ones((8, 3), np.float32)})
        assert new_owners() == set()
        large = {f"in_{name}": np.zeros((300, 300), numpy_dtype(name)) for name in NUMBERS}
        client.model("echo")(**large)
        owners = new_owners()
        assert len(files_of(owners)) == 2
    assert_gone(owners, regions)


def test_a_slot_serves_request_after_request(shared, regions, new_owners):
    """One file, registered once; other sizes get their own."""
    model = shared.model("scale")
    for number in range(20):
        rows = np.full((1 + number % 8, 3), number, np.float32)
        assert np.array_equal(model(x=rows)["y"], 3 * rows)
    assert len({name for name in regions.names() if owner_of(name) in new_owners()}) == 1


def test_a_refused_request_leaves_the_slot_usable(shared, regions):
    """The server says no before it runs anything."""
    with pytest.raises(InvalidInput, match="unexpected shape"):
        shared.infer("scale", {"x": np.ones((2, 5), np.float32)})
    before = regions.names()
    for _ in range(3):
        with pytest.raises(InvalidInput):
            shared.infer("scale", {"x": np.ones((2, 5), np.float32)})
    assert shared.infer("scale", {"x": np.ones((2, 3), np.float32)})["y"].tolist() == [[3] * 3] * 2
    assert regions.names() == before


def test_without_the_secret_requests_go_over_the_connection(address, caplog, new_owners):
    """A server that restricts shared memory is asked once, which is said once."""
    x = np.ones((8, 3), np.float32)
    with caplog.at_level(logging.INFO, "naiad.client"), Client(address, shared_memory=ALL) as client:
        for _ in range(3):
            assert client.model("scale")(x=x)["y"].tolist() == (3 * x).tolist()
        owners = new_owners()
        assert not [name for name in files_of(owners) if not name.endswith(".lock")]
    assert files_of(owners) == set()
    said = [record.getMessage() for record in caplog.records if "shared memory" in record.getMessage()]
    assert len(said) == 1
    assert "This protocol is restricted" in said[0]


def test_a_client_that_is_told_not_to_makes_no_memory(url, new_owners):
    """`shared_memory=False`."""
    with Client(url, shared_memory=False) as client:
        large = {f"in_{name}": np.zeros((300, 300), numpy_dtype(name)) for name in NUMBERS}
        client.model("echo")(**large)
        assert new_owners() == set()


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_other_words_for_it_are_refused(value):
    """What is meant by them is not guessed."""
    with pytest.raises(InvalidInput, match="shared_memory is 'auto', True, False or a SharedMemory"):
        Client(shared_memory=value)


def test_bounds_make_sense():
    """Each names its field."""
    for given, field in (({"max_bytes": 0}, "max_bytes"), ({"servers": "some"}, "servers")):
        with pytest.raises(InvalidInput, match=f"SharedMemory.{field}"):
            SharedMemory(**given)


def test_more_than_there_may_be_goes_over_the_connection(url, regions, new_owners):
    """The arena's bound holds, and nobody waits for a slot."""
    with Client(url, shared_memory=SharedMemory(max_bytes=1 << 18, min_tensor_bytes=1)) as client:
        model = client.model("scale")
        x = np.ones((8, 3), np.float32)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number: model(x=number * x)["y"], range(100)))
        assert all(np.array_equal(answer, 3 * number * x) for number, answer in enumerate(answers))
        owners = new_owners()
        assert len({name for name in regions.names() if owner_of(name) in owners}) == 1
    assert_gone(owners, regions)


def test_sixteen_threads_get_their_own_answers(shared):
    """Each request has a slot to itself, and the threads share the slots."""
    model = shared.model("echo")

    def work(seed: int) -> bool:
        generator = np.random.default_rng(seed)
        for _ in range(10):
            inputs = {f"in_{name}": generator.integers(0, 100, (7, 9)).astype(numpy_dtype(name)) for name in NUMBERS}
            answer = model(**inputs)
            if any(answer[f"{name}_out"].tobytes() != array.tobytes() for name, array in inputs.items()):
                return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))


def test_calls_in_flight_get_their_own_answers(shared):
    """Sent without waiting, read in any order."""
    model = shared.model("scale")
    calls = [model.submit({"x": np.full((8, 3), number, np.float32)}) for number in range(20)]
    for number, call in reversed(list(enumerate(calls))):
        assert call.result()["y"].tolist() == [[3 * number] * 3] * 8
        assert call.result()["y"][0, 0] == 3 * number


async def test_asyncio_gets_its_own_answers(url, regions, new_owners):
    """16 in flight in one event loop; nothing is left."""
    async with AsyncClient(url, shared_memory=ALL) as client:
        model = client.model("scale")

        async def ask(number: int) -> bool:
            answer = await model(x=np.full((8, 3), number, np.float32))
            return answer["y"].tolist() == [[3 * number] * 3] * 8

        for start in range(0, 160, 16):
            assert all(await asyncio.gather(*map(ask, range(start, start + 16))))
        owners = new_owners()
        assert {owner_of(name) for name in regions.names()} >= owners
    assert_gone(owners, regions)


def test_several_clients_and_servers_names_do_not_collide(url, address, regions, new_owners):
    """Two clients, one of which knows the server by two addresses."""
    port = address.rpartition(":")[2]
    two = [url, url.replace("127.0.0.1", "localhost")]
    with Client(url, shared_memory=ALL) as one, Client(two, shared_memory=ALL) as both:
        for number in range(10):
            x = np.full((8, 3), number, np.float32)
            assert np.array_equal(one.model("scale")(x=x)["y"], 3 * x)
            assert np.array_equal(both.model("scale")(x=x)["y"], 3 * x)
        assert {peer.endpoint.target for peer in both._caller.router.pool.peers} == {address, f"localhost:{port}"}
        owners = new_owners()
        assert len(owners) == 2
    assert_gone(owners, regions)


ELSEWHERE = """
import logging, sys
import numpy as np
from naiad.client import Client, SharedMemory

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
with Client(sys.argv[1], shared_memory=SharedMemory(min_tensor_bytes=1)) as client:
    answer = client.model("scale")(x=np.ones((8, 3), np.float32))
    assert answer["y"].tolist() == [[3] * 3] * 8
"""


@pytest.mark.parametrize("size", ["64m", "1m"])
def test_a_container_with_its_own_shared_memory_uses_the_connection(url, size):
    """The server does not find the file; or there is not even room to make one."""
    inside = f'mount -t tmpfs -o size={size} none /dev/shm && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", inside, "sh"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    done = subprocess.run([*command, sys.executable, "-c", ELSEWHERE, url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ("Unable to open shared memory region" if size == "64m" else "more than 1/8") in done.stdout


def test_the_answer_is_not_in_the_slot_any_more(shared):
    """What a caller holds is the caller's: the next request does not change it."""
    model = shared.model("scale")
    first = model(x=np.ones((8, 3), np.float32))["y"]
    model(x=np.zeros((8, 3), np.float32))
    assert first.tolist() == [[3] * 3] * 8

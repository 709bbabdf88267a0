"""How slots end: requests that are given up, servers that go away, processes that are killed; on real servers."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from arena_helpers import SHM, Regions, files_of, owner_of, process, until, write_models
from naiad.client import (
    AsyncClient,
    Cancelled,
    Client,
    ClientClosed,
    ClientError,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    SharedMemory,
)
from naiad.server import EmbeddedTriton

ROW = np.arange(65536, dtype=np.float32)[None]
ALL = SharedMemory(min_tensor_bytes=1)


class Host:
    """A server of its own, which may be killed, and what it has registered."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.triton = EmbeddedTriton(repository).start()
        self.url = self.triton.admin_url
        self.regions = Regions(self.url)
        self._owners: set[str] = set()

    def registered(self) -> set[str]:
        """The regions that it has registered."""
        names = self.regions.names()
        self._owners |= {owner_of(name) for name in names}
        return names

    def files(self) -> set[str]:
        """The files of all who ever registered one here; other tests may run on this machine."""
        self.registered()
        return files_of(self._owners)

    def slots(self) -> set[str]:
        """Those of the files that are slots."""
        return {name for name in self.files() if not name.endswith(".lock")}

    def kill(self) -> None:
        """Kill the server, and wait for the one that takes its place."""
        restarts = self.triton.restarts
        os.kill(self.triton.pid, signal.SIGKILL)
        until(lambda: self.triton.restarts > restarts)
        with Client(self.url) as client:
            client.wait_ready(60)

    def hold(self) -> None:
        """Hold up what is sent to the model `held` from now on."""
        for name in ("go", "runs"):
            (self.repository / "held" / name).unlink(missing_ok=True)

    def until_it_runs(self) -> None:
        """Wait until a request is held up."""
        until((self.repository / "held" / "runs").exists)

    def let_go(self) -> None:
        """Let it be answered."""
        (self.repository / "held" / "go").touch()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    repository = tmp_path_factory.mktemp("arena") / "repository"
    write_models(repository)
    found = Host(repository)
    yield found
    found.regions.close()
    found.triton.stop()


@pytest.fixture(autouse=True)
def nothing_is_left(host: Host) -> Iterator[None]:
    """Every test begins and ends without a file or region of an arena."""
    assert host.files() == host.registered() == set()
    yield
    host.let_go()
    assert host.files() == set()
    until(lambda: not host.registered())


def test_outputs_of_known_size_come_through_memory(host):
    """A model whose shapes are fixed: both directions lie in one slot."""
    with Client(host.url) as client:
        model = client.model("fixed")
        for rows in (1, 8, 3):
            x = ROW + np.arange(rows, dtype=np.float32)[:, None]
            y = model(x=x)["y"]
            assert y.tobytes() == x.tobytes()
            assert any((SHM / name).read_bytes().count(x.tobytes()) == 2 for name in host.slots())


def test_outputs_of_varying_size_come_through_memory_once_they_are_known(host):
    """For requests that may run twice; one that grows is asked for again over the connection."""
    with Client(host.url) as client:
        model = client.model("growing", idempotent=True)
        assert np.array_equal(model(n=[100_000])["y"], np.arange(100_000))
        assert host.slots() == set()
        calls = int(model(n=[100_000])["calls"][0])
        (slot,) = host.slots()
        assert np.arange(100_000, dtype=np.float32).tobytes() in (SHM / slot).read_bytes()
        assert np.array_equal(model(n=[90_000])["y"], np.arange(90_000))
        answer = model(n=[200_000])
        assert np.array_equal(answer["y"], np.arange(200_000))
        assert answer["calls"][0] == calls + 3  # the one that was too large ran twice
        assert np.array_equal(model(n=[300_000])["y"], np.arange(300_000))


def test_outputs_of_varying_size_are_never_guessed_for_requests_that_run_once(host):
    """A guess that is too small would fail after the work is done."""
    with Client(host.url) as client:
        model = client.model("growing")
        for n in (100_000, 100_000, 200_000):
            assert np.array_equal(model(n=[n])["y"], np.arange(n))
        assert host.slots() == set()


def test_buffers_for_outputs_say_how_large_they_are(host):
    """Also where the model does not; one that is too small is the caller's mistake, said by the server."""
    with Client(host.url) as client:
        model, buffer = client.model("growing"), np.zeros(100_000, np.float32)
        answer = model.infer({"n": [100_000]}, out={"y": buffer})
        assert answer["y"] is buffer
        assert np.array_equal(buffer, np.arange(100_000))
        (slot,) = host.slots()
        assert buffer.tobytes() in (SHM / slot).read_bytes()
        with pytest.raises(InvalidInput, match=r"output 'y' \(400000 bytes\) should be at least 800000 bytes"):
            model.infer({"n": [200_000]}, out={"y": buffer})
        with pytest.raises(InvalidInput, match=r"\[50000\]"):
            model.infer({"n": [50_000]}, out={"y": buffer})
        assert model.infer({"n": [100_000]}, out={"y": buffer})["y"] is buffer


def test_a_model_whose_output_outgrew_its_description_fails_once(host):
    """The description is then not believed any more, and the next request is answered."""
    with Client(host.url) as client:
        model = client.model("fixed")
        model(x=ROW)
        config = client.model_config("growing")
        config.name = "fixed"
        code = (host.repository / "growing" / "1" / "model.py").read_bytes().replace(b'"n"', b'"x"')
        code = code.replace(b'int(pb.get_input_tensor_by_name(request, "x").as_numpy()[0])', b"3 * 65536")
        described = {
            "name": "fixed",
            "backend": "python",
            "max_batch_size": 8,
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [65536]}],
            "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1]}],
            "instance_group": [{"kind": "KIND_CPU"}],
        }
        code = code.replace(
            b'pb.Tensor("y", numbers), pb.Tensor("calls", numpy.int32([self.num_calls]))',
            b'pb.Tensor("y", numbers[None])',
        )
        client.load("fixed", config=described, files={"1/model.py": code})
        try:
            with pytest.raises(InferenceFailed, match="should be at least 786432 bytes"):
                model(x=ROW)
            assert model(x=ROW)["y"].shape == (1, 3 * 65536)
        finally:
            client.load("fixed")


def test_triton_refuses_to_unregister_memory_that_a_request_uses(host):
    """That is what lets us try at any time; servers before 24.09 died of it and get no memory from us."""
    host.hold()
    with Client(host.url) as client:
        client.model("fixed")(x=ROW)
        call = client.model("held").submit({"x": ROW[0]})
        host.until_it_runs()
        (used,) = [name for name in host.slots() if (SHM / name).read_bytes().startswith(ROW.tobytes())]
        with pytest.raises(Exception, match="it is currently in use"):
            host.regions.unregister(used)
        host.let_go()
        assert call.result()["y"].tobytes() == ROW.tobytes()


@pytest.mark.parametrize("how", ["deadline", "cancel", "drop", "task"])
def test_a_request_that_is_given_up_takes_its_slot_with_it(host, how):
    """The server may still use it: it is not lent again, and its registration goes when the server is done with it."""
    host.hold()
    with Client(host.url) as client:
        client.model("fixed")(x=ROW)
        (first,) = host.registered()
        {"deadline": _exceed, "cancel": _cancel, "drop": _drop, "task": _cancel_task}[how](host, client)
        used = first if how != "task" else min(host.registered() - {first})
        assert np.array_equal(client.model("fixed")(x=ROW)["y"], ROW)
        assert used not in host.files()
        assert used in host.registered()
        host.let_go()

        def settled() -> bool:
            with Client(host.url) as another:
                (another if how == "task" else client).model("fixed")(x=ROW)
            return used not in host.registered()

        until(settled)


def _exceed(host: Host, client: Client) -> None:
    with pytest.raises(DeadlineExceeded):
        client.model("held").infer({"x": ROW[0]}, timeout_s=0.5)
    host.until_it_runs()


def _cancel(host: Host, client: Client) -> None:
    call = client.model("held").submit({"x": ROW[0]})
    host.until_it_runs()
    call.cancel()
    with pytest.raises(Cancelled):
        call.result()


def _drop(host: Host, client: Client) -> None:
    call = client.model("held").submit({"x": ROW[0]})
    host.until_it_runs()
    del call


def _cancel_task(host: Host, client: Client) -> None:
    async def main() -> None:
        other = AsyncClient(host.url)
        task = asyncio.ensure_future(other.model("held")(x=ROW[0]))
        await asyncio.to_thread(host.until_it_runs)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await other.close()

    asyncio.run(main())


def test_closing_while_requests_run_leaves_no_file(host):
    """The caller that waits is told; what the server still uses is unregistered by whoever comes next."""
    host.hold()
    client = Client(host.url)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.model("held"), x=ROW[0])
        host.until_it_runs()
        client.close()
        with pytest.raises(ClientClosed):
            call.result()
    assert host.files() == set()
    assert len(host.registered()) == 1
    host.let_go()

    def swept() -> bool:
        with Client(host.url) as another:
            another.model("fixed")(x=ROW)
        return not host.registered()

    until(swept)


def test_a_server_that_was_restarted_gets_its_regions_again(host):
    """The request that finds them gone is sent again, since it was not run."""
    with Client(host.url) as client:
        model = client.model("fixed")
        model(x=ROW)
        (name,) = host.registered()
        host.kill()
        assert host.registered() == set()
        assert model(x=ROW)["y"].tobytes() == ROW.tobytes()
        assert host.registered() == {name}


async def test_a_server_that_was_restarted_gets_its_regions_again_in_asyncio(host):
    """The same with `await`."""
    async with AsyncClient(host.url) as client:
        model = client.model("fixed")
        await model(x=ROW)
        (name,) = host.registered()
        await asyncio.to_thread(host.kill)
        assert (await model(x=ROW))["y"].tobytes() == ROW.tobytes()
        assert host.registered() == {name}


def test_a_server_that_is_killed_under_load_gets_new_slots(host):
    """What was under way is lost with its slots; what comes later is answered, and nothing is left."""
    with Client(host.url) as client:
        model, stop, failures = client.model("fixed"), threading.Event(), []
        model(x=ROW)

        def work(mark: int) -> int:
            x, good = ROW + mark, 0
            while not stop.is_set():
                try:
                    assert np.array_equal(model(x=x)["y"], x)
                    good += 1
                except ClientError as error:
                    failures.append(error)
            return good

        with ThreadPoolExecutor(8) as pool:
            done = [pool.submit(work, mark) for mark in range(8)]
            try:
                host.kill()
                client.wait_ready(60)
                model(x=ROW)
            finally:
                stop.set()
            assert all(one.result() for one in done)
        assert np.array_equal(model(x=ROW)["y"], ROW)


def test_a_region_that_somebody_unregistered_is_registered_again(host):
    """An administrator may unregister everything."""
    with Client(host.url) as client:
        model = client.model("fixed")
        for _ in range(10):
            model(x=ROW)
            until(host.regions.unregister_all)  # a region counts as used until a moment after the answer
        assert model(x=ROW)["y"].tobytes() == ROW.tobytes()


def test_servers_share_slots(tmp_path, host):
    """A slot is one file, registered with each server that gets a request in it; both are told at the end."""
    write_models(tmp_path / "repository")
    with EmbeddedTriton(tmp_path / "repository", models=["fixed"]) as other:
        others = Regions(other.admin_url)
        with Client([host.url, other.admin_url]) as client:
            for _ in range(6):
                assert np.array_equal(client.model("fixed")(x=ROW)["y"], ROW)
            assert host.registered() == others.names() == host.slots()
            assert len(host.slots()) == 1
        assert others.names() == set()
        others.close()


CALLER = """
import asyncio, sys
import numpy as np
from naiad.client import AsyncClient, Client

url, how = sys.argv[1:]
x = np.ones((2, 65536), np.float32)
if how == "async":
    client = AsyncClient(url)
    async def main():
        assert (await client.model("fixed")(x=x))["y"].all()
    runner = asyncio.Runner()
    runner.run(main())
else:
    client = Client(url)
    assert client.model("fixed")(x=x)["y"].all()
if how == "submit":
    call = client.model("fixed").submit({"x": x})
print("ready", flush=True)
sys.stdin.readline()
"""

FORKING = """
import os, sys
import numpy as np
from naiad.client import Client

x = np.ones((2, 65536), np.float32)
client = Client(sys.argv[1])
assert client.model("fixed")(x=x)["y"].all()
before = {name for name in os.listdir("/dev/shm") if name.startswith("naiad-client-")}
child = os.fork()
if not child:
    try:
        assert client.model("fixed")(x=2 * x)["y"].sum() == 2 * x.sum()
        made = {name for name in os.listdir("/dev/shm") if name.startswith("naiad-client-")} - before
        assert len(made) == 2, made
        client.close()
        left = {name for name in os.listdir("/dev/shm") if name.startswith("naiad-client-")}
        assert left == before, left
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    sys.exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert client.model("fixed")(x=3 * x)["y"].sum() == 3 * x.sum()
print(status, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["sync", "async", "submit"])
def test_a_process_that_ends_without_closing_leaves_nothing(host, how):
    """Its end unregisters and removes what it had."""
    with process(CALLER, host.url, how) as caller:
        assert len(host.slots()) >= 1
        assert host.registered() == host.slots()
        assert caller.go_on() == 0
        assert host.files() == set()
        assert host.registered() == set()


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_killed_process_is_swept_up_by_the_next(host, how):
    """SIGKILL leaves files and registrations; the first request through memory of another process removes both."""
    with process(CALLER, host.url, "sync") as alive, process(CALLER, host.url, how) as killed:
        assert len(host.slots()) == len(host.registered()) == 2
        killed.kill()
        assert len(host.registered()) == 2
        with process(CALLER, host.url, "sync") as third:
            assert len(host.slots()) == len(host.registered()) == 2
            assert third.go_on() == 0
        assert len(host.slots()) == len(host.registered()) == 1
        assert alive.go_on() == 0


def test_a_process_ends_also_when_its_server_is_stopped_or_dead(host, tmp_path):
    """A server that does not answer is not waited for longer than a moment; its files go all the same."""
    write_models(tmp_path / "repository")
    with EmbeddedTriton(tmp_path / "repository", models=["fixed"], supervise=False) as other:
        regions = Regions(other.admin_url)
        with process(CALLER, other.admin_url, "sync") as frozen, process(CALLER, other.admin_url, "async") as bereft:
            owners = {owner_of(name) for name in regions.names()}
            assert len(owners) == 2
            os.kill(other.pid, signal.SIGSTOP)
            assert frozen.go_on() == 0
            assert len(files_of(owners)) == 2
            os.kill(other.pid, signal.SIGCONT)
            os.kill(other.pid, signal.SIGKILL)
            assert bereft.go_on() == 0
            assert files_of(owners) == set()
        regions.close()


def test_a_forked_child_has_its_own_slots(host):
    """It neither uses nor removes its parent's, and the parent goes on with them."""
    with process(FORKING, host.url) as parent:
        assert parent.said == "0"
        assert len(host.slots()) == len(host.registered()) == 1
        assert parent.go_on() == 0
        assert host.files() == set()


class OldServer(grpc.GenericRpcHandler):
    """A real gRPC server that says what it is, and notes what it is asked."""

    def __init__(self, version: str, *extensions: str) -> None:
        self.metadata = pb.ServerMetadataResponse(name="triton", version=version, extensions=extensions)
        self.asked: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method.rpartition("/")[2]

        def call(message: bytes, context: grpc.ServicerContext) -> bytes:
            self.asked.append(method)
            if method == "ServerMetadata":
                return self.metadata.SerializeToString()
            request = pb.ModelInferRequest.FromString(message)
            answer = pb.ModelInferResponse(model_name="m", raw_output_contents=[request.raw_input_contents[0]])
            answer.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
            return answer.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(call)


@pytest.mark.parametrize(
    ("version", "extensions"),
    [("2.49.0", ("system_shared_memory",)), ("2.60.0", ("sequence",)), ("", ("system_shared_memory",))],
)
def test_servers_that_cannot_do_it_safely_are_not_asked(version, extensions):
    """Triton before 2.50 dies when memory is unregistered that it still uses; other servers have not the extension."""
    handler = OldServer(version, *extensions)
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}", shared_memory=ALL) as client:
            for _ in range(3):
                assert client.infer("m", {"x": ROW})["y"].tobytes() == ROW.tobytes()
    finally:
        server.stop(None).wait()
    assert handler.asked == ["ServerMetadata", *["ModelInfer"] * 3]

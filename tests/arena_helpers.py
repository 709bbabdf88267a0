"""What the arena's tests share: processes that are killed, models that are held up, a look at files and regions."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import tritonclient.grpc as reference

SHM = Path("/dev/shm")


class Process:
    """A Python process that runs ``code``, says a line when it is there, and lives until it is told to go on."""

    def __init__(self, code: str, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, sys.executable, "-c", code, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()
        if not self.said:
            self.process.kill()
            pytest.fail(f"the process ended with {self.process.wait()} before it said anything")

    def go_on(self) -> int:
        """Let it run to its end; return its exit status."""
        self.process.communicate("\n", timeout=60)
        return self.process.returncode

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.communicate(timeout=60)


@contextmanager
def process(code: str, *arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[Process]:
    """Run a :class:`Process`; it is killed at the end if it still lives."""
    running = Process(code, *arguments, prefix=prefix)
    try:
        yield running
    finally:
        running.kill()


def files(directory: Path = SHM) -> set[str]:
    """The arenas' files there; in /dev/shm, those of all processes of this machine."""
    return {path.name for path in directory.glob("naiad-client-*")}


def owners_here() -> set[str]:
    """The owners that live in this process: it has their locks open."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed since they were listed, by another thread or as the list itself
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return {owner_of(Path(link).name) for link in links if link.startswith(f"{SHM}/naiad-client-") and ".lock" in link}


def files_of(owners: set[str]) -> set[str]:
    """The files of these owners in /dev/shm, locks included."""
    return {name for name in files() if owner_of(name) in owners}


def owner_of(name: str) -> str:
    """Whose a file or a region is."""
    return name.removesuffix(".lock") if name.endswith(".lock") else name.rpartition("-")[0]


class Regions:
    """What a server has registered, as an administrator sees it."""

    def __init__(self, url: str) -> None:
        secret, _, address = url.partition("://:")[2].partition("@")
        self._headers = {"triton-grpc-protocol-admin-key": secret}
        self._client = reference.InferenceServerClient(address)

    def names(self) -> set[str]:
        """The regions of arenas."""
        found = self._client.get_system_shared_memory_status(headers=self._headers).regions
        return {name for name in found if name.startswith("naiad-client-")}

    def unregister(self, name: str) -> None:
        """Unregister a region, as anybody may who has the secret."""
        self._client.unregister_system_shared_memory(name, headers=self._headers)

    def unregister_all(self) -> bool:
        """Unregister the regions of arenas; return whether none is left."""
        for name in self.names():
            with suppress(reference.InferenceServerException):
                self.unregister(name)
        return not self.names()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def until(condition: Callable[[], object]) -> None:
    """Wait until something holds; the test's time-out is the limit."""
    while not condition():
        time.sleep(0.01)


HELD = '''
import time
from pathlib import Path
import numpy
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Answers what it was sent as soon as there is a file `go`; nothing ends it sooner. It says so in a file `runs`."""

    def initialize(self, args):
        self.folder = Path(args["model_repository"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb.get_input_tensor_by_name(request, "x").as_numpy()
        (self.folder / "runs").touch()
        while not (self.folder / "go").exists():
            time.sleep(0.005)
        return pb.InferenceResponse([pb.Tensor("y", x)])
'''

GROWING = '''
import numpy
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Answers so many numbers as it is asked for, and counts how often it was asked."""

    def initialize(self, args):
        self.num_calls = 0

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        n = int(pb.get_input_tensor_by_name(request, "n").as_numpy()[0])
        self.num_calls += 1
        numbers = numpy.arange(n, dtype="float32")
        return pb.InferenceResponse([pb.Tensor("y", numbers), pb.Tensor("calls", numpy.int32([self.num_calls]))])
'''


def write_models(repository: Path) -> None:
    """Write `fixed` (rows of 256 KiB, given back), `held` and `growing` below `repository`."""
    from repository_helpers import graph, node, write_model

    row = "FP32[batch,65536]"
    model = graph([node("Identity", "x", to="y")], {"x": row}, {"y": row})
    tensors = {"inputs": {"x": "FP32[65536]"}, "outputs": {"y": "FP32[65536]"}}
    write_model(repository, "fixed", model, **tensors, max_batch_size=8)
    _python(repository, "held", HELD, 'input { name: "x" data_type: TYPE_FP32 dims: [ 65536 ] }', "y: FP32 65536")
    _python(repository, "growing", GROWING, 'input { name: "n" data_type: TYPE_INT32 dims: [ -1 ] }', "y: FP32 -1")


def _python(repository: Path, name: str, code: str, inputs: str, output: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.py").write_text(code)
    tensor, kind, dims = output.replace(":", "").split()
    calls = 'output { name: "calls" data_type: TYPE_INT32 dims: [ 1 ] }' if name == "growing" else ""
    (repository / name / "config.pbtxt").write_text(
        f'name: "{name}" backend: "python" {inputs} '
        f'output {{ name: "{tensor}" data_type: TYPE_{kind} dims: [ {dims} ] }} {calls} '
        "instance_group { kind: KIND_CPU count: 1 }"
    )

"""How a server ends, and what it leaves behind: nothing."""

import concurrent.futures
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from launcher_helpers import alive, ask, eventually, num_pending, regions, write_model
from naiad.server import EmbeddedTriton, ModelLoadFailed

OWNER = """
import os, sys, time
from naiad.server import EmbeddedTriton
triton = EmbeddedTriton(sys.argv[1]).start()
private = triton._server.private
print(triton.pid, *triton.stub_pids(), private.path, private.region_prefix, flush=True)
{then}
time.sleep(600)
"""


def test_requests_in_flight_and_queued_are_answered(identity_repository: Path) -> None:
    """Stopping waits for what was sent before, also for requests that still wait for the instance."""
    with (
        EmbeddedTriton(identity_repository) as triton,
        triton.client() as client,
        concurrent.futures.ThreadPoolExecutor(3) as callers,
    ):
        answers = [callers.submit(ask, client, "identity", 0.5) for _ in range(3)]
        eventually(lambda: num_pending(triton.metrics_url) == 2, "one request runs, two wait")
        triton.stop()
        assert [answer.result().tolist() for answer in answers] == [[[0.5, 0.5]]] * 3


def test_a_stop_leaves_nothing(identity_repository: Path) -> None:
    """No process, shared memory, private directory or watchdog outlives `stop()`; stopping again does nothing."""
    triton = EmbeddedTriton(identity_repository).start()
    private, pids = triton._server.private, [triton.pid, *triton.stub_pids(), triton._server.private._watchdog.pid]
    triton.stop()
    triton.stop()
    assert not any(map(alive, pids))
    assert not regions(private.region_prefix)
    assert not private.path.exists()


@pytest.mark.parametrize("then", ["", "os.fork()"], ids=["alone", "with a forked child"])
def test_a_killed_owner_takes_everything_along(identity_repository: Path, then: str) -> None:
    """After kill -9 of the owner, processes, shared memory and the private directory disappear by themselves."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER.format(then=then), str(identity_repository)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as owner:
        assert owner.stdout is not None
        *pids, directory, prefix = owner.stdout.readline().split()
        assert regions(prefix)
        owner.kill()
        owner.wait()
        eventually(lambda: not any(alive(int(pid)) for pid in pids), "Triton and its stubs end")
        eventually(lambda: not regions(prefix), "the shared memory is removed")
        eventually(lambda: not Path(directory).exists(), "the private directory is removed")
        _end_group(owner.pid)


def test_the_next_start_cleans_up_after_a_dead_owner_and_its_watchdog(identity_repository: Path) -> None:
    """Where the watchdog was killed, too, the next server that starts removes what is left."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER.format(then="print(private._watchdog.pid, flush=True)"), str(identity_repository)],
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        *pids, directory, prefix = owner.stdout.readline().split()
        os.kill(int(owner.stdout.readline()), signal.SIGKILL)
        owner.kill()
    with EmbeddedTriton(identity_repository):
        eventually(lambda: not any(alive(int(pid)) for pid in pids), "Triton and its stubs end")
        assert not regions(prefix)
        assert not Path(directory).exists()


def test_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    """When a model does not load, the server that had started is gone when the error arrives."""
    source = "class TritonPythonModel:\n    def initialize(self, args):\n        raise RuntimeError('no weights')\n"
    repository = write_model(tmp_path / "repository", "broken", source=source)
    before = set(psutil.Process().children())
    with pytest.raises(ModelLoadFailed, match="broken: RuntimeError: no weights"):
        EmbeddedTriton(repository).start()
    assert not [child for child in psutil.Process().children() if child not in before]
    assert not [path for path in Path("/tmp").glob("naiad-*/repository") if path.readlink() == repository]


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return

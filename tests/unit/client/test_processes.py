"""Clients where processes fork, greenlets replace threads, and interpreters end."""

import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable

import numpy as np
import pytest

from naiad.client import Client
from naiad.client.testing import FakeTriton

ONE = {"x": np.ones((1, 3), np.float32)}


def in_child(work: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Run `work` in a forked child, and fail if it fails or does not end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    ended = threading.Event()
    timer = threading.Timer(timeout_s, lambda: ended.is_set() or os.kill(child, 9))
    timer.start()
    _, status = os.waitpid(child, 0)
    ended.set()
    timer.cancel()
    assert os.waitstatus_to_exitcode(status) == 0


def serve_in_another_process() -> tuple[subprocess.Popen[str], str]:
    """A fake server elsewhere: gRPC servers do not survive a fork of their own process."""
    script = (
        "import sys\n"
        "from naiad.client.testing import FakeTriton\n"
        "with FakeTriton({'double': lambda x: {'y': 2 * x}}) as fake:\n"
        "    print(fake.url, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.fixture
def url():
    process, url = serve_in_another_process()
    yield url
    process.communicate(timeout=30)


FORKS = """
import os, sys, threading
import numpy as np
from naiad.client import Client
url, calls_before = sys.argv[1], sys.argv[2] == "used"
sys.path.insert(0, sys.argv[3])
from test_processes import in_child, ONE

with Client(url) as client:
    model = client.model("double")
    def call():
        assert model(**ONE)["y"].tolist() == [[2, 2, 2]]
        assert client.servers[0].outstanding == 0
    if calls_before:
        call()
    held = client._caller.router.pool._lock
    held.acquire()           # as if another thread were in the middle of something
    try:
        in_child(call)
        in_child(lambda: in_child(call))
    finally:
        held.release()
    call()
print("done")
"""


@pytest.mark.parametrize("used", ["used", "unused"])
def test_a_client_goes_on_in_a_forked_child_and_in_the_parent(url, used):
    """As under a pre-forking web server: with a connection of its own, whether or not the parent had called before."""
    here = os.path.dirname(__file__)
    ended = subprocess.run(
        [sys.executable, "-c", FORKS, url, used, here], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.stdout.strip(), ended.returncode) == ("done", 0), ended.stderr


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
import numpy as np
from naiad.client import Client

with Client(sys.argv[1]) as client:
    model = client.model("meet")
    def call(number):
        return model.infer({"x": np.full((1, 1), number, np.float32)}, timeout_s=60)["y"][0, 0]
    greenlets = [gevent.spawn(call, number) for number in range(8)]
    ticks = 0
    while not all(greenlet.ready() for greenlet in greenlets):
        gevent.sleep(0.01)   # the loop turns while calls wait
        ticks += 1
    assert [greenlet.get() for greenlet in greenlets] == [2.0 * number for number in range(8)]
    assert ticks > 0
print("done")
"""


def test_greenlets_call_at_the_same_time():
    """Eight requests wait for each other in the server: blocking calls that blocked all greenlets would never end."""
    pytest.importorskip("gevent", reason="gevent is not installed")
    together = threading.Barrier(8, timeout=60)

    def meet(x: np.ndarray) -> dict[str, np.ndarray]:
        together.wait()
        return {"y": 2 * x}

    with FakeTriton({"meet": meet}) as fake:
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", GREENLETS, fake.url],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (ended.stdout.strip(), ended.returncode) == ("done", 0), ended.stderr


LEFT_OPEN = """
import sys
import numpy as np
from naiad.client import Client

client = Client(sys.argv[1])
call = client.model("double").submit({"x": np.ones((1, 3), np.float32)})
print("done")
"""


def test_an_interpreter_ends_with_a_client_and_a_call_left_open():
    """Nothing hangs, nothing is printed."""
    with FakeTriton({"double": lambda x: {"y": 2 * x}}) as fake:
        fake.hang()
        ended = subprocess.run(
            [sys.executable, "-c", LEFT_OPEN, fake.url], capture_output=True, text=True, timeout=60, check=False
        )
    assert (ended.stdout.strip(), ended.stderr, ended.returncode) == ("done", "", 0)


@pytest.mark.parametrize("_", range(5))
def test_threads_may_begin_with_a_client_that_nobody_has_used(_):
    """The first calls of many threads meet in the making of the connection."""
    start, answers = threading.Barrier(16), list[object]()
    with FakeTriton({"double": lambda x: {"y": 2 * x}}) as fake, Client(fake.url) as client:

        def work() -> None:
            start.wait()
            answers.append(client.model("double")(**ONE)["y"].tolist())

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [[[2, 2, 2]]] * 16

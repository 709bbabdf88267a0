"""Kills processes that change a repository: at a random moment, or before each of their steps in turn.

    python export_killer.py REPOSITORY moments COUNT SEED   kills COUNT processes that change it without end
    python export_killer.py REPOSITORY steps FIRST EVERY    kills before step FIRST, FIRST + EVERY, … until one lives
    python export_killer.py REPOSITORY interrupts FIRST EVERY    the same with Ctrl-C, which lets it clean up

A step is a change of a file or directory, a flush to the disk, a lock; or a request to S3, before it leaves and after
its answer. The one that is killed is a fork, so that nothing is imported again. After each kill one line of JSON says
where, and a line on standard input lets it go on.
"""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import io
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from export_publisher import publish, publish_again
from naiad.export import NothingToRollBack, Repository

MODEL = "some"
_EVENTS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}
_SLOWEST_S = 0.12


def change(repository: str) -> None:
    """One round of every act that changes a repository, with the files of a version that is there."""
    repo = Repository(repository)
    for promote in (True, False):
        publish_again(repo, MODEL, promote=promote)
    repo.promote(MODEL, *repo.versions(MODEL)[-2:])
    repo.rollback(MODEL)
    repo.prune(MODEL, keep=2, force=True)


def _roll_back(repo: Repository) -> None:
    with contextlib.suppress(NothingToRollBack):  # those that were killed after the act have rolled back all there is
        repo.rollback(MODEL)


ACTS: tuple[Callable[[Repository], object], ...] = (
    lambda repo: publish(repo, MODEL, size=20_000, labels=("a", "b", "c")),
    lambda repo: publish(repo, MODEL, size=20_000, labels=("a", "b", "c"), promote=False),
    lambda repo: repo.promote(MODEL, *repo.versions(MODEL)[-2:]),
    lambda repo: _roll_back(repo),
    lambda repo: repo.prune(MODEL, keep=2, force=True),
    lambda repo: publish(repo, "another", labels=("a", "b", "c")),
)


def moments(repository: str, count: int, seed: int) -> Iterator[str]:
    """Kill `count` processes, each at a moment of its work that chance chooses."""
    chance = random.Random(seed)
    for _ in range(count):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            while True:
                os.write(writer, b".")
                change(repository)
        os.read(reader, 1)  # it begins
        time.sleep(chance.uniform(0, _SLOWEST_S))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
        yield "at a moment"


def steps(repository: str, first: int, every: int, number: int = signal.SIGKILL) -> Iterator[str]:
    """Send a signal before the n-th step of each act, for every n until there are no more steps."""
    for act in ACTS:
        count = first
        while step := _stopped_before(count, act, repository, number):
            yield f"{count}: {step}"
            count += every


def interrupts(repository: str, first: int, every: int) -> Iterator[str]:
    """Press Ctrl-C before the n-th step of each act."""
    return steps(repository, first, every, signal.SIGINT)


def _stopped_before(count: int, act: Callable[[Repository], object], repository: str, number: int) -> str:
    """Return the step before which the process got the signal; nothing if it had fewer steps."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _signal_before(count, writer, number)
        with contextlib.suppress(KeyboardInterrupt):
            act(Repository(repository))
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as said:
        step = said.read()
    assert status == 0 or os.WIFSIGNALED(status), f"it failed by itself before step {count}"
    return step


def _signal_before(count: int, writer: int, number: int) -> None:
    left, write = count, os.write

    def step(what: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            write(writer, what.encode())
            os.kill(os.getpid(), number)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS:
            step(f"{event} {arguments[0]}")
        elif event == "open" and _writes(arguments):
            step(f"open {arguments[0]}")

    sys.addaudithook(hook)
    for module, name in ((os, "fsync"), (os, "write"), (fcntl, "flock")):
        setattr(module, name, _counted(getattr(module, name), step, name))
    io.open = builtins.open = _counted_open(io.open, step)  # type: ignore[assignment]
    _count_requests(step)


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    return bool(mode and set(str(mode)) & set("wxa+")) or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _counted(function: Callable[..., Any], step: Callable[[str], None], name: str) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        step(name)
        return function(*arguments, **options)

    return counted


def _counted_open(function: Callable[..., Any], step: Callable[[str], None]) -> Callable[..., Any]:
    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        found = function(file, mode, *arguments, **options)
        if set(mode) & set("wxa+"):
            step(f"first byte of {file}")  # it is there now, and empty
        return found

    return opened


def _count_requests(step: Callable[[str], None]) -> None:
    if "s3fs" not in sys.modules:
        return
    from s3fs import S3FileSystem

    call = S3FileSystem._call_s3

    async def counted(self: Any, method: Any, *arguments: Any, **options: Any) -> Any:
        step(f"{method} {options.get('Key')}")
        answer = await call(self, method, *arguments, **options)
        step(f"answer of {method} {options.get('Key')}")
        return answer

    S3FileSystem._call_s3 = counted


if __name__ == "__main__":
    if sys.argv[1].startswith("s3:"):
        import s3fs  # noqa: F401 - once, for all forks
    kills = {"moments": moments, "steps": steps, "interrupts": interrupts}[sys.argv[2]](
        sys.argv[1], int(sys.argv[3]), int(sys.argv[4])
    )
    for where in kills:
        print(json.dumps(where), flush=True)
        sys.stdin.readline()

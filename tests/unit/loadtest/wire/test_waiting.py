"""Waiting for sockets: few descriptors and many, small numbers and large ones."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from naiad.loadtest._wire.waiting import wait


@pytest.fixture(params=[False, True], ids=["small number", "large number"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[int, socket.socket]]:
    """A descriptor to wait for, which may be one that ``select`` has no room for, and the other end."""
    first, other = socket.socketpair()
    with first, other:
        first.setblocking(False)
        if not request.param:
            yield first.fileno(), other
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 2_100:
            pytest.skip(f"this machine allows {hard} open files, 2,100 are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_100), hard))
        with socket.socket(fileno=fcntl.fcntl(first, fcntl.F_DUPFD, 2_000)) as large:
            yield large.fileno(), other
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_can_be_read_or_written_is_told(pair: tuple[int, socket.socket]) -> None:
    """Nothing, then room to write, then something to read, then the end of the line."""
    number, other = pair
    assert wait([number], [], 0.0) == ([], [])
    assert wait([number], [number], 10.0) == ([], [number])
    other.send(b"x")
    assert wait([number], [], 10.0) == ([number], [])
    assert wait([number], [number], 10.0) == ([number], [number])
    assert os.read(number, 1) == b"x"
    assert wait([number], [], -1.0) == ([], [])
    other.close()
    assert wait([number], [], 10.0) == ([number], [])

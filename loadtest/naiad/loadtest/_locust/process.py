"""What processes with Locust in them share: orders on stdin, lines on stdout, an end that does not hang."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from gevent.fileobject import FileObjectThread

__all__ = ["leave", "orders", "quiet", "say"]


def orders() -> Iterator[dict[str, Any]]:
    """Yield the orders that come on stdin, until its end; other greenlets go on meanwhile."""
    for line in FileObjectThread(sys.stdin.buffer, "rb", close=False):
        if line.endswith(b"\n"):  # else whoever gives orders was killed in the middle of one
            yield json.loads(line)


def say(what: str, **fields: Any) -> None:
    """Write one line; whoever no longer listens is gone, and so is the reason to be here."""
    try:
        sys.stdout.buffer.write(json.dumps({"say": what, **fields}).encode() + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        leave(0)


def quiet() -> None:
    """Show Locust's errors, and nothing else that it logs."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)


def leave(code: int) -> NoReturn:
    """End now: gevent's threads would wait for ever for a read of stdin that is under way."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

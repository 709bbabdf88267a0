"""Fixtures of :mod:`naiad.client.testing` for any project that has naiad installed.

It lies outside of ``naiad.client`` because pytest imports it at the start of every run, and importing anything of
that room imports gRPC and NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import os

    from naiad.client.testing import FakeTriton, Line, Recorder, Replay


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--record-triton``."""
    parser.getgroup("naiad").addoption(
        "--record-triton",
        metavar="URL",
        help="ask this Triton, and write the files that the fixture triton_replay answers from (grpc://host:port)",
    )


@pytest.fixture
def fake_triton() -> Iterator[Callable[..., FakeTriton]]:
    """Makes fake Tritons: ``fake_triton({"double": lambda x: {"y": 2 * x}})``; they are stopped after the test.

    The arguments are those of :class:`naiad.client.testing.FakeTriton`.
    """
    from naiad.client.testing import FakeTriton

    with ExitStack() as running:
        yield lambda models=None, **options: running.enter_context(FakeTriton(models, **options))


@pytest.fixture
def triton_line() -> Iterator[Callable[..., Line]]:
    """Makes lines to servers, which can be cut and stalled: ``triton_line(server.grpc_address)``.

    The arguments are those of :class:`naiad.client.testing.Line`.
    """
    from naiad.client.testing import Line

    with ExitStack() as running:
        yield lambda target, **options: running.enter_context(Line(target, **options))


@pytest.fixture
def triton_replay(request: pytest.FixtureRequest) -> Iterator[Callable[[str | os.PathLike[str]], Replay | Recorder]]:
    """Answers from a recorded file: ``triton_replay("answers.naiad")``, its path relative to the test's file.

    With ``--record-triton URL`` it passes everything on to that server, and writes the file anew.
    """
    target = request.config.getoption("--record-triton")
    with ExitStack() as running:

        def make(path: str | os.PathLike[str]) -> Replay | Recorder:
            from naiad.client.testing import Recorder, Replay

            file = request.path.parent / Path(path)
            if target is None:
                return running.enter_context(Replay(file))
            file.unlink(missing_ok=True)
            return running.enter_context(Recorder(target, file))

        yield make

"""A fixture with the real Triton, for any project that has ``naiad[server]`` installed.

It lies outside of ``naiad.server`` because pytest imports it at the start of every run, and importing anything of
that room imports gRPC and NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from naiad.server import EmbeddedTriton


@pytest.fixture(scope="session")
def embedded_triton(request: pytest.FixtureRequest) -> Iterator[Callable[..., EmbeddedTriton]]:
    """Starts the real Triton: ``embedded_triton("model_repository", models=["digits"])``.

    There is one server for each repository and set of options in a session, stopped at its end. A relative path
    starts at pytest's root directory; the arguments are those of :class:`naiad.server.EmbeddedTriton`.
    """
    with ExitStack() as running:
        servers: dict[str, EmbeddedTriton] = {}

        def start(repository: str | Path, **options: Any) -> EmbeddedTriton:
            from naiad.server import EmbeddedTriton

            path = (request.config.rootpath / repository).resolve()
            key = repr((path, sorted(options.items())))
            if key not in servers:
                servers[key] = running.enter_context(EmbeddedTriton(path, **options))
            return servers[key]

        yield start

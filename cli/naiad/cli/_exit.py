"""Exit codes of the commands that measure, which say more than passed or failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperCommand

__all__ = ["EXIT_CODES_HELP", "ExitCode", "MeasuringCommand"]


class ExitCode(IntEnum):
    """What a measurement came to; a build that only asks whether it is 0 asks the right question."""

    PASSED = 0
    REGRESSION = 1
    """Slower than what it was compared with."""
    OBJECTIVE_MISSED = 2
    INCONCLUSIVE = 3
    """It could not be told whether it is slower."""
    INVALID = 4
    """The load generator or the machine was the limit, and not the server."""
    ERROR = 5
    """Nothing was measured, or not what was asked for; wrong use is among it, so that no typo looks like a miss."""


EXIT_CODES_HELP = (
    "Exit codes: 0 passed, 1 slower than the baseline, 2 an objective was missed, 3 inconclusive, 4 invalid (the load "
    "generator or the machine was the limit), 5 error (wrong use, no server, requests failed, nothing measured), 130 "
    "interrupted."
)


class MeasuringCommand(TyperCommand):
    """A command whose wrong use, and every error, ends with 5: elsewhere wrong use is 2, which is a verdict here."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the arguments."""
        with _as_error():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _as_error():
            return super().invoke(ctx)


@contextmanager
def _as_error() -> Iterator[None]:
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except Exception as exc:
        exc.exit_code = ExitCode.ERROR  # type: ignore[attr-defined]  # typer reads it, and so does our main()
        raise

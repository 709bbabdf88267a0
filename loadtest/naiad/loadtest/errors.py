"""Everything that can go wrong in a load test, one class for each thing a caller would do differently.

::

    LoadTestError
    ├── InvalidPlan (ValueError)       an argument is wrong: correct it
    │   ├── InvalidSlo                 an objective that cannot be parsed
    │   ├── InvalidScenario            a scenario file has an unknown or wrong key: says where
    │   ├── InvalidData                the samples do not fit the model
    │   ├── InvalidBaseline            the baseline is of another model, load or machine, or is none
    │   ├── InvalidReport              a file that should be a report of a load test is none
    │   └── OutputNotWritable          a report or baseline cannot be written where it was asked for
    ├── GateFailed                     one side of a comparison answered nothing, or could not be run
    └── EngineFailed                   the processes that send the requests ended without a result

A run that took place but went badly (the server died, nothing succeeded, an objective was missed) is no exception: it
is a :class:`naiad.loadtest.Report` that says so. Errors of the server that show before the first request come as
:class:`naiad.client.ClientError`.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "EngineFailed",
    "GateFailed",
    "InvalidBaseline",
    "InvalidData",
    "InvalidPlan",
    "InvalidReport",
    "InvalidScenario",
    "InvalidSlo",
    "LoadTestError",
    "OutputNotWritable",
]


class LoadTestError(Exception):
    """The root of this package's errors; ``model`` and ``path`` say what it is about, where that is known."""

    def __init__(self, message: str, *, model: str | None = None, path: str | None = None) -> None:
        super().__init__(message)
        self.model = model
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__


class InvalidPlan(LoadTestError, ValueError):
    """An argument of the load test is wrong."""


class InvalidSlo(InvalidPlan):
    """An objective that cannot be parsed or can never be met."""


class InvalidScenario(InvalidPlan):
    """A scenario cannot be read; ``line`` and ``key`` say where, if it is about one key of a file."""

    def __init__(
        self,
        message: str,
        *,
        model: str | None = None,
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(message, model=model, path=path)
        self.line = line
        self.key = key


class InvalidData(InvalidPlan):
    """The samples to send do not fit the model."""


class InvalidBaseline(InvalidPlan):
    """The baseline cannot be compared with this run."""


class InvalidReport(InvalidPlan):
    """The file holds no report that can be shown or compared."""


class OutputNotWritable(InvalidPlan):
    """A file of results cannot be written where it was asked for."""


class GateFailed(LoadTestError):
    """One side of a comparison could not be measured at all."""


class EngineFailed(LoadTestError):
    """The processes that send the requests ended without a result."""

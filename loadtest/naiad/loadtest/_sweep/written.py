"""What a curve over several loads has in common: it is written as the report of one of its runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from naiad.loadtest.report import Report

__all__ = ["Written"]


class Written(ABC):
    """Results of several runs, of which one stands for all."""

    __slots__ = ()

    @abstractmethod
    def representative(self) -> Report | None:
        """Return the report of the run that stands for all; ``None`` where there is none."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, as in report.json."""

    def write(
        self,
        *,
        html: Path | None = None,
        json: Path | None = None,
        csv: Path | None = None,
        command: str | None = None,
        scenario: str | None = None,
    ) -> None:
        """Write the report: the curve, and the run that stands for all; nothing where there is none.

        ``command`` and ``scenario`` say how to get it again.

        Raises:
            OutputNotWritable: a file cannot be written where it was asked for.
        """
        if (report := self.representative()) is not None:
            replace(report, sweep=self, command=command, scenario=scenario).write(html=html, json=json, csv=csv)

"""What a demo found, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from naiad.cli._console import out, print_error, print_json

__all__ = ["Summary"]


@dataclass(kw_only=True, slots=True)
class Summary:
    """Rows for people in the order in which they are shown, figures for programs, and the verdict."""

    rows: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether everything is as it should be."""
        return not self.failures

    def row(self, label: str, text: str, **figures: Any) -> None:
        """Add a line of the table, and the figures it was made of."""
        self.rows[label] = text
        self.figures |= figures

    def table(self, title: str, rows: list[dict[str, str]], **figures: Any) -> None:
        """Add a table of its own, whose rows all have the same columns, and the figures it was made of."""
        self.tables[title] = rows
        self.figures |= figures

    def check(self, holds: bool, otherwise: str) -> None:
        """Note a failure, in words for a reader, where something does not hold; the demo goes on."""
        if not holds:
            self.failures.append(otherwise)

    def show(self, title: str, *, last: str = "") -> None:
        """Print the table, what is doubtful, what failed; ``last`` where nothing did."""
        table = Table(show_header=False, title=title, title_justify="left")
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in (self.rows | {name: str(path) for name, path in self.paths.items()}).items():
            table.add_row(escape(name), escape(value))
        out.print(table, *(_table(*each) for each in self.tables.items()), sep="\n")
        for warning in self.warnings:
            out.print(f"[yellow]note:[/] {escape(warning)}")
        for failure in self.failures:
            print_error(failure)
        if self.passed and last:
            out.print(last, markup=False)

    def print_json(self, system: str) -> None:
        """Print everything as one JSON document."""
        paths = {name: str(path) for name, path in self.paths.items()}
        verdict = {"passed": self.passed, "failures": self.failures, "warnings": self.warnings}
        shown = {"rows": self.rows, "tables": self.tables}
        print_json({"system": system, **self.figures, **verdict, **shown, "paths": paths})


def _table(title: str, rows: list[dict[str, str]]) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(escape(column), overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row.values()))
    return table

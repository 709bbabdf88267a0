"""The files of a report, from its content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naiad.loadtest._report.content import to_text
from naiad.loadtest._report.gate_page import gate_html
from naiad.loadtest._report.run_page import run_html
from naiad.loadtest._report.tables import percentiles_csv, points_csv, sweep_csv

__all__ = ["files_of", "html_of"]


def files_of(
    content: Mapping[str, Any],
    *,
    html: Path | str | None = None,
    json: Path | str | None = None,
    csv: Path | str | None = None,
) -> dict[Path, str]:
    """Return the text of each file that is asked for."""
    found: dict[Path, str] = {}
    if json is not None:
        found[Path(json)] = to_text(content)
    if csv is not None:
        path = Path(csv)
        found[path] = points_csv(content)
        found[_beside(path, "percentiles")] = percentiles_csv(content)
        if content["sweep"] is not None:
            found[_beside(path, "sweep")] = sweep_csv(content["sweep"])
    if html is not None:
        found[Path(html)] = html_of(content)
    return found


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.stem}-{what}{path.suffix or '.csv'}")


def html_of(content: Mapping[str, Any]) -> str:
    """Return the page for a content of any kind."""
    return gate_html(content) if content["kind"] == "gate" else run_html(content)

"""The table of precisions that were tried, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from naiad.export import PrecisionResult


def precision_table(results: Sequence[PrecisionResult]) -> Table:
    """Return one row for each candidate: what it changed, how near it is to PyTorch, and how fast it was."""
    batches = sorted({item.batch for result in results for item in result.latency})
    table = Table(title="precision", title_justify="left")
    table.add_column("candidate")
    for header in ("nodes", "MB", "error", *(f"batch {batch}" if batch else "latency" for batch in batches)):
        table.add_column(header, justify="right")
    table.add_column("rows/s", justify="right")
    table.add_column("speed-up", justify="right")
    table.add_column("")
    for result in results:
        table.add_row(*_cells(result, batches), style="bold" if result.chosen else "")
    return table


def precision_notes(results: Sequence[PrecisionResult]) -> Iterator[Text]:
    """Yield a sentence for each candidate that was refused, and for each that left nodes in fp32."""
    for result in results:
        if result.refused:
            yield Text(f"{_name(result)}: {result.refused}")
        elif result.left_in_fp32:
            yield Text(f"{_name(result)}: left in fp32: {', '.join(result.left_in_fp32)}")


def _cells(result: PrecisionResult, batches: Sequence[int]) -> Iterator[str]:
    times = {item.batch: item for item in result.latency}
    errors = [parity.max_rel_error for parity in result.parity]
    yield _name(result)
    yield str(result.num_changed) if result.precision != "fp32" or result.method else ""
    yield f"{result.size_bytes / 1e6:.2f}" if result.size_bytes else ""
    yield f"{max(errors):.2g}" if errors else ""
    for batch in batches:
        yield f"{times[batch].median_ms:.3g} ± {times[batch].spread_ms / 2:.1g} ms" if batch in times else ""
    yield f"{times[batches[-1]].rows_per_s:,.0f}" if batches and batches[-1] in times else ""
    yield f"{result.speed_up:.2f}×" if result.speed_up else ""
    yield "chosen" if result.chosen else "refused" if result.refused else ""


def _name(result: PrecisionResult) -> str:
    left = f", {len(result.left_in_fp32)} left out" if result.left_in_fp32 else ""
    return f"{result.precision} {result.method}".strip() + left

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
    title = "precision, in ms by batch size (b1 is one row); ✓ published, ✗ refused"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("candidate", min_width=12)
    times = [f"b{batch}" if batch else "ms" for batch in batches]
    for header in ("nodes", "MB", "error", *times, "rows/s", "speed"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for result in results:
        table.add_row(*_cells(result, batches), style="bold" if result.chosen else "")
    return table


def precision_notes(results: Sequence[PrecisionResult]) -> Iterator[Text]:
    """Yield where candidates ran, and a sentence for each that was refused, and for each that left nodes in fp32."""
    for place in dict.fromkeys(result.verified_on for result in results if result.verified_on):
        here = [result for result in results if result.verified_on == place]
        timed = "verified and timed" if any(result.latency for result in here) else "verified, and not timed,"
        yield Text(f"candidates: {timed} on {place}")
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
        yield f"{times[batch].median_ms:.3g}" if batch in times else ""
    yield _short(times[batches[-1]].rows_per_s) if batches and batches[-1] in times else ""
    yield f"{result.speed_up:.2f}×" if result.speed_up else ""
    yield "✓" if result.chosen else "✗" if result.refused else ""


def _name(result: PrecisionResult) -> str:
    left = f", {len(result.left_in_fp32)} left out" if result.left_in_fp32 else ""
    return f"{result.precision} {result.method}".strip() + left


def _short(number: float) -> str:
    return f"{number / 1e3:.3g}k" if number >= 10_000 else f"{number:.3g}" if number < 100 else f"{number:.0f}"

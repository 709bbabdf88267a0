"""What a run looks like while it goes on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from naiad.cli._console import err
from naiad.cli.loadtest.figures import duration, number, sparkline, time_us

if TYPE_CHECKING:
    from naiad.loadtest import LoadTest
    from naiad.loadtest import Progress as RunProgress
    from naiad.loadtest._sweep.point import SweepProgress

__all__ = ["watch_run", "watch_sweep"]

_CURVE: Final = 24
_PER_S: Final = 4
_PHASES: Final = {
    "calibrating": "measuring the load generator itself",
    "warmup": "warming up",
    "window": "measuring",
    "drain": "finishing",
}


@contextmanager
def watch_run(test: LoadTest) -> Iterator[Callable[[RunProgress], None] | None]:
    """Show how far a run is, where somebody is looking; nothing where not."""
    if not err.is_terminal:
        yield None
        return
    screen = _Screen(test)
    with Live(screen, console=err, refresh_per_second=_PER_S, transient=True):
        yield screen.update


@contextmanager
def watch_sweep() -> Iterator[Callable[[SweepProgress], None] | None]:
    """Show which run of several it is, and keep a line for each that is over."""
    if not err.is_terminal:
        yield None
        return
    with err.status("starting …") as status:
        done = 0

        def update(progress: SweepProgress) -> None:
            nonlocal done
            if progress.done > done:
                done = progress.done
                err.print(progress.text, markup=False)
            else:
                number = f"{done + 1} of {progress.planned}" if progress.planned else f"run {done + 1}"
                status.update(f"{number}: {progress.text}")

        yield update


class _Screen:
    """The latest figures; drawn when rich asks for it, so that a slow terminal holds nobody up."""

    def __init__(self, test: LoadTest) -> None:
        self._title = " + ".join(dict.fromkeys(traffic.model for traffic in test.mix))
        self._wanted = test.precision
        self._latest: RunProgress | None = None
        self._at_s = time.monotonic()
        self._rates: deque[float] = deque(maxlen=_CURVE)
        self._tails: deque[float] = deque(maxlen=_CURVE)

    def update(self, latest: RunProgress) -> None:
        """Take what the runner says."""
        self._latest, self._at_s = latest, time.monotonic()
        if latest.phase in ("warmup", "window"):
            self._rates.append(latest.throughput)
            self._tails.append(latest.p99_us or 0.0)

    def __rich__(self) -> RenderableType:
        latest = self._latest
        if latest is None:
            return Text(f"{self._title}: starting …")
        if latest.phase == "calibrating":
            return Text(f"{self._title}: {_PHASES[latest.phase]} …")
        return Group(self._course(latest), self._figures(latest))

    def _course(self, latest: RunProgress) -> RenderableType:
        elapsed_s = latest.elapsed_s + (time.monotonic() - self._at_s)
        row = Table.grid(padding=(0, 2))
        row.add_row(
            Text(self._title, style="bold"),
            Text(_PHASES[latest.phase], style="yellow" if latest.phase != "window" else "green"),
            ProgressBar(total=latest.total_s or 1.0, completed=min(elapsed_s, latest.total_s or 1.0), width=24)
            if latest.total_s
            else Text(""),
            Text(self._time(latest, elapsed_s)),
            Text(self._precision(latest)),
        )
        return row

    def _time(self, latest: RunProgress, elapsed_s: float) -> str:
        if not latest.total_s:
            return duration(int(elapsed_s))
        at_most = latest.phase == "warmup" or self._wanted is not None
        left_s = max(0, int(latest.total_s - elapsed_s + 0.999))
        return f"{'at most ' if at_most else ''}{duration(left_s)} left"

    def _precision(self, latest: RunProgress) -> str:
        if latest.precision is None or self._wanted is None:
            return ""
        return f"p{self._wanted.percentile:g} known to ±{latest.precision:.1%} of ±{self._wanted.within:.1%}"

    def _figures(self, latest: RunProgress) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_column(width=_CURVE)
        offered = "" if latest.offered_per_s is None else f" of {number(latest.offered_per_s)} offered"
        load = f"{latest.users} users · " if latest.users else ""
        table.add_row(
            Text(sparkline(self._rates, _CURVE), style="green"),
            Text(f"{number(latest.throughput)} requests/s{offered} · {load}{latest.in_flight} in flight"),
        )
        errors = Text(f"{latest.errors:,} errors", style="red" if latest.errors else "")
        table.add_row(
            Text(sparkline(self._tails, _CURVE), style="magenta"),
            Text.assemble(f"p50 {time_us(latest.p50_us)} · p99 {time_us(latest.p99_us)} · ", errors),
        )
        return table

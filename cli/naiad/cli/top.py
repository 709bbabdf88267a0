"""``naiad top``: what the served models do, as it changes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from naiad.cli._console import out
from naiad.cli._interrupts import run_async
from naiad.cli._running import URL_HELP, admin_secret, replicas_behind, running_url

if TYPE_CHECKING:
    from naiad.cli._load import Load, Sight
    from naiad.client import AsyncClient

Show = Callable[["Sight"], None]
_LEAST_WAIT_S: Final = 1.0
_LINES_BESIDE_ROWS: Final = 4


def top(
    url: Annotated[str | None, typer.Option(help=f"{URL_HELP} Several with commas.")] = None,
    interval: Annotated[float, typer.Option("--interval", "-n", min=0.1, help="Seconds between two readings.")] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one interval and end; exit code 1 if a server is away.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each interval.")] = False,
) -> None:
    """Show the load of every served model, until Ctrl-C.

    The figures are those of the requests that ended within the last interval: requests, failures and rows per second,
    rows in a run of the model, how many requests wait and run on average, and how long each did. The busiest model
    comes first. Where nobody looks at a terminal, each interval is printed below the one before.

    Examples:

        naiad top

        naiad top --url grpc://gpu1:8001,gpu2:8001 --interval 5

        naiad top --once --json
    """
    from naiad.client import AsyncClient, Retry

    address = url or running_url()
    secret = None if "@" in address else admin_secret(address)
    address, secret = replicas_behind(address) or (address, secret)
    client = AsyncClient(
        address.split(",") if address.count("://") > 1 else address,
        timeout=max(interval, _LEAST_WAIT_S),
        retry=Retry(attempts=1),
        admin_secret=secret,
    )
    try:
        with _shown(interval, live=out.is_terminal and not (once or as_json), as_json=as_json) as show:
            sight = run_async(_watch(client, interval, show, once=once, first=out.is_terminal and not as_json))
    except KeyboardInterrupt:  # the usual way to end it
        return
    if sight.away:
        raise typer.Exit(1)


async def _watch(client: AsyncClient, interval: float, show: Show, *, once: bool, first: bool) -> Sight:
    """Show what there is at every interval; with ``first``, what the first reading alone tells, too."""
    from naiad.cli._load import Watch

    async with client:
        watch = Watch(client)
        due = time.monotonic()
        sight = await watch.look()
        if not once and (first or sight.away):
            show(sight)
        while True:
            due = max(due + interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            sight = await watch.look()
            show(sight)
            if once:
                return sight


@contextmanager
def _shown(interval: float, *, live: bool, as_json: bool) -> Iterator[Show]:
    if live:
        with Live(console=out, auto_refresh=False, vertical_overflow="crop") as display:
            yield lambda sight: display.update(_screen(sight, interval, out.width, out.height), refresh=True)
    elif as_json:
        yield lambda sight: print(json.dumps(_plain(sight)), flush=True)
    else:
        yield _print


class _Column(NamedTuple):
    """``keep``: the lowest goes first where the terminal is narrow."""

    title: str
    keep: int
    text: Callable[[Load], str]
    width: int = 8
    """Where lines are printed below each other."""
    left: bool = False


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.1f}"


def _time(value_us: float | None) -> str:
    if value_us is None:
        return "–"
    return f"{value_us:,.0f} µs" if value_us < 1000 else f"{value_us / 1000:,.1f} ms"


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    passed = max(time.time() - seconds, 0.0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= size:
            return f"{passed / size:.0f} {unit}"
    return f"{passed:.0f} s"


_COLUMNS: Final = (
    _Column("model", 99, lambda load: load.model, 24, left=True),
    _Column("version", 90, lambda load: load.version, 7),
    _Column("state", 50, lambda load: load.state, 11, left=True),
    _Column("req/s", 98, lambda load: _number(load.requests_per_s)),
    _Column("fail/s", 95, lambda load: _number(load.failures_per_s)),
    _Column("rows/s", 60, lambda load: _number(load.rows_per_s)),
    _Column("batch", 70, lambda load: _number(load.mean_batch)),
    _Column("waiting", 80, lambda load: _number(load.waiting)),
    _Column("running", 40, lambda load: _number(load.running)),
    _Column("queue", 85, lambda load: _time(load.queue_us), 10),
    _Column("compute", 86, lambda load: _time(load.compute_us), 10),
    _Column("last", 30, lambda load: _ago(load.last_request)),
    _Column("server", 20, lambda load: load.server.partition("://")[2], 24, left=True),
)


def _columns(sight: Sight) -> list[_Column]:
    return [column for column in _COLUMNS if column.title != "server" or len(sight.servers) > 1]


def _screen(sight: Sight, interval: float, width: int, height: int) -> RenderableType:
    """Return the table as it fits the terminal, with what does not fit said below."""
    clock = datetime.fromtimestamp(sight.time).astimezone().strftime("%X")
    title = f"{', '.join(sight.servers)} · {clock} · every {interval:g} s"
    width -= 1  # the terminal's echo of Ctrl-C must not begin another line
    room = max(height - _LINES_BESIDE_ROWS - len(sight.away), 1)
    shown, left_out = sight.loads[:room], len(sight.loads) - room
    parts: list[RenderableType] = [_line_of(title, "dim", width)]
    if shown:
        parts.append(_table(_fitting(_columns(sight), shown, width), shown))
    elif len(sight.away) < len(sight.servers):
        parts.append(Text("no model is served"))
    if left_out > 0:
        parts.append(Text(f"… and {left_out} more with less to do", style="dim"))
    parts += (_line_of(_away(server, why), "red", width) for server, why in sight.away.items())
    return Group(*parts)


def _line_of(text: str, style: str, width: int) -> Text:
    line = Text(text, style=style)
    line.truncate(width, overflow="ellipsis")
    return line


def _away(server: str, why: str) -> str:
    return why if server in why else f"{server}: {why}"


def _fitting(columns: list[_Column], loads: Sequence[Load], width: int) -> list[_Column]:
    """Leave out columns until the table is as narrow as the terminal."""
    widths = {
        column.title: 2 + max(len(column.title), *(len(column.text(load)) for load in loads)) for column in columns
    }
    while len(columns) > 2 and sum(widths[column.title] for column in columns) - 2 > width:
        columns = [column for column in columns if column is not min(columns, key=lambda column: column.keep)]
    return columns


def _table(columns: list[_Column], loads: Sequence[Load]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column.title, justify="left" if column.left else "right", no_wrap=True, overflow="ellipsis", style=""
        )
    for load in loads:
        table.add_row(*(Text(column.text(load)) for column in columns), style=_style(load))
    return table


def _style(load: Load) -> str:
    if load.failures_per_s or load.state == "UNAVAILABLE":
        return "red"
    if load.state != "READY":
        return "yellow"
    return "" if load.requests_per_s else "dim"


def _print(sight: Sight) -> None:
    """Print one interval for a file or a pipe: the models that did something."""
    clock = datetime.fromtimestamp(sight.time).astimezone().strftime("%X")
    columns = _columns(sight)
    busy = [load for load in sight.loads if load.requests_per_s or load.failures_per_s or load.state != "READY"]
    if busy:
        _line(clock, columns, [column.title for column in columns])
    for load in busy:
        _line(clock, columns, [column.text(load) for column in columns])
    if not busy and len(sight.away) < len(sight.servers):
        print(f"{clock}  no requests, {len(sight.loads)} versions served", flush=True)
    for server, why in sight.away.items():
        print(f"{clock}  {_away(server, why)}", flush=True)


def _line(clock: str, columns: list[_Column], texts: list[str]) -> None:
    cells = (
        text.ljust(column.width) if column.left else text.rjust(column.width)
        for column, text in zip(columns, texts, strict=True)
    )
    print(f"{clock}  {' '.join(cells).rstrip()}", flush=True)


def _plain(sight: Sight) -> dict[str, object]:
    return {
        "time": datetime.fromtimestamp(sight.time, UTC).isoformat(timespec="milliseconds"),
        "servers": sight.servers,
        "away": sight.away,
        "models": [asdict(load) for load in sight.loads],
    }

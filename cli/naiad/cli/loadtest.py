"""``naiad loadtest``: load on a served model, and a verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.progress import BarColumn, Progress, TextColumn

from naiad.cli._console import err, out, print_json
from naiad.cli._running import URL_HELP, running_url

if TYPE_CHECKING:
    from naiad.loadtest import LoadTest, Report
    from naiad.loadtest import Progress as RunProgress

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_SECONDS: Final = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_SHAPE: Final = re.compile(r"([^=]+)=(\d+(?:x\d+)*)")
_PERCENTILES: Final = ("p50", "p90", "p99", "p99.9", "max")


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"expected a duration like 30s, 500ms or 2m, found {text!r}")
    return float(match[1]) * _SECONDS[match[2]]


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"expected INPUT=SIZExSIZE like images=3x224x224, without the batch, found {text!r}")
    return match[1], tuple(int(size) for size in match[2].split("x"))


def loadtest(
    model: Annotated[str, typer.Argument(help="The model's name on the server.")],
    url: Annotated[str | None, typer.Option(help=URL_HELP)] = None,
    version: Annotated[str | None, typer.Option(help="A version; by default the server chooses.")] = None,
    users: Annotated[int, typer.Option("--users", "-u", help="Requests in flight at a time.")] = 64,
    spawn_rate: Annotated[float | None, typer.Option(help="Users started per second; by default all at once.")] = None,
    duration: Annotated[str, typer.Option("--duration", "-d", help="Length of the measured window: 10s, 2m.")] = "10s",
    warmup: Annotated[str, typer.Option(help="Sent before the window, not measured.")] = "2s",
    batch: Annotated[int, typer.Option(help="Rows per request.")] = 1,
    golden: Annotated[Path | None, typer.Option(help="Send the samples of this golden.npz, not random ones.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare every answer with the golden one.")] = False,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="INPUT=SIZExSIZE", help="Shape of an input with dynamic dimensions. Repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random samples.")] = 0,
    timeout: Annotated[str, typer.Option(help="Deadline of a request.")] = "10s",
    slo: Annotated[
        list[str] | None,
        typer.Option(metavar="OBJECTIVE", help='"p99<20ms", "throughput>1000/s", "errors<0.1%". Repeatable.'),
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="Fail when the run is worse than this baseline.")] = None,
    margin: Annotated[float, typer.Option(help="How much worse is still no regression, in per cent.")] = 25.0,
    any_machine: Annotated[bool, typer.Option("--any-machine", help="Accept a baseline of another machine.")] = False,
    save_baseline: Annotated[Path | None, typer.Option(help="Write a baseline if the run passes.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one self-contained page.")] = None,
    report_json: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Keep a number of requests in flight, measure, and judge.

    Exit code 0: passed; 1: an objective was missed, it got slower than the baseline, or the run failed; 2: wrong use.
    Ctrl-C ends the run early and reports what was measured.

    Examples:

        naiad loadtest digits --users 64 --duration 30s --slo "p99<20ms" --html report.html

        naiad loadtest digits --golden model_repository/digits/1/golden.npz --check

        naiad loadtest digits --baseline loadtest/baselines/digits.json
    """
    from naiad.loadtest import Baseline, LoadTest, Slo, check_writable, run

    test = LoadTest(
        model=model,
        url=url or running_url(),
        version=version,
        users=users,
        spawn_rate=spawn_rate,
        duration_s=_duration(duration),
        warmup_s=_duration(warmup),
        batch=batch,
        golden=golden,
        check=check,
        shapes=dict(map(_shape, shape or ())),
        seed=seed,
        timeout_s=_duration(timeout),
        slos=tuple(map(Slo.parse, slo or ())),
    )
    stored = Baseline.read(baseline) if baseline else None
    for path in filter(None, (html, report_json, save_baseline)):
        check_writable(path)
    with _progress(test) as on_progress:
        report = run(test, baseline=stored, margin=margin / 100, any_machine=any_machine, on_progress=on_progress)
    if json:
        print_json(report.to_json())
    else:
        _print(report)
    report.write(html=html, json=report_json)
    if save_baseline and report.ok:
        Baseline.of(test, report.measurement).write(save_baseline)
    if not report.ok:
        raise typer.Exit(1)


@contextmanager
def _progress(test: LoadTest) -> Iterator[Callable[[RunProgress], None] | None]:
    """Show how far the run is, where somebody is looking."""
    if not err.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=test.duration_s, figures="")

        def update(latest: RunProgress) -> None:
            total = {"warmup": test.warmup_s, "window": test.duration_s}.get(latest.phase, test.duration_s)
            figures = f"{latest.throughput:,.0f}/s · {latest.users} users · {latest.errors:,} errors"
            if latest.p50_us is not None and latest.p99_us is not None:
                figures += f" · p50 {latest.p50_us / 1000:.2f} ms · p99 {latest.p99_us / 1000:.2f} ms"
            name = {"warmup": "warming up", "window": "measuring", "drain": "finishing"}[latest.phase]
            bar.update(task, description=name, total=total, completed=min(latest.elapsed_s, total), figures=figures)

        yield update


def _print(report: Report) -> None:
    content = report.to_json()
    for name, value in _rows(content):
        out.print(f"{name:<12}{value}", markup=False)
    for warning in content["warnings"]:
        _line("yellow", "warning:", warning)
    for item in (*content["slos"], *(content["baseline"] or ())):
        good = item.get("met", not item.get("regressed", False))
        _line("green" if good else "red", "✓" if good else "✗", item["text"])
    for failure in content["failures"]:
        _line("red", "failed:", failure)
    if report.ok:
        out.print("[bold green]passed[/]")


def _line(color: str, mark: str, text: str) -> None:
    out.print(f"[{color}]{mark}[/] ", end="")
    out.print(text, markup=False)


def _rows(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    results, server, steps = content["results"], content["server"], content["breakdown_us"]
    yield (
        "throughput",
        f"{results['throughput_per_s']:,.1f} requests/s, {results['inferences_per_s']:,.1f} inferences/s",
    )
    yield "latency", ", ".join(f"{name} {_ms(results['latency_us'][name])}" for name in _PERCENTILES)
    yield "requests", f"{results['requests']:,} succeeded, {results['failed_requests']:,} failed"
    for name, error in results["errors"].items():
        yield f"  {name}", f"{error['count']:,} × {error['example']}"
    if steps is not None:
        outside, inside = _ms(steps["client_and_network"]), _ms(server["total_us"])
        yield "mean time", f"{outside} in client and network, {inside} in the server"
        yield "server", f"queue {_ms(server['queue_us'])}, compute {_ms(server['compute_us'])} per request"
    if server is not None and server["mean_batch"] is not None:
        yield "batches", f"{server['mean_batch']:.1f} on average, {max(map(int, server['batches']))} at most"
    yield "generator", f"{results['generator_cpu_share']:.0%} of a core"


def _ms(latency_us: float | None) -> str:
    return "–" if latency_us is None else f"{latency_us / 1000:.2f} ms"

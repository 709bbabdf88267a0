"""`naiad tune`: the configuration that answers the most requests within the objectives, found on the real server."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

import typer
from rich.table import Table

from naiad.cli import _load_options as load
from naiad.cli._console import err, out, print_json
from naiad.cli._running import admin_secret
from naiad.cli.loadtest.gpus import GPU_COLUMNS
from naiad.cli.models._common import DEFAULT, open_repository

if TYPE_CHECKING:
    from naiad.client import Client
    from naiad.export import Repository
    from naiad.loadtest import LoadTest, Space, Trial, TuneProgress, Tuning

__all__ = ["tune"]

_SEARCH: Final = "The search"
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_SECONDS: Final = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_MOST_SHOWN: Final = 8
_INTERRUPTED: Final = 130


def tune(
    model: Annotated[str, typer.Argument(help="The model's name, or a scenario file (.toml) with one model.")],
    slo: Annotated[
        list[str] | None,
        typer.Option(metavar="OBJECTIVE", help='What must be kept: "p99<20ms", "errors<0.1%". Repeatable.'),
    ] = None,
    repository: Annotated[
        str, typer.Option("--repository", help="The model repository that the model is in, and the winner goes to.")
    ] = DEFAULT,
    url: Annotated[
        str | None,
        typer.Option(help="Tune on this running `naiad serve` of yours, instead of a server of our own."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="How many configurations to try.", rich_help_panel=_SEARCH)
    ] = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="How long to search, without the A/B run.", rich_help_panel=_SEARCH)
    ] = "5m",
    window: Annotated[
        str, typer.Option(metavar="TIME", help="Of the shortest runs; good ones get longer.", rich_help_panel=_SEARCH)
    ] = "1s",
    pairs: Annotated[int, typer.Option(min=6, max=100, help="Pairs of the A/B run.", rich_help_panel=_SEARCH)] = 8,
    against: Annotated[
        str,
        typer.Option(
            metavar="current|triton",
            help="What to beat: the configuration as it is, or Triton's own defaults.",
            rich_help_panel=_SEARCH,
        ),
    ] = "current",
    smaller_batches: Annotated[
        bool,
        typer.Option(
            "--smaller-batches",
            help="Also try lower max_batch_size; clients that send more rows at once would be refused.",
            rich_help_panel=_SEARCH,
        ),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep what is measured in this file; go on where there is one."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Search and confirm, but write no configuration.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the result as one self-contained page.")] = None,
    json_report: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    users: load.Users = None,
    rate: load.Rate = None,
    batch: load.Batch = None,
    golden: load.Golden = None,
    data: load.DataPath = None,
    shape: load.Shape = None,
    range: load.Range = None,  # noqa: A002  (the option's name)
    header: load.Header = None,
    engines: load.Engines = None,
    realtime: load.Realtime = None,
    seed: load.Seed = None,
) -> None:
    """Find the configuration with which a model answers the most requests within the objectives, and write it.

    Batching, queue delay, preferred sizes, instances and threads are tried on the real server: one of our own on the
    repository, whose files stay as they are, or a running one. Each configuration is measured at the load that suits it
    best. The best one is compared with what there is in an A/B run, and only what that confirms is written to the
    repository's config.pbtxt, as `naiad models configure` does; `naiad models configure MODEL --undo` takes it back.

    Without --golden or --data the golden samples of the served version are sent. Exit code 0: something better was
    written, or there is nothing better; 1: it failed; 2: wrong use; 130: interrupted.

    Examples:

        naiad tune digits --slo "p99<20ms"

        naiad tune digits --slo "p99<20ms" --budget 10m --resume digits.db --html tune.html --dry-run

        naiad tune embeddings --slo "p99<100ms" --trials 20 --against triton --json
    """
    from naiad.loadtest import check_writable

    for path in filter(None, (html, json_report)):
        check_writable(path)
    if against not in ("current", "triton"):
        raise typer.BadParameter(f"expected current or triton, found {against!r}", param_hint="--against")
    options = {name: value for name, value in locals().items() if name in _LOAD}
    options["slo"] = slo
    repo = open_repository(repository)
    test = _test(model, options, repo, searched=users is None and rate is None)
    with ExitStack() as stack:
        test, admin = stack.enter_context(_server(test, repo, url))
        space = _space(test, repo, smaller_batches=smaller_batches)
        found = _search(
            test,
            admin,
            space,
            pairs=pairs,
            num_trials=trials,
            budget_s=_seconds(budget, "--budget"),
            window_s=_seconds(window, "--window"),
            study=resume,
            against=cast(Literal["current", "triton"], against),
        )
    written = not dry_run and found.winner is not None and _write(repo, found)
    found.write(html=html, json=json_report)
    if as_json:
        print_json({**found.to_json(), "written": written})
    else:
        _print(found, written=written, dry_run=dry_run)
    if found.interrupted:
        raise typer.Exit(_INTERRUPTED)


_LOAD: Final = frozenset(
    {"users", "rate", "batch", "golden", "data", "shape", "range", "header", "engines", "realtime", "seed"},
)


def _seconds(text: str, option: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"expected a time like 30s, 500ms or 5m, found {text!r}", param_hint=option)
    return float(match[1]) * _SECONDS[match[2]]


def _test(argument: str, options: dict[str, Any], repo: Repository, *, searched: bool) -> LoadTest:
    """Return what is sent; the golden samples of the served version where nothing was said."""
    from naiad.loadtest import Golden, Scenario, Synthetic, Users

    if not options["slo"] and not load.is_scenario(argument):
        raise typer.BadParameter('expected an objective such as --slo "p99<20ms", found none', param_hint="--slo")
    # The address is that of the server we start, unless one is named.
    test = Scenario.of(load.settings_of(argument, {**options, "url": "grpc://127.0.0.1:1"})).test
    traffic = test.mix[0]
    if traffic.data == Synthetic() and (known := _golden_of(repo, traffic.model)):
        test = replace(test, traffic=replace(traffic, data=Golden(path=known)))
    return replace(test, load=Users(users=8)) if searched and not load.is_scenario(argument) else test


def _golden_of(repo: Repository, model: str) -> Path | None:
    served = repo.served(model)
    if "://" in repo.location or not served:
        return None
    path = repo.path / model / str(served[-1]) / "golden.npz"
    return path if path.is_file() else None


@contextmanager
def _server(test: LoadTest, repo: Repository, url: str | None) -> Iterator[tuple[LoadTest, Callable[[], Client]]]:
    """Give the test with its server's address, and what opens a client that may load models there."""
    from naiad.client import Client
    from naiad.server import EmbeddedTriton

    if url is not None:
        secret = admin_secret(url)
        yield (
            replace(test, connection=replace(test.connection, url=url)),
            lambda: Client(url, admin_secret=secret) if secret else Client(url),
        )
        return
    model = test.mix[0].model
    repo.config(model)  # says what is wrong before a server is started
    with EmbeddedTriton(repo.location, models=[model]) as triton:
        yield replace(test, connection=replace(test.connection, url=triton.grpc_url)), triton.client


def _space(test: LoadTest, repo: Repository, *, smaller_batches: bool) -> Space:
    from google.protobuf import json_format

    from naiad.loadtest import Space

    config = json_format.MessageToDict(repo.config(test.mix[0].model), preserving_proto_field_name=True)
    limits = [slo.limit for slo in test.slos if slo.operator[0] == "<" and slo.metric != "errors"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Space(config=config, cores=cores, limit_us=min(limits, default=None), smaller_batches=smaller_batches)


def _search(test: LoadTest, admin: Callable[[], Client], space: Space, *, pairs: int, **options: Any) -> Tuning:
    from naiad.loadtest import ABRun, ServerBench
    from naiad.loadtest import tune as search

    with ServerBench(test, space.config, admin) as bench, _progress() as on_progress:
        # Long enough for a p99, and longer than the windows the search decided by.
        confirm = ABRun(bench, test, pairs=pairs, window_s=2 * options["window_s"], seed=test.seed)
        return search(test, bench, space, confirm=confirm, seed=test.seed, on_progress=on_progress, **options)


def _write(repo: Repository, found: Tuning) -> bool:
    """Put the winner into the repository."""
    assert found.winner is not None
    objectives = " and ".join(slo.text for slo in found.test.slos)
    reason = f"tuned for {objectives}: {found.text}"
    return repo.configure(found.test.mix[0].model, found.winner.settings, reason=reason).changed


@contextmanager
def _progress() -> Iterator[Callable[[TuneProgress], None] | None]:
    if not err.is_terminal:
        yield None
        return
    with err.status("starting …") as status:

        def update(latest: TuneProgress) -> None:
            best = f" · best {latest.best.goodput_per_s:,.0f}/s ({latest.best.text})" if latest.best else ""
            at = f" at {latest.point.load}: {latest.point.throughput_per_s:,.0f}/s" if latest.point else ""
            status.update(
                f"{latest.phase} · {latest.trials} tried · {latest.elapsed_s:.0f} s · {latest.text}{at}{best}"
            )

        yield update


def _print(found: Tuning, *, written: bool, dry_run: bool) -> None:
    ranked = sorted(found.trials, key=lambda trial: -trial.goodput_per_s)
    shown = [trial for index, trial in enumerate(ranked) if index < _MOST_SHOWN or trial.label]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, right in (("configuration", False), ("goodput", True), ("at", True), ("p99", True), ("CPU", True)):
        table.add_column(name, justify="right" if right else "left")
    of_gpu = [column for column in GPU_COLUMNS if any(_of_best(trial, column[0]) is not None for trial in shown)]
    for _, name, _ in of_gpu:
        table.add_column(name, justify="right")
    table.add_column("")
    for trial in shown:
        figures = (show(_of_best(trial, field)) for field, _, show in of_gpu)
        table.add_row(*_cells(trial), *figures, "on the front" if trial in found.front else trial.state)
    out.print(table)
    if found.confirmation is not None:
        for metric in found.confirmation.metrics:
            out.print(f"A/B {metric.text}", markup=False)
    out.print(found.text, markup=False, style="bold")
    if found.winner is not None:
        for name, value in found.winner.settings.items():
            out.print(f"  {name}: {'removed' if value is None else value}", markup=False)
        done = "written to config.pbtxt" if written else "not written (--dry-run)" if dry_run else "not written"
        out.print(done, markup=False)


def _of_best(trial: Trial, field: str) -> float | None:
    return None if trial.best is None else getattr(trial.best, field)


def _cells(trial: Trial) -> list[str]:
    best = trial.best
    label = f" ({trial.label})" if trial.label else ""
    if best is None:
        return [f"{trial.text}{label}", trial.error.partition(":")[0] or "–", "", "", ""]
    p99 = "–" if best.p99_us is None else f"{best.p99_us / 1000:.2f} ms"
    cpu = "–" if best.cpu_us is None else f"{best.cpu_us:,.0f} µs"
    return [f"{trial.text}{label}", f"{best.throughput_per_s:,.0f}/s", best.load, p99, cpu]

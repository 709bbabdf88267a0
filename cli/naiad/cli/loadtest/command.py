"""The command: options, then a run, a sweep, or a worker of another machine's run."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from naiad.cli import _load_options as load
from naiad.cli._console import out, print_json
from naiad.cli.loadtest.live import watch_run
from naiad.cli.loadtest.outcome import check_outputs, exit_code, write_outputs

if TYPE_CHECKING:
    from naiad.loadtest import Baseline, Report, Scenario

_JUDGED: Final = "What it must reach"
_SWEEPS: Final = "Several runs"
_MACHINES: Final = "Several machines"
_RESULTS: Final = "Results"
_LOOPBACK: Final = "127.0.0.1"
_PORT: Final = 5557


def _option(panel: str, help: str, *names: str, **fields: Any) -> Any:  # noqa: A002
    return typer.Option(*names, help=help, rich_help_panel=panel, **fields)


def loadtest(
    scenario: Annotated[
        str | None,
        typer.Argument(metavar="SCENARIO.toml|MODEL", help="A scenario file, or the name of a model on the server."),
    ] = None,
    users: load.Users = None,
    spawn_rate: load.SpawnRate = None,
    rate: load.Rate = None,
    arrivals: load.Arrivals = None,
    trace: load.TraceFile = None,
    speed: load.Speed = None,
    max_in_flight: load.MaxInFlight = None,
    duration: load.Duration = None,
    warmup: load.Warmup = None,
    max_warmup: load.MaxWarmup = None,
    precision: load.Precision = None,
    max_duration: load.MaxDuration = None,
    version: load.Version = None,
    batch: load.Batch = None,
    data: load.DataPath = None,
    input: load.Input = None,  # noqa: A002
    golden: load.Golden = None,
    check: load.Check = None,
    shape: load.Shape = None,
    range: load.Range = None,  # noqa: A002
    string_length: load.StringLength = None,
    num_samples: load.NumSamples = None,
    shm: load.SharedMemory = None,
    stream: load.Stream = None,
    sequence: load.Sequence_ = None,
    sequence_pause: load.SequencePause = None,
    timeout: load.Timeout = None,
    url: load.Url = None,
    header: load.Header = None,
    metrics_url: load.MetricsUrl = None,
    statistics_url: load.StatisticsUrl = None,
    ca: load.Ca = None,
    certificate: load.Certificate = None,
    key: load.CertificateKey = None,
    slo: Annotated[
        list[str] | None,
        _option(_JUDGED, '"p99<20ms", "throughput>1000/s", "errors<0.1%". Repeatable.', metavar="OBJECTIVE"),
    ] = None,
    baseline: Annotated[Path | None, _option(_JUDGED, "Fail when the run is worse than this stored one.")] = None,
    margin: Annotated[float | None, _option(_JUDGED, "How much worse is still no regression, in per cent.")] = None,
    any_machine: Annotated[
        bool | None, _option(_JUDGED, "Accept a baseline of another machine.", "--any-machine", show_default=False)
    ] = None,
    save_baseline: Annotated[Path | None, _option(_JUDGED, "Write a baseline if the run passes.")] = None,
    history: Annotated[
        Path | None, _option(_JUDGED, "Add the run to this file, for trends: naiad history FILE.")
    ] = None,
    label: Annotated[str | None, _option(_JUDGED, "What the history calls this run, such as a commit.")] = None,
    sweep: Annotated[
        str | None, _option(_SWEEPS, "users=1..256, rate=100..2000:8, batch=1..32: a curve, and its knee.")
    ] = None,
    find_max: Annotated[
        str | None, _option(_SWEEPS, "The highest rate that keeps it, as an interval: p99<20ms.", metavar="OBJECTIVE")
    ] = None,
    engines: load.Engines = None,
    transport: load.Transport = None,
    connections: load.Connections = None,
    realtime: load.Realtime = None,
    seed: load.Seed = None,
    master: Annotated[bool, _option(_MACHINES, "Conduct workers on this or other machines.", "--master")] = False,
    worker: Annotated[bool, _option(_MACHINES, "Send for a master; the rest comes from there.", "--worker")] = False,
    expect_workers: Annotated[int, _option(_MACHINES, "How many workers to wait for.", min=1)] = 1,
    master_host: Annotated[
        str, _option(_MACHINES, "Where the master listens, or where a worker finds it. It trusts whoever connects.")
    ] = _LOOPBACK,
    master_port: Annotated[int, _option(_MACHINES, "The master's port.", min=1, max=65535)] = _PORT,
    price_per_hour: Annotated[
        float | None, _option(_RESULTS, "Of the server: gives the cost per million requests.")
    ] = None,
    html: Annotated[Path | None, _option(_RESULTS, "Write the report as one self-contained page.")] = None,
    json_report: Annotated[Path | None, _option(_RESULTS, "Write the report as JSON.")] = None,
    csv: Annotated[Path | None, _option(_RESULTS, "Write the run over time as CSV.")] = None,
    json: Annotated[bool, _option(_RESULTS, "Print the report as JSON.", "--json")] = False,
) -> None:
    """Put load on served models, measure, and judge.

    Without more options: 64 requests in flight, warm-up until it is steady, ten seconds measured. Ctrl-C ends it early
    and reports what was measured. An option goes before the key of the same name in a scenario file.

    Exit codes: 0 passed; 1 slower than the baseline; 2 an objective was missed; 3 inconclusive; 4 invalid, since the
    load generator or the machine was the limit; 5 error: wrong use, no server, failed requests, nothing measured; 130
    interrupted.

    Examples:

        naiad loadtest digits --users 64 --duration 30s --slo "p99<20ms" --html report.html

        naiad loadtest digits --rate 200 --precision p99±5%

        naiad loadtest loadtest/scenarios/rate-with-slo.toml --url grpc://gpu1:8001

        naiad loadtest digits --golden model_repository/digits/1/golden.npz --check

        naiad loadtest bert --shape ids=128 --shape mask=128 --range mask=1..1 --sweep users=1..64

        naiad loadtest digits --find-max "p99<20ms"

        naiad loadtest digits --baseline loadtest/baselines/digits.json

        naiad loadtest digits --users 256 --master --master-host 10.0.0.1 --expect-workers 2

        naiad loadtest --worker --master-host 10.0.0.1
    """
    options = dict(locals())
    if worker:
        _work(scenario, master, master_host, master_port, header)
        return
    if scenario is None:
        raise typer.BadParameter("expected a scenario file or the name of a model", param_hint="SCENARIO.toml|MODEL")
    from naiad.loadtest import Baseline, Scenario

    plan = Scenario.of(load.settings_of(scenario, options))
    stored = Baseline.read(plan.baseline) if plan.baseline is not None else None
    check_outputs(plan)
    if plan.sweep is not None or plan.find_max is not None:
        if master:
            raise typer.BadParameter("expected one run with --master, found a sweep: run it on one machine")
        _sweep(plan, as_json=json)
        return
    workers = (expect_workers, master_host, master_port) if master else None
    _conclude(plan, _run_with_workers(plan, stored, *workers) if workers else _run(plan, stored), as_json=json)


def _run(plan: Scenario, stored: Baseline | None, **fields: Any) -> Report:
    from naiad.loadtest import run

    if stored is not None:
        fields |= {"baseline": stored, "any_machine": plan.any_machine}
        fields |= {} if plan.margin is None else {"margin": plan.margin}
    with watch_run(plan.test) as on_progress:
        return run(plan.test, on_progress=on_progress, **fields)


def _run_with_workers(plan: Scenario, stored: Baseline | None, num_workers: int, host: str, port: int) -> Report:
    from naiad.cli.loadtest.workers import conducting

    with conducting(plan.test, num_workers=num_workers, host=host, port=port) as generator:
        together = replace(plan, test=generator.test)
        return _run(together, stored, generator=generator, calibration=False)  # it would be this machine's


def _work(argument: str | None, master: bool, host: str, port: int, headers: list[str] | None) -> None:
    from naiad.cli.loadtest.workers import work

    if argument is not None or master:
        raise typer.BadParameter(
            "a worker is told by its master what to send: give --master-host and --master-port only"
        )
    work(host=host, port=port, headers=load.read_headers(headers or ()))


def _sweep(plan: Scenario, *, as_json: bool) -> None:
    from naiad.cli.loadtest.curves import sweep_and_show

    raise typer.Exit(sweep_and_show(plan, as_json=as_json, command=_command()))


def _conclude(plan: Scenario, report: Report, *, as_json: bool) -> None:
    from naiad.cli.loadtest.summary import print_report

    report = replace(report, command=_command(), scenario=plan.text or None)
    content = report.to_json()
    if as_json:
        print_json(content)
    else:
        print_report(content)
    write_outputs(plan, report)
    if not as_json:
        for path in filter(None, (plan.html, plan.json, plan.csv)):
            out.print(f"wrote {path}", markup=False, style="dim")
    code = exit_code(report)
    if code:
        raise typer.Exit(code)


def _command() -> str:
    """Return this command as it could be typed again, without the secret that a URL may carry."""
    return re.sub(r"(grpcs?://)[^@\s/]*@", r"\1", shlex.join(["naiad", *sys.argv[1:]]))

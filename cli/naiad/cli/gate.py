"""``naiad gate``: is the candidate slower than the baseline? Yes, no, or it cannot be told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from naiad.cli import _load_options as load
from naiad.cli._console import err, print_json
from naiad.cli._exit import MeasuringCommand
from naiad.cli._gate_show import print_false_alarms, print_result, watch_gate
from naiad.cli._gate_subjects import Pairing, pairing_of

if TYPE_CHECKING:
    from naiad.loadtest import GateOptions, GateResult

COMMAND_CLASS = MeasuringCommand

# options that a load has, too, with another meaning
_OWN: Final = frozenset({"margin", "warmup", "seed", "html", "history", "label"})
_COMPARED: Final = "What is compared"
_DECISION: Final = "How it decides"
_RESULTS: Final = "Results"


def _option(panel: str, help: str, *names: str, **fields: Any) -> Any:  # noqa: A002
    return typer.Option(*names, help=help, rich_help_panel=panel, **fields)


def gate(
    baseline: Annotated[
        str,
        typer.Argument(
            metavar="BASELINE|SCENARIO.toml",
            help="A server's URL, URL#VERSION, version:VERSION, or a wheel (or folder) of the client; or a scenario "
            "file with the tables [baseline] and [candidate].",
        ),
    ],
    candidate: Annotated[
        str | None, typer.Argument(metavar="CANDIDATE", help="The other one, of the same kind.")
    ] = None,
    model: Annotated[
        str | None, _option(_COMPARED, "The model; or a scenario file that says what is sent.", "--model", "-m")
    ] = None,
    users: load.Users = None,
    rate: load.Rate = None,
    arrivals: load.Arrivals = None,
    batch: load.Batch = None,
    data: load.DataPath = None,
    golden: load.Golden = None,
    shape: load.Shape = None,
    range: load.Range = None,  # noqa: A002
    string_length: load.StringLength = None,
    shm: load.SharedMemory = None,
    stream: load.Stream = None,
    timeout: load.Timeout = None,
    url: load.Url = None,
    header: load.Header = None,
    ca: load.Ca = None,
    certificate: load.Certificate = None,
    key: load.CertificateKey = None,
    engines: load.Engines = None,
    transport: load.Transport = None,
    realtime: load.Realtime = None,
    callers: Annotated[
        list[str] | None, _option(_COMPARED, "Wheels: sync (threads), asyncio, or both. Repeatable.", metavar="KIND")
    ] = None,
    in_flight: Annotated[int, _option(_COMPARED, "Wheels: calls at a time.", min=1)] = 8,
    metric: Annotated[
        list[str] | None,
        _option(
            _DECISION,
            "What the verdict depends on, with a margin of its own if wanted: p50, p99:25, throughput, queue, compute, "
            "cpu. Repeatable, or with commas. [default: p50, p90, throughput; of wheels p50, cpu]",
            "--metrics",
            metavar="METRIC[:PERCENT]",
        ),
    ] = None,
    margin: Annotated[float, _option(_DECISION, "How much worse is still no regression, in per cent.")] = 10.0,
    alpha: Annotated[float, _option(_DECISION, "The most false alarms, over all metrics and looks.")] = 0.05,
    pairs: Annotated[int, _option(_DECISION, "Pairs before the first look.")] = 8,
    max_pairs: Annotated[int, _option(_DECISION, "Pairs at most.")] = 30,
    runs_per_side: Annotated[
        int, _option(_DECISION, "Runs of each side in a pair, alternating as A B B A: a pair less noisy, and longer.")
    ] = 1,
    window: Annotated[
        str | None, _option(_DECISION, "Length of a run. [default: 500ms to 3s, as the rate needs]")
    ] = None,
    settle: Annotated[str, _option(_DECISION, "Sent before each window, not measured.")] = "250ms",
    warmup: Annotated[str, _option(_DECISION, "Sent to each side before the first pair.")] = "1s",
    keep_noise: Annotated[bool, _option(_DECISION, "Discard no pair for the machine's noise.", "--keep-noise")] = False,
    slo: Annotated[
        list[str] | None, _option(_DECISION, "An objective that the candidate must reach. Repeatable.")
    ] = None,
    seed: Annotated[int | None, _option(_DECISION, "Of the order within the pairs. [default: a new one]")] = None,
    a_a: Annotated[
        int | None,
        _option(
            _DECISION, "Compare the baseline with itself so many times: how often does the gate err?", "--a-a", min=1
        ),
    ] = None,
    junit: Annotated[Path | None, _option(_RESULTS, "Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, _option(_RESULTS, "Write a summary for a pull request.")] = None,
    github_summary: Annotated[
        bool, _option(_RESULTS, "Add that summary to the job's page ($GITHUB_STEP_SUMMARY).", "--github-summary")
    ] = False,
    html: Annotated[Path | None, _option(_RESULTS, "Write one self-contained page.")] = None,
    history: Annotated[Path | None, _option(_RESULTS, "Add the candidate's medians to this file of results.")] = None,
    label: Annotated[str, _option(_RESULTS, "What the history calls this candidate, such as a revision.")] = "",
    json: Annotated[bool, _option(_RESULTS, "Print the result as JSON.", "--json")] = False,
) -> None:
    """Compare two servers, two versions of a model, or two wheels of the client, on this machine.

    Runs of both alternate in random order, in pairs. "Regression" takes an interval that excludes 1 and an effect
    beyond the margin; "no regression" takes an upper bound within the margin; anything else is inconclusive, and more
    pairs are measured up to the budget. Pairs that the machine's noise spoilt are discarded by a fixed rule.

    Exit codes: 0 no regression; 1 regression; 2 an objective was missed; 3 inconclusive; 4 invalid, since the load
    generator or the machine's noise was the limit; 5 error: wrong use, no server, nothing measured; 130 interrupted.

    Examples:

        naiad gate grpc://127.0.0.1:8001 grpc://127.0.0.1:9001 --model digits --users 8

        naiad gate version:3 version:4 --model digits --slo "p99<20ms" --junit gate.xml --markdown gate.md

        naiad gate dist/old/naiad-1.0-py3-none-any.whl dist/naiad-1.1-py3-none-any.whl --model digits --callers asyncio

        naiad gate gate.toml --metrics p50,p99:25 --margin 5

        naiad gate grpc://127.0.0.1:8001 --model digits --a-a 20
    """
    options = dict(locals())
    from naiad.loadtest import check_writable

    for path in filter(None, (junit, markdown, html, history)):
        check_writable(path)
    summary = _summary_file() if github_summary else None
    load_options = {name: value for name, value in options.items() if name not in _OWN}
    found = pairing_of(baseline, candidate, model, load_options, against_itself=a_a is not None)
    chosen = _options(found, options)
    if a_a is not None:
        _measure_false_alarms(found, chosen, a_a, as_json=json)
        return
    from naiad.loadtest import compare

    with watch_gate() as on_progress:
        result = compare(found.baseline, found.candidate, chosen, on_progress=on_progress)
    if json:
        print_json(result.to_json())
    else:
        print_result(result)
    _write(result, junit=junit, markdown=markdown, html=html, summary=summary)
    if history is not None and found.test is not None and result.num_pairs:
        from naiad.loadtest import append_gate

        append_gate(history, found.test, result, label=label)
    if result.interrupted:
        raise typer.Exit(130)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _options(found: Pairing, options: dict[str, Any]) -> GateOptions:
    from naiad.loadtest import GateOptions, NoiseRule

    named = [name for text in options["metric"] or () for name in text.split(",") if name.strip()]
    return GateOptions(
        metrics=tuple(named) or found.metrics,
        watched=found.watched,
        margin=options["margin"] / 100,
        alpha=options["alpha"],
        pairs=options["pairs"],
        max_pairs=options["max_pairs"],
        runs_per_side=options["runs_per_side"],
        window_s=None if options["window"] is None else _seconds("--window", options["window"]),
        settle_s=_seconds("--settle", options["settle"]),
        warmup_s=_seconds("--warmup", options["warmup"]),
        noise=None if options["keep_noise"] else NoiseRule(),
        seed=options["seed"],
    )


def _seconds(option: str, text: str) -> float:
    from naiad.loadtest._scenario.text import read_duration

    try:
        return read_duration(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint=option) from exc


def _measure_false_alarms(found: Pairing, options: GateOptions, num: int, *, as_json: bool) -> None:
    from naiad.loadtest import measure_false_alarms

    with watch_gate(num) as on_progress:
        alarms = measure_false_alarms(found.baseline, options, num=num, on_progress=on_progress)
    if as_json:
        print_json(alarms.to_json())
    else:
        print_false_alarms(alarms)
    if not alarms.ok:
        raise typer.Exit(4 if alarms.rate is None else 1)


def _summary_file() -> Path:
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        raise typer.BadParameter(
            "expected $GITHUB_STEP_SUMMARY to name a file, found none: outside of GitHub use --markdown FILE",
            param_hint="--github-summary",
        )
    return Path(name)


def _write(
    result: GateResult, *, junit: Path | None, markdown: Path | None, html: Path | None, summary: Path | None
) -> None:
    from naiad.loadtest import gate_html, to_junit, to_markdown, write_atomically

    if junit is not None:
        write_atomically(junit, to_junit(result))
    if markdown is not None:
        write_atomically(markdown, to_markdown(result))
    if html is not None:
        write_atomically(html, gate_html(result.to_json()))
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(to_markdown(result))
    for path in filter(None, (junit, markdown, html)):
        err.print(f"wrote {path}", markup=False, style="dim")

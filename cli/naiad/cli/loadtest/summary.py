"""A report in a terminal: what was measured, how surely, where the time went, the verdict, what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from naiad.cli._console import out
from naiad.cli.loadtest.figures import duration, memory, number, time_us, with_interval
from naiad.cli.loadtest.gpus import gpu_rows
from naiad.cli.loadtest.next_step import next_step

__all__ = ["print_report"]

_PERCENTILES: Final = ("p50", "p90", "p99", "p99.9")
_BAR_WIDTH: Final = 40
_STEPS: Final = (
    ("generator", "generator", "red", "░"),
    ("network_and_grpc", "network and gRPC", "yellow", "▒"),
    ("queue", "queue", "magenta", "▓"),
    ("compute_input", "input", "cyan", "▚"),
    ("compute_infer", "compute", "green", "█"),
    ("compute_output", "output", "cyan", "▞"),
    ("server_other", "rest of the server", "blue", "▪"),
)
_COLORS: Final = {"passed": "green", "failed": "red", "invalid": "yellow"}
Content = Mapping[str, Any]


def print_report(content: Content) -> None:
    """Print what ``Report.to_json()`` gives."""
    results = content["results"]
    out.print(_headline(content), markup=False, style="bold")
    for name, value in _rows(content, results):
        out.print(f"{name:<12}", value, sep="", end="\n")
    for part in content["parts"]:
        out.print(f"  {part['model']:<10}", _part(part), sep="", markup=False)
    for text in _unique(
        [*content["warnings"], *(doubt["text"] for doubt in content["doubts"] if not doubt["invalid"])]
    ):
        _line("yellow", "warning:", text)
    for slo in content["slos"]:
        _line("green" if slo["met"] else "red", "✓" if slo["met"] else "✗", _objective(slo))
    for item in content["comparisons"] or ():
        _line("red" if item["regressed"] else "green", "✗" if item["regressed"] else "✓", item["text"])
    _verdict(content)


def _unique(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _line(color: str, mark: str, text: str) -> None:
    out.print(Text.assemble((mark, color), " ", text))


def _verdict(content: Content) -> None:
    verdict = content["verdict"]
    out.print(Text(verdict, style=f"bold {_COLORS.get(verdict, 'red')}"), end="")
    reasons = _unique(
        [doubt["text"] for doubt in content["doubts"] if doubt["invalid"]]
        if verdict == "invalid"
        else content["failures"]
    )
    out.print(f": {reasons[0]}" if reasons else "", markup=False)
    for reason in reasons[1:]:
        out.print(f"  {reason}", markup=False)
    step = next_step(content)
    if step:
        out.print(Text.assemble(("next: ", "dim"), step))


def _headline(content: Content) -> str:
    test, results, steadiness = content["test"], content["results"], content.get("steadiness") or {}
    models = " + ".join(dict.fromkeys(target["model"] for target in content["targets"]))
    load = f"{results['users']} users" if results["users"] else f"{number(results['offered_per_s'])} requests/s offered"
    words = [content["name"] or models or "load test", load]
    if test.get("url"):
        words.append(test["url"])
    measured = f"{duration(results['window_s'])} measured"
    if steadiness.get("warmup_s"):
        measured += f" after {duration(steadiness['warmup_s'])} of warm-up"
    return " · ".join([*words, measured])


def _rows(content: Content, results: Content) -> Iterator[tuple[str, Text | str]]:
    yield "throughput", _throughput(results)
    yield "latency", _latency(results)
    if results["lag_us"]["count"] and results["users"] is None:
        service = results["service_us"]
        yield "  service", f"p50 {time_us(service['p50'])} · p99 {time_us(service['p99'])} from when a request left"
    for name, title in (("first_response_us", "  first"), ("between_responses_us", "  between")):
        times = results[name]
        if times and times["count"]:
            yield title, f"p50 {time_us(times['p50'])} · p99 {time_us(times['p99'])} · max {time_us(times['max'])}"
    yield "requests", f"{results['completed']:,} succeeded, {results['failed']:,} failed"
    for name, error in results["errors"].items():
        yield f"  {name}", Text(f"{error['count']:,} × {error['example']}")
    if results["breakdown_us"]:
        yield "mean time", _breakdown(results["breakdown_us"])
    yield from _steps(results)
    yield from _server(results)
    yield from gpu_rows(content)
    yield "generator", _generator(results)
    yield from _precision_and_cost(content)


def _throughput(results: Content) -> str:
    interval = results["intervals"].get("throughput")
    text = f"{number(results['throughput_per_s'])} requests/s"
    if interval:
        text += f" ({number(interval[0])}–{number(interval[1])})"
    if results["rows_per_request"] != 1:
        text += f" · {number(results['inferences_per_s'])} inferences/s"
    if results["responses"] != results["completed"] and results.get("responses_per_s"):
        text += f" · {number(results['responses_per_s'])} responses/s"
    if results["goodput_per_s"] is not None:
        text += f" · {number(results['goodput_per_s'])}/s within the objectives"
    return text


def _latency(results: Content) -> str:
    times, intervals = results["latency_us"], results["intervals"]
    parts = [f"{name} {with_interval(times[name], intervals.get(name))}" for name in _PERCENTILES]
    return " · ".join([*parts, f"max {time_us(times['max'])}"])


def _breakdown(steps: Mapping[str, float]) -> Text:
    """Return a bar whose parts are as long as the steps took, and the steps that took part."""
    total = sum(steps.get(name, 0.0) for name, *_ in _STEPS) or 1.0
    bar, words = Text(), []
    for name, title, color, mark in _STEPS:
        value_us = steps.get(name, 0.0)
        bar.append(mark * round(value_us / total * _BAR_WIDTH), style=color)
        if value_us >= total * 0.01:
            words.append((f"{mark} {title} {time_us(value_us)}", color))
    bar.append("  ")
    for at, word in enumerate(words):
        bar.append(" · " if at else "")
        bar.append(*word)
    return bar


def _steps(results: Content) -> Iterator[tuple[str, Text]]:
    """Return a line for each model that is called, and what is left between them."""
    steps, between = results.get("steps") or (), results.get("between_steps")
    rows = [(f"{'  ' * step['depth']}{step['model']}", *_step(step)) for step in steps]
    if between is not None and between["time_us"] is not None:
        name = "script itself" if between["kind"] == "script" else "between them"
        rows.append((f"  {name}", between["time_us"], between["share"], []))
    width = max((len(name) for name, *_ in rows), default=0)
    for at, (name, time, share, words) in enumerate(rows):
        shown = "" if share is None else f"{share:.0%}"
        line = f"{name[2:]:<{width}}{time_us(time):>8} {shown:>5}  {' · '.join(words)}"
        yield "" if at else "  in steps", Text(line.rstrip())


def _step(step: Content) -> tuple[float | None, float | None, list[str]]:
    if step["time_us"] is None:
        return None, None, ["its times are not known"]
    compute_us = sum(step[f"compute_{part}_us"] for part in ("input", "infer", "output"))
    words = [f"queue {time_us(step['queue_us'])}", f"compute {time_us(compute_us)}"]
    if step["mean_batch"] is not None:
        words.append(f"batches of {number(step['mean_batch'])}")
    if step["calls_per_request"] != 1:
        words.append(f"{number(step['calls_per_request'])} calls per request")
    if step["others"]:
        words.append(f"had {step['others']:,} requests of others, too")
    return step["time_us"], step["share"], words


def _server(results: Content) -> Iterator[tuple[str, str]]:
    server, resources = results["server"], results["resources"]
    words = []
    if server and server["mean_batch"]:
        words.append(f"batches of {number(server['mean_batch'])} rows, {max(map(int, server['batches']))} at most")
    if server:
        words.append(f"{number(server['in_flight'])} requests in it on average")
    if resources and resources.get("cpu_cores") is not None:
        words.append(f"{number(resources['cpu_cores'])} cores, {memory(resources['rss_bytes'])}")
    if words:
        yield "server", " · ".join(words)


def _generator(results: Content) -> str:
    generator, lag = results["generator"], results["lag_us"]
    engines = generator["engines"]
    words = [f"{generator['cpu_share']:.0%} of a core in {engines} engine{'s' if engines != 1 else ''}"]
    if lag["count"]:
        words.append(f"requests left {time_us(lag['p99'])} late at p99")
    return " · ".join(words)


def _precision_and_cost(content: Content) -> Iterator[tuple[str, str]]:
    if content.get("precision"):
        yield "precision", content["precision"]["text"]
    cost = content.get("cost") or {}
    if cost.get("per_million_requests") is not None:
        yield "cost", f"{number(cost['per_million_requests'])} per million requests"


def _part(part: Content) -> str:
    return f"{number(part['throughput_per_s'])} requests/s · {_latency(part)} · {part['failed']:,} failed"


def _objective(slo: Content) -> str:
    if slo.get("text"):
        return str(slo["text"])
    measured = slo["measured"]
    return f"{slo['slo']} ({slo['note'] or ('nothing was measured' if measured is None else measured)})"

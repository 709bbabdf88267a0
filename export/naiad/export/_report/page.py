"""The page of one version, or of an export that was refused, from its manifest alone."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naiad.export._report import client_code as _client_code
from naiad.export._report import plot as _plot
from naiad.export._report import words as _words
from naiad.export.report import Divergence, Report, Tolerance

if TYPE_CHECKING:
    from jinja2 import Template

FILE = "export-report.html"
_TEMPLATE = Path(__file__).with_name("page.html.j2")
_EMPTY: dict[str, Any] = {"created": "", "max_batch_size": 0, "samples": {}, "versions": {}}
_MAX_CASES = 80
_MAX_OPERATORS = 12
_MAX_TEXT = 40_000
"""Of a configuration; more is cut, so that the page stays small."""


def render(manifest: Mapping[str, Any], config: str = "", failure: Mapping[str, Any] | None = None) -> str:
    """Return one self-contained HTML page.

    Args:
        manifest: As it is published; what it lacks has no section.
        config: `config.pbtxt`.
        failure: Of a refused export: `message`, and `divergence` (a `Divergence`) where one is known.
    """
    report = Report.from_dict(manifest["report"]) if manifest.get("report") else None
    inputs, outputs = manifest.get("inputs") or [], manifest.get("outputs") or []
    model = str(manifest.get("model", "the model"))
    return _template().render(
        manifest=_EMPTY | dict(manifest),
        model=model,
        version=manifest.get("version"),
        failure=_failure(failure),
        report=report,
        words=_words,
        tiles=_tiles(manifest, report),
        parity=_parity(report, outputs) if report else [],
        cases=_cases(report) if report else {},
        precision=_precision(report) if report else [],
        charts=_charts(report) if report else [],
        graph=_graph(report) if report else None,
        inputs=inputs,
        outputs=outputs,
        symbols=_symbols(inputs),
        code=_client_code.python(model, inputs, outputs) if inputs and not failure else "",
        command=_client_code.command(model, inputs) if inputs and not failure else "",
        provenance=_provenance(manifest),
        config=config if len(config) <= _MAX_TEXT else f"{config[:_MAX_TEXT]}\n… cut; see config.pbtxt",
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    # The names and labels in it are other people's text: all of it is escaped.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _failure(failure: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    where: Divergence | None = failure.get("divergence")
    return {"message": str(failure["message"]), "where": where}


def _tiles(manifest: Mapping[str, Any], report: Report | None) -> list[tuple[str, str]]:
    tiles = [("precision", str(manifest.get("precision", "")))]
    if report and report.size_bytes:
        tiles.append(("graph and weights", _words.size(report.size_bytes)))
    if report and report.graph and report.graph.num_parameters:
        tiles.append(("weights", _words.count(report.graph.num_parameters)))
    if manifest.get("max_batch_size") is not None:
        tiles.append(("largest batch", str(manifest["max_batch_size"] or "none")))
    if report and report.parity:
        worst = max(parity.max_rel_error for parity in report.parity)
        tiles.append(("largest error, relative", _words.error(worst)))
    if report and report.latency:
        first = report.latency[0]
        on = "one thread" if report.timed_on in ("", "one thread") else "GPU"
        label = f"batch {first.batch}, {on}" if first.batch else f"one call, {on}"
        tiles.append((label, _words.milliseconds(first.median_ms)))
    return [(label, value) for label, value in tiles if value]


def _parity(report: Report, outputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each output, with the share of the tolerance that its largest error uses."""
    rows, dtypes = [], {tensor["name"]: str(tensor["dtype"]) for tensor in outputs}
    for parity in report.parity:
        tolerance = report.tolerance.for_output(parity.output)
        allowed = tolerance.atol + tolerance.rtol
        exact = not dtypes.get(parity.output, "FP32").startswith(("FP", "BF"))
        failed = any(case.output == parity.output and not case.passed for case in report.cases)
        share = parity.max_rel_error / allowed if allowed else float(parity.max_rel_error > 0)
        rows.append(
            {
                "parity": parity,
                "tolerance": "equal" if exact else _tolerance(tolerance),
                "share": min(share, 1.0) * 100,
                "share_text": "" if exact else f"{share * 100:.2g} %" if share < 1 else "beyond" if failed else "100 %",
                "passed": not failed,
            }
        )
    return rows


def _tolerance(tolerance: Tolerance) -> str:
    return f"{tolerance.atol:g} + {tolerance.rtol:g} of each value, cosine ≥ {tolerance.cosine:g}"


def _cases(report: Report) -> dict[str, Any]:
    """Return the cases as a table: a row for each case, a column for each output."""
    outputs = list(dict.fromkeys(case.output for case in report.cases))
    rows: list[dict[str, Any]] = []
    for case in report.cases:
        if case.output == outputs[0]:
            known = any(row["sizes"] == case.sizes for row in rows)
            rows.append({"sizes": case.sizes, "sample": case.sample if known else "", "cells": {}})
        rows[-1]["cells"][case.output] = case
    worst = max((case.max_rel_error for case in report.cases), default=0.0)
    return {
        "outputs": outputs,
        "rows": rows[:_MAX_CASES],
        "num_more": max(len(rows) - _MAX_CASES, 0),
        "num": len(rows),
        "worst": worst,
    }


def _precision(report: Report) -> list[dict[str, Any]]:
    rows = []
    for result in report.precision:
        errors = [parity.max_rel_error for parity in result.parity]
        cosines = [parity.cosine for parity in result.parity if parity.cosine is not None]
        rows.append(
            {
                "name": f"{result.precision} {result.method}".strip(),
                "result": result,
                "error": max(errors) if errors else None,
                "cosine": min(cosines) if cosines else None,
                "latency": {each.batch: each for each in result.latency},
            }
        )
    return rows


def _charts(report: Report) -> list[tuple[str, str]]:
    """Return captions and SVGs: latency and throughput by batch size."""
    lines = _candidate_lines(report)
    if not lines:
        values = {latency.batch: latency.median_ms for latency in report.latency if latency.batch}
        lines = [_plot.Line(label="this version", values=values, emphasised=True)]
    rates = [
        _plot.Line(
            label=line.label,
            values={batch: _words.rows_per_s(batch, value) for batch, value in line.values.items()},
            emphasised=line.emphasised,
        )
        for line in lines
    ]
    charts = [
        (
            "Latency: how long one batch takes. Lower is better.",
            _plot.chart(lines, unit="ms", title="latency by batch"),
        ),
        (
            "Throughput: rows a second, one batch after the other. Higher is better; where the line is flat, larger "
            "batches gain nothing.",
            _plot.chart(rates, unit="rows/s", title="throughput by batch"),
        ),
    ]
    return [(caption, svg) for caption, svg in charts if svg]


def _candidate_lines(report: Report) -> list[_plot.Line]:
    return [
        _plot.Line(
            label=f"{result.precision} {result.method}".strip(),
            values={each.batch: each.median_ms for each in result.latency if each.batch},
            emphasised=result.chosen,
        )
        for result in report.precision
        if result.latency
    ]


def _graph(report: Report) -> dict[str, Any] | None:
    if report.graph is None or not report.graph.num_nodes:
        return None
    operators = list(report.graph.operators.items())
    shown = operators[:_MAX_OPERATORS]
    largest = max((number for _, number in shown), default=1)
    return {
        "summary": report.graph,
        "operators": [(name, number, number / largest * 100) for name, number in shown],
        "num_rest": sum(number for _, number in operators[_MAX_OPERATORS:]),
        "num_kinds": len(operators),
    }


def _symbols(inputs: Any) -> list[str]:
    dims = [dim for tensor in inputs for dim in tensor.get("shape", ()) if isinstance(dim, str)]
    return list(dict.fromkeys(dims))


def _provenance(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of the version's making, label by label."""
    known = [("made", manifest.get("created")), ("command", manifest.get("command"))]
    known += [("target", manifest.get("target"))] if isinstance(manifest.get("target"), str) else []
    pairs = [(label, str(value)) for label, value in known if value]
    for section in ("target", "onnx", "source", "versions", "samples"):
        values = manifest.get(section)
        if isinstance(values, Mapping):
            pairs += [(f"{section}: {name.replace('_', ' ')}", value) for name, value in _words.flat(values)]
    return pairs

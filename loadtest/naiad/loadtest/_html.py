"""``report.html``: one file that needs nothing else, from the content of ``report.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Final

from plotly.offline import get_plotlyjs

from naiad.loadtest._charts import STEPS, charts
from naiad.loadtest._units import show, show_us

__all__ = ["render"]

_TILES: Final = ("p50", "p90", "p99", "p99.9", "max")
Row = tuple[str, ...]


def render(content: Mapping[str, Any]) -> str:
    """Return the page for a report's JSON content."""
    template = Template(files("naiad.loadtest").joinpath("_report.html").read_text("utf-8"))
    test = content["test"]
    return template.substitute(
        title=escape(f"Load test of {test['model']}"),
        verdict=content["verdict"],
        subtitle=escape(_subtitle(content)),
        findings=_findings(content),
        tiles=_tiles(content["results"]),
        slos=_table("Objectives", ("objective", "result"), _slo_rows(content["slos"]), head=True),
        baseline=_table("Baseline", ("metric", "result"), _baseline_rows(content["baseline"] or ()), head=True),
        errors=_table("Errors", ("class", "count", "example"), _error_rows(content["results"]["errors"]), head=True),
        server=_table("Where the time went, mean per request", ("", ""), _server_rows(content)),
        details=_table("The test", ("", ""), _detail_rows(content)),
        charts=_for_script(charts(content)),
        plotly=get_plotlyjs(),
    )


def _subtitle(content: Mapping[str, Any]) -> str:
    test, results = content["test"], content["results"]
    return (
        f"{test['users']} users, batches of {test['batch']}, {results['window_s']:.1f} s measured after "
        f"{test['warmup_s']:g} s of warm-up · {content['created'].replace('T', ' ').replace('+00:00', ' UTC')}"
    )


def _findings(content: Mapping[str, Any]) -> str:
    found = [("failure", text) for text in content["failures"]] + [("warning", text) for text in content["warnings"]]
    return "".join(f'<li class="{kind}">{escape(text)}</li>' for kind, text in found)


def _tiles(results: Mapping[str, Any]) -> str:
    tiles = [
        ("requests/s", f"{results['throughput_per_s']:,.0f}"),
        ("inferences/s", f"{results['inferences_per_s']:,.0f}"),
    ]
    tiles += [(name, _us(results["latency_us"][name])) for name in _TILES]
    share = results["error_share"]
    tiles.append(("errors", "–" if share is None else show("errors", share)))
    return "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in tiles)


def _slo_rows(slos: Iterable[Mapping[str, Any]]) -> list[Row]:
    return [(item["text"], "met" if item["met"] else "missed") for item in slos]


def _baseline_rows(items: Iterable[Mapping[str, Any]]) -> list[Row]:
    return [(item["text"], "regression" if item["regressed"] else "within the margin") for item in items]


def _error_rows(errors: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    return [(name, f"{item['count']:,}", item["example"]) for name, item in errors.items()]


def _server_rows(content: Mapping[str, Any]) -> list[Row]:
    server = content["server"]
    if server is None:
        return []
    times = [(STEPS[step][0], show_us(us)) for step, us in (content["breakdown_us"] or {}).items()]
    mean_batch = server["mean_batch"]
    return [
        *times,
        ("requests", f"{server['requests']:,}"),
        ("executions", f"{server['executions']:,}"),
        ("mean batch", "–" if mean_batch is None else f"{mean_batch:.1f}"),
        ("requests in the server (mean)", f"{server['in_flight']:.1f}"),
    ]


def _detail_rows(content: Mapping[str, Any]) -> list[Row]:
    test, machine, results = content["test"], content["machine"], content["results"]
    version = f"version {test['version'] or 'left to the server'}, of {', '.join(test['served_versions'])}"
    data = "golden samples" if test["data"] == "golden" else f"random samples, seed {test['seed']}"
    return [
        (
            "model",
            f"{test['model']}, {version}",
        ),
        ("server", f"Triton {test['server_version']} at {test['url']}, backend {test['backend']}"),
        ("data", data + (", every answer checked" if test["answers_checked"] else "")),
        ("requests", f"{results['requests']:,} succeeded, {results['failed_requests']:,} failed"),
        ("load generator", f"{results['generator_cpu_share']:.0%} of a core"),
        ("machine of the load generator", f"{machine['cores']} × {machine['cpu']}, {machine['system']}"),
        ("made by", f"Naiad {content['naiad_version']}"),
    ]


def _table(title: str, columns: Row, rows: Sequence[Row], *, head: bool = False) -> str:
    if not rows:
        return ""
    top = "<tr>" + "".join(f"<th>{escape(column)}</th>" for column in columns) + "</tr>" if head else ""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<section><h2>{escape(title)}</h2><table>{top}{body}</table></section>"


def _us(latency_us: float | None) -> str:
    return "–" if latency_us is None else show_us(latency_us)


def _for_script(value: Any) -> str:
    """Return JSON that no text in it can end the surrounding script element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")

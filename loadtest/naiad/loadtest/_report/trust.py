"""Can I trust this? What was checked about the measurement itself, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.parts import card, grid, pill
from naiad.loadtest._report.units import show_count, show_share, show_us

__all__ = ["trust"]

Content = Mapping[str, Any]
Row = Sequence[Child]


def trust(content: Content) -> Child:
    """Return the checks as a table: what, found, judgement."""
    rows = [*_doubts(content["doubts"]), *_generator(content), *_steadiness(content), *_calibration(content)]
    return card(grid(("checked", "found", ""), rows, name="trust-table")) if rows else None


def _doubts(doubts: Sequence[Content]) -> list[Row]:
    return [
        [
            doubt["kind"].replace("_", " "),
            doubt["text"],
            pill("invalid", "bad") if doubt["invalid"] else pill("doubt", "doubt"),
        ]
        for doubt in doubts
    ]


def _generator(content: Content) -> list[Row]:
    results = content["results"]
    generator, kinds = results["generator"], {doubt["kind"] for doubt in content["doubts"]}
    rows: list[Row] = [
        [
            "CPU of the load generator",
            f"{generator['cpu_share']:.0%} of a core per process",
            _fine("generator_cpu" not in kinds),
        ]
    ]
    if results["lag_us"] and results["lag_us"]["count"]:
        rows.append(
            [
                "lag behind the schedule",
                f"p99 {show_us(results['lag_us']['p99'])}, at most {show_us(results['lag_us']['max'])}",
                _fine("generator_lag" not in kinds),
            ]
        )
    if generator["in_flight_in_server"] is not None:
        nominal = f" of {generator['in_flight']:.1f} in flight" if generator["in_flight"] is not None else ""
        rows.append(
            [
                ["really in the server", el("div", "Little's law: rate × time in the server", class_="note")],
                f"{generator['in_flight_in_server']:.1f}{nominal}",
                _fine("in_flight" not in kinds),
            ]
        )
    counted = results.get("counted")
    if counted:
        rows.append(
            [
                "requests counted",
                f"{counted['client']:,} here, {counted['server']:,} by the server",
                _fine(not kinds & {"counts", "foreign_load"}),
            ]
        )
    return rows


def _steadiness(content: Content) -> list[Row]:
    rows: list[Row] = []
    steadiness, precision = content["steadiness"], content["precision"]
    if steadiness is not None:
        rows.append(["steady state", steadiness["reason"], _fine(steadiness["steady"])])
    if precision is not None:
        rows.append([f"precision of p{precision['percentile']:g}", precision["text"], _fine(precision["reached"])])
    return rows


def _calibration(content: Content) -> list[Row]:
    found = content["calibration"]
    if found is None:
        return []
    share = _share(content["results"], found)
    text = (
        f"against a server that answers at once: {show_us(found['floor_p50_us'])} per request, at most "
        f"{show_count(found['ceiling_per_s'])} requests/s per process, {found['cpu_us_per_request']:.0f} µs of CPU "
        f"per request{share}"
    )
    return [["what the generator can do", text, _fine(None)]]


def _share(results: Content, calibration: Content) -> str:
    ceiling = calibration["ceiling_per_s"] * results["generator"]["engines"] if calibration["ceiling_per_s"] else 0
    return f"; this run used {show_share(results['throughput_per_s'] / ceiling)} of it" if ceiling else ""


def _fine(good: bool | None) -> Html | None:
    return None if good is None else pill("fine", "good") if good else pill("doubt", "doubt")

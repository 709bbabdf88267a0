"""The parts of a run's page on what was asked for, and what failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.parts import card, grid, pill
from naiad.loadtest._report.units import show, show_interval, show_share

__all__ = ["errors", "objectives"]

Content = Mapping[str, Any]


def objectives(content: Content) -> Child:
    """Return the objectives with their judgement, and the comparison with a stored baseline."""
    slos, comparisons = content["slos"], content["comparisons"]
    if not slos and not comparisons:
        return None
    found: list[Html] = []
    if slos:
        rows = [
            [
                slo["slo"],
                _judged(slo),
                show(slo["metric"], slo["measured"]),
                show_interval(slo["metric"], slo["interval"]),
            ]
            for slo in slos
        ]
        notes = [el("p", f"{slo['slo']}: {slo['note']}", class_="note") for slo in slos if slo["note"]]
        head = ("objective", "", "measured", "95 % interval")
        found.append(card(grid(head, rows, numbers=(2, 3), name="objectives-table"), notes))
    if comparisons:
        rows = [
            [
                item["metric"],
                pill("worse" if item["regressed"] else "within the margin", "bad" if item["regressed"] else "good"),
                show(item["metric"], item["baseline"]),
                show(item["metric"], item["measured"]),
            ]
            for item in comparisons
        ]
        margin = f"margin {comparisons[0]['margin']:.0%}"
        head = ("against the baseline", margin, "baseline", "measured")
        found.append(card(grid(head, rows, numbers=(2, 3), name="baseline-table")))
    return el("div", found, class_="columns" if len(found) == 2 else None)


def _judged(slo: Content) -> Child:
    word = "met" if slo["met"] else "missed"
    look = "bad" if not slo["met"] else "good" if slo["proven"] or slo["interval"] is None else "doubt"
    return pill(word if slo["proven"] or slo["interval"] is None else f"{word}, not proven", look)


def errors(results: Content) -> Child:
    """Return the failed requests by class."""
    if not results["errors"]:
        return None
    total = results["requests"]
    rows = [
        [name, f"{error['count']:,}", show_share(error["count"] / total), error["example"]]
        for name, error in results["errors"].items()
    ]
    return card(grid(("class", "requests", "of all", "an example"), rows, numbers=(1, 2), name="errors-table"))

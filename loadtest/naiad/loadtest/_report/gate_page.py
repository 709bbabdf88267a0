"""The page of a gate: the verdict, each metric with its interval, and the pairs that it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from naiad.loadtest._report.chart import Chart, Line, Mark, Table
from naiad.loadtest._report.drawing import draw
from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.page import created, page
from naiad.loadtest._report.parts import card, facts, grid, pill, section, verdict, warning_list
from naiad.loadtest._report.scale import Categories, Linear, Log
from naiad.loadtest._report.setup import machine_text
from naiad.loadtest._report.units import show, show_ratio, show_share

__all__ = ["gate_html"]

Content = Mapping[str, Any]
_LOOKS = {"regression": "bad", "no regression": "good", "inconclusive": "doubt", "improvement": "good"}


def gate_html(content: Content) -> str:
    """Return the page for a gate's JSON content."""
    metrics = content["metrics"]
    parts: list[tuple[str, str, Child]] = [
        ("metrics", "Metrics", [card(_table(metrics)), _forest(metrics)] if metrics else None),
        ("pairs", "Pairs", _pairs(metrics)),
        ("setup", "The comparison", card(facts(_facts(content)))),
    ]
    shown = [(name, title, part) for name, title, part in parts if part is not None]
    return page(
        title=f"{content['candidate']['name']} against {content['baseline']['name']}",
        subtitle=f"{content['num_pairs']} pairs of runs · {created(content['created'])}",
        version=content["naiad_version"],
        data=content,
        links=[(name, title) for name, title, _ in shown],
        content=[
            verdict(content["verdict"], content["reason"], _reasons(content)),
            warning_list(content["warnings"]),
            [section(name, title, part) for name, title, part in shown],
        ],
    )


def _reasons(content: Content) -> list[str]:
    worse = [metric["text"] for metric in content["metrics"] if metric["judged"] and metric["verdict"] == "regression"]
    return worse + [f"objective missed: {slo['slo']}" for slo in content["slos"] if not slo["met"]]


def _value(metric: Content, value: float | None) -> str:
    return show({"us": "p50", "1": "errors", "uJ": "energy"}.get(metric["unit"], "throughput"), value)


def _table(metrics: Sequence[Content]) -> Html:
    rows = [
        [
            metric["metric"],
            pill(metric["verdict"], _LOOKS.get(metric["verdict"], "doubt")) if metric["judged"] else "only watched",
            _value(metric, metric["baseline"]),
            _value(metric, metric["candidate"]),
            show_ratio(metric["ratio"]),
            _range(metric["interval"]),
            f"± {metric['margin']:.0%}",
            "–" if metric["p_adjusted"] is None else f"{metric['p_adjusted']:.3g}",
            "–" if metric["smallest_effect"] is None else show_share(metric["smallest_effect"]),
        ]
        for metric in metrics
    ]
    head = ("metric", "", "baseline", "candidate", "change", "interval", "margin", "p (Holm)", "smallest effect to see")
    return grid(head, rows, numbers=range(2, 9), name="metrics-table")


def _range(interval: Sequence[float | None]) -> str:
    """Return both ends; an end that is not known is open."""
    return f"{show_ratio(interval[0])} … {show_ratio(interval[1])}"


def _forest(metrics: Sequence[Content]) -> Child:
    """Return each metric's ratio with its interval, beside the margin."""
    known = [metric for metric in metrics if None not in (metric["ratio"], *metric["interval"])]
    if not known:
        return None
    x = Categories([metric["metric"] for metric in known])
    margin = max(metric["margin"] for metric in known)
    y = _ratio_axis([end for metric in known for end in metric["interval"]] + [1 - margin, 1 + margin])
    places = [float(index) for index in range(len(known))]
    rows = [
        (x.position(place), (metric["metric"], f"{show_ratio(metric['ratio'])} ({_range(metric['interval'])})"))
        for place, metric in zip(places, known, strict=True)
    ]
    line = Line(
        name="candidate over baseline",
        x=places,
        y=[metric["ratio"] for metric in known],
        color="blue",
        only_dots=True,
        low=[metric["interval"][0] for metric in known],
        high=[metric["interval"][1] for metric in known],
    )
    chart = Chart(
        id="ratios",
        title="Candidate over baseline",
        note="A point is the median ratio, the line its interval; dashed: no change, and the margin.",
        x=x,
        y=y,
        x_title="",
        y_title="ratio",
        series=[line],
        table=Table(id="ratios-figures", head=("metric", "change"), rows=rows),
        columns=(1,),
        marks=_margins(margin),
    )
    return el("div", draw(chart), class_="charts spaced single")


def _pairs(metrics: Sequence[Content]) -> Child:
    charts = [draw(chart) for chart in map(_pairs_chart, metrics) if chart is not None]
    return el("div", charts, class_="charts") if charts else None


def _pairs_chart(metric: Content) -> Chart | None:
    pairs = [pair for pair in metric["pairs"] if pair["ratio"] is not None]
    if len(pairs) < 2:
        return None
    x = Categories([str(pair["pair"]) for pair in pairs])
    y = _ratio_axis([pair["ratio"] for pair in pairs] + [1 - metric["margin"], 1 + metric["margin"]])
    places = [float(index) for index in range(len(pairs))]
    rows = [
        (
            x.position(place),
            (
                f"pair {pair['pair']}",
                show_ratio(pair["ratio"]),
                _value(metric, pair["baseline"]),
                _value(metric, pair["candidate"]),
            ),
        )
        for place, pair in zip(places, pairs, strict=True)
    ]
    name = "".join(letter if letter.isalnum() else "-" for letter in metric["metric"])
    return Chart(
        id=f"pairs-{name}",
        title=metric["metric"],
        note=f"{_verdict_note(metric)} Dashed: no change, and the margin.",
        x=x,
        y=y,
        x_title="pair",
        y_title="candidate over baseline",
        series=[Line(name="ratio", x=places, y=[pair["ratio"] for pair in pairs], color="blue", only_dots=True)],
        table=Table(id=f"pairs-{name}-figures", head=("pair", "change", "baseline", "candidate"), rows=rows),
        columns=(1,),
        marks=_margins(metric["margin"]),
    )


def _verdict_note(metric: Content) -> str:
    return f"{metric['verdict'].capitalize()}: {show_ratio(metric['ratio'])}." if metric["ratio"] is not None else ""


def _margins(margin: float) -> list[Mark]:
    ends = [Mark(name=f"margin {margin:.0%}", value=1 + margin, axis="y"), Mark(name="", value=1 - margin, axis="y")]
    return [Mark(name="no change", value=1.0, axis="y"), *ends]


def _ratio_axis(values: Sequence[float]) -> Linear | Log:
    """Return an axis for ratios; where they are far apart, half and double are equally far from 1."""
    low, high = min(values), max(values)
    if high > 2.5 * low > 0:
        return Log(low / 1.1, high * 1.1)
    room = (high - low or 0.1) * 0.1
    return Linear(max(low - room, 0.0), high + room)


def _facts(content: Content) -> list[tuple[str, Child]]:
    discarded = content["discarded"]
    reasons = [el("div", f"pair {item['pair']}: {item['reason']}", class_="note") for item in discarded]
    options = content["options"]
    return [
        ("baseline", content["baseline"]["name"]),
        ("candidate", content["candidate"]["name"]),
        ("pairs of runs", str(content["num_pairs"])),
        ("pairs that do not count", [f"{len(discarded)}", reasons] if discarded else "none"),
        ("window of a run", f"{options['window_s']:g} s"),
        ("chance of a false alarm", f"at most {options['alpha']:.1%}, over all metrics and looks"),
        ("seed", str(options["seed"])),
        ("took", f"{content['elapsed_s']:,.0f} s"),
        ("machine", machine_text(content["machine"])),
    ]

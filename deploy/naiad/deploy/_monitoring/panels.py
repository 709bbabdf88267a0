"""Dashboards as Grafana 11 and 12 read them: panels in rows, laid out from left to right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["timeseries", "stat", "heatmap"]
Json = dict[str, Any]

WIDTH = 24
"""Columns of a dashboard."""
SCHEMA = 39
"""Of Grafana 11; 12 reads it and brings it up to date by itself."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What a panel asks Prometheus."""

    expression: str
    legend: str = ""
    """As in `{{model}}`; empty for the series' labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One picture."""

    title: str
    description: str
    """What it shows, and when to worry."""
    unit: str
    """Grafana's name of it: reqps, percentunit, ms, s, bytes, Bps, short, d, watt."""
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    most: float | None = None
    """End of the scale; None for the data's own."""
    warn: float | None = None
    """From here on it is shown in red; below zero: up to there."""
    warn_below: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """A choice at the top of a dashboard: the values of a label."""

    name: str
    metric: str
    """A metric that has the label, with a selector where it needs one."""


def dashboard(
    *, uid: str, title: str, description: str, rows: Sequence[Row], variables: Sequence[Variable] = ()
) -> Json:
    """Return the whole of a dashboard."""
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["naiad"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [_others()],
        "annotations": {"list": [_alerts()]},
        "templating": {"list": [_datasource(), *(_variable(each) for each in variables)]},
        "panels": list(_layout(rows)),
    }


def _layout(rows: Sequence[Row]) -> Iterator[Json]:
    """Panels side by side while they fit; each row begins below the one before."""
    number, top = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": _at(0, top, WIDTH, 1),
        }
        top += 1
        left, bottom = 0, top
        for panel in row.panels:
            if left + panel.width > WIDTH:
                left, top = 0, bottom
            number += 1
            yield {"id": number, "gridPos": _at(left, top, panel.width, panel.height), **_panel(panel)}
            left, bottom = left + panel.width, max(bottom, top + panel.height)
        top = bottom


def _at(left: int, top: int, width: int, height: int) -> Json:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: Panel) -> Json:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [_target(query, chr(ord("A") + index), panel.kind) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
    }


def _target(query: Query, reference: str, kind: Kind) -> Json:
    instant = kind == "stat"
    return {
        "refId": reference,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expression,
        "legendFormat": query.legend or "__auto",
        "instant": instant,
        "range": not instant,
        "format": "heatmap" if kind == "heatmap" else "time_series",
    }


def _defaults(panel: Panel) -> Json:
    scale: Json = {} if panel.most is None else {"max": panel.most}
    custom = {**_LINES, "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"}}
    custom["fillOpacity"] = 30 if panel.stacked else 8
    drawn = {"custom": custom, "min": 0} if panel.kind == "timeseries" else {}
    return {
        "unit": panel.unit,
        **scale,
        **drawn,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": _steps(panel)},
        "mappings": [],
    }


def _steps(panel: Panel) -> list[Json]:
    low, high = ("red", "green") if panel.warn_below else ("green", "red")
    first: list[Json] = [{"color": low if panel.warn is not None else "green", "value": None}]
    return first if panel.warn is None else [*first, {"color": high, "value": panel.warn}]


_LINES: Json = {
    "drawStyle": "line",
    "lineInterpolation": "linear",
    "lineWidth": 1,
    "showPoints": "never",
    "spanNulls": False,
    "axisPlacement": "auto",
    "scaleDistribution": {"type": "linear"},
    "thresholdsStyle": {"mode": "off"},
}
_LEGEND: Json = {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]}
_REDUCED: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[Kind, Json] = {
    "timeseries": {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": {
        "reduceOptions": _REDUCED,
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "auto",
        "justifyMode": "auto",
    },
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "filterValues": {"le": 1e-9},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "µs"},
        "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5, "steps": 64},
    },
}


def _datasource() -> Json:
    return {
        "name": "datasource",
        "type": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
        "regex": "",
        "includeAll": False,
        "multi": False,
        "options": [],
    }


def _variable(variable: Variable) -> Json:
    query = f"label_values({variable.metric}, {variable.name})"
    return {
        "name": variable.name,
        "type": "query",
        "label": variable.name.capitalize(),
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "regex": "",
        "options": [],
    }


def _others() -> Json:
    """Links to the other dashboards, which keep the time range."""
    return {
        "title": "Naiad",
        "type": "dashboards",
        "tags": ["naiad"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _alerts() -> Json:
    """Marks on every picture where alerts began to fire."""
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{model}} {{pool}} {{replica}}",
        "step": "30s",
    }

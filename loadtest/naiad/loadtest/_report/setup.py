"""What was tested, on what, and how to do it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.parts import card, facts
from naiad.loadtest._report.units import show_count

__all__ = ["machine_text", "reproduce", "setup", "title_of"]

Content = Mapping[str, Any]


def title_of(content: Content) -> str:
    """Return what a report is called."""
    models = " + ".join(traffic["model"] for traffic in content["test"]["traffic"])
    return content["name"] or f"Load test of {models}"


def machine_text(machine: Content) -> str:
    """Return the machine in a line."""
    return f"{machine['cores']} × {machine['cpu']}, {machine['system']}"


def setup(content: Content) -> Html:
    """Return the test's parameters, the models and the machine."""
    test = content["test"]
    rows: list[tuple[str, Child]] = [
        ("server", test["url"]),
        ("load", test["load"]["text"]),
        ("measured", _length(test)),
        ("warm-up", "found out" if test["warmup_s"] is None else f"{test['warmup_s']:g} s"),
        (
            "sent by",
            f"{_several(test['engines'], 'process', 'processes')}, "
            f"{_several(test['connections'], 'connection')} each, {test['transport']}"
            f"{', real-time priority' if test['realtime'] else ''}",
        ),
        ("seed", str(test["seed"])),
        ("price per hour", show_count(test["price_per_hour"]) if test["price_per_hour"] else None),
        ("load generator's machine", machine_text(content["machine"])),
        ("kernel", content["machine"].get("kernel")),
        ("CPU governor", content["machine"].get("governor")),
    ]
    models = [card(el("h3", traffic["model"]), facts(_model(traffic, target))) for traffic, target in _pairs(content)]
    return el("div", card(facts(rows)), models, class_="columns")


def _pairs(content: Content) -> list[tuple[Content, Content]]:
    targets = list(content["targets"])
    traffic = content["test"]["traffic"]
    return list(zip(traffic, targets + [{}] * (len(traffic) - len(targets)), strict=True))


def _model(traffic: Content, target: Content) -> list[tuple[str, Child]]:
    sequence = traffic["sequence"]
    return [
        ("version", traffic["version"] or f"the server's choice of {', '.join(target.get('served_versions', ()))}"),
        ("backend", target.get("backend")),
        ("Triton", target.get("server_version")),
        ("largest batch", str(target["max_batch_size"]) if target.get("max_batch_size") else None),
        ("rows per request", str(traffic["batch"])),
        ("data", traffic["data"]["text"]),
        ("answers checked", "yes" if traffic["check"] else None),
        ("shared memory", "yes" if traffic["shared_memory"] else None),
        ("stream", "yes" if traffic["stream"] else None),
        ("sequences", f"{sequence['min_length']} to {sequence['max_length']} requests" if sequence else None),
        ("deadline", f"{traffic['timeout_s']:g} s"),
        ("weight", f"{traffic['weight']:g}"),
    ]


def _length(test: Content) -> str:
    precision = test["precision"]
    if precision is None:
        return f"{test['duration_s']:g} s"
    return (
        f"until p{precision['percentile']:g} is known within ± {precision['within']:.1%}, "
        f"{test['duration_s']:g} to {test['max_duration_s']:g} s"
    )


def _several(number: int, one: str, many: str = "") -> str:
    return f"1 {one}" if number == 1 else f"{number} {many or one + 's'}"


def reproduce(content: Content) -> Child:
    """Return the command and the scenario that give this run again."""
    found = content["reproduce"]
    if not found or not (found["command"] or found["scenario"]):
        return None
    return card(
        [el("h3", "Command"), el("pre", found["command"])] if found["command"] else None,
        [el("h3", "Scenario"), el("pre", found["scenario"])] if found["scenario"] else None,
    )

"""The part of a run's page on the models that the tested one calls: how long each of its requests was in which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.parts import STEPS, bar, card, grid
from naiad.loadtest._report.units import UNKNOWN, show_count, show_share, show_us

__all__ = ["steps"]

Content = Mapping[str, Any]
_PARTS: Final = ("queue", "compute_input", "compute_infer", "compute_output")
_WAITING: Final = "waiting for the script"
_REST: Final = {"ensemble": "between the steps", "script": "the script itself"}


def steps(results: Content, *, name: str = "steps") -> Html | None:
    """Return a bar and a row for each step; ``None`` of a model that calls no other."""
    found, between = results.get("steps"), results.get("between_steps")
    if not found or between is None:
        return None
    rest = _REST.get(between["kind"], "the rest")
    longest = max([between["whole_us"] or 0.0, *(step["time_us"] or 0.0 for step in found)])
    bars = [bar(_WAITING, {"queue": between["own_queue_us"]}, longest)] if _waited(between) else []
    bars += [bar(_called(step), _times(step), longest) for step in found if step["time_us"]]
    if between["time_us"]:
        bars.append(bar(rest, {"server_other": between["time_us"]}, longest))
    return card(
        el("h3", "Step by step: the mean time of a request in the models that are called"),
        el("p", _explained(between), class_="note"),
        el("div", bars, id=f"{name}-chart"),
        _table(found, between, rest, name),
        [el("p", note, class_="note") for note in _notes(found, between, rest)],
        class_="card spaced",
    )


def _waited(between: Content) -> bool:
    return between["kind"] == "script" and bool(between["own_queue_us"])


def _called(step: Content) -> str:
    times = step["calls_per_request"]
    calls = "" if times is None or times == 1 else f" ({show_count(times)} calls per request)"
    return f"{'↳ ' * (step['depth'] - 1)}{_name(step)}{calls}"


def _name(step: Content) -> str:
    return f"{step['model']} (version {step['version']})" if step["version"] else str(step["model"])


def _times(step: Content) -> dict[str, float]:
    times = {part: step[f"{part}_us"] for part in _PARTS}
    return {**times, "server_other": max(0.0, step["time_us"] - sum(times.values()))}


def _explained(between: Content) -> str:
    whole = "–" if between["whole_us"] is None else show_us(between["whole_us"])
    return f"Of {whole} in the server. Times are of one request of the whole, all its calls of a step together."


def _table(found: list[Content], between: Content, rest: str, name: str) -> Html:
    head = ["step", "requests", "calls", "time", "share", *map(_heading, _PARTS), "mean batch"]
    rows = [_row(step) for step in found]
    empty: list[Child] = [""] * 5
    if _waited(between):
        share = between["own_queue_us"] / between["whole_us"] if between["whole_us"] else None
        cells: list[Child] = ["", "", show_us(between["own_queue_us"]), show_share(_rounded(share)), *empty]
        rows.insert(0, [_WAITING, *cells])
    rows.append([rest, "", "", show_us(between["time_us"]), show_share(_rounded(between["share"])), *empty])
    return grid(head, rows, numbers=range(1, len(head)), name=f"{name}-table")


def _heading(part: str) -> Html:
    return el("span", el("i", class_=f"swatch step-{STEPS[part][1]}"), STEPS[part][1])


def _row(step: Content) -> list[Child]:
    mark = " *" if step["others"] else ""
    return [
        f"{'↳ ' * (step['depth'] - 1)}{_name(step)}{mark}",
        UNKNOWN if step["requests"] is None else f"{step['requests']:,}",
        show_count(step["calls_per_request"]),
        show_us(step["time_us"]),
        show_share(_rounded(step["share"])),
        *(show_us(step[f"{part}_us"]) for part in _PARTS),
        UNKNOWN if step["mean_batch"] is None else f"{step['mean_batch']:.1f}",
    ]


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 3)


def _notes(found: list[Content], between: Content, rest: str) -> Iterator[str]:
    if between["unknown"] is not None:
        yield f"{rest.capitalize()}: not known, {between['unknown']}."
    others = ", ".join(f"{step['model']}: {step['others']:,}" for step in found if step["others"])
    if others:
        yield f"* Had requests of others as well ({others}); times and batches are theirs, too."
    if between["kind"] == "ensemble":
        yield "An ensemble's own counters leave out how long its steps wait: above, that is in “server, other”."
    if any(step["depth"] > 1 for step in found):
        yield "↳ Within the time of the step above that calls it."

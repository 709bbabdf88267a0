"""The result as JSON and as a page of Markdown."""

from __future__ import annotations

import datetime
import json
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gpu import goals, plan
from gpu.goals import Goal, Spread
from gpu.plan import GRPC, IN_PROCESS, MEMORY, SATURATION, Scale, Variant, cell_name, model_name, variants
from gpu.state import write_atomically

SCHEMA = 1
_TITLES = {"resnet50": "ResNet-50", "bert_base": "BERT-base"}
_NOT_MEASURED = "–"
Entry = Callable[[str, Variant], Mapping[str, Any] | None]


def assemble(
    *, machine: Mapping[str, Any], scale: Scale, tests: Mapping[str, Any] | None, entry: Entry, command: str
) -> dict[str, Any]:
    """Put everything that was found together; `entry` gives what the state has of a name."""
    rehearsal = scale.tiny or machine["device"] != "cuda"
    runtimes = [name for name, reason in machine["runtimes"].items() if reason is None]
    found = [_variant(variant, scale, entry, judged=not rehearsal) for variant in variants(runtimes)]
    return {
        "schema": SCHEMA,
        "rehearsal": rehearsal,
        "complete": tests is not None and all(one["refused"] or not one["missing"] for one in found),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command,
        "machine": dict(machine),
        "scale": scale.depends(),
        "tests": None if tests is None else dict(tests),
        "variants": found,
    }


def _variant(variant: Variant, scale: Scale, entry: Entry, *, judged: bool) -> dict[str, Any]:
    model = entry(model_name(variant), variant) or {"status": "missing"}
    names = plan.cells(scale)
    entries = {name: entry(cell_name(variant, name), variant) for name in names}
    cells = {
        name: found["result"] for name, found in entries.items() if found is not None and found["status"] == "done"
    }
    troubles = {name: found["reason"] for name, found in entries.items() if found is not None and "reason" in found}
    saturation = cells.get(SATURATION)
    full, single = cells.get(str(scale.full_batch)), cells.get(str(scale.batches[0]))
    return {
        **asdict(variant),
        "refused": model.get("reason") if model["status"] == "refused" else None,
        "failed": troubles | ({"export": model["reason"]} if model["status"] == "failed" else {}),
        "missing": [name for name in names if name not in cells],
        "cells": [cells[str(batch)] for batch in scale.batches if str(batch) in cells],
        "saturation": saturation,
        "limit": None if saturation is None else goals.limit(saturation),
        "goals": [
            asdict(goal if judged else replace(goal, reached=None)) for goal in goals.goals(full, single, saturation)
        ],
    }


def file_name(machine: Mapping[str, Any], *, rehearsal: bool) -> str:
    """Return the report's name without an ending: the GPU's, and never a GPU's for a rehearsal."""
    if rehearsal:
        return "rehearsal"
    return re.sub(r"[^a-z0-9]+", "-", machine["gpu"].lower()).strip("-")


def write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write both files, each whole; gives their paths."""
    name = file_name(found["machine"], rehearsal=found["rehearsal"])
    paths = [folder / f"{name}.json", folder / f"{name}.md"]
    write_atomically(paths[0], json.dumps(found, indent=1) + "\n")
    write_atomically(paths[1], markdown(found))
    return paths


def markdown(found: Mapping[str, Any]) -> str:
    """Return the page: the machine, the goals, every cell, and saturation."""
    return "\n".join([*_head(found), *_goals(found), *_cells(found), *_saturation(found), *_tests(found), ""])


def in_brief(result: Mapping[str, Any]) -> str:
    """Return a cell in half a line."""
    if "sweep" in result:
        gpu = result["gpu"]
        busy = "" if gpu is None else f", GPU {gpu['utilisation']:.0%} busy"
        most = f"{result['rows_per_s']:,.0f} rows/s with {result['inflight']} in flight"
        return f"{most}{busy}; limit: {goals.limit(result)}"
    ways = (f"{way} {_percent(goals.ratio(result, way))}" for way in (MEMORY, GRPC))
    return f"{', '.join(ways)} of in-process, p50 {goals.overhead_ms(result, MEMORY).median:+.2f} ms"


def _head(found: Mapping[str, Any]) -> Iterator[str]:
    machine = found["machine"]
    gpu = machine.get("gpu")
    yield f"# Serving on {gpu}" if not found["rehearsal"] else "# Rehearsal of the GPU benchmark: no result about a GPU"
    yield ""
    if not found["complete"]:
        yield "**Not complete**: what is missing is named below.\n"
    facts = [f"{machine['cores']} cores of {machine['cpu']}"]
    if gpu is not None:
        facts += [f"{gpu} with {machine['memory_bytes'] / 2**30:.0f} GiB", f"driver {machine['driver']}"]
        facts += [f"CUDA {machine['cuda']}"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield f"{found['date']}. {', '.join(facts)}, Python {machine['python']}; {versions}."
    yield ""
    ceilings = machine["ceilings"]
    told = [
        f"copies on the device {ceilings['copy_gb_per_s']:,.4g} GB/s (bytes read and written)",
        f"bf16 matrix product {ceilings['bf16_matmul_tflop_per_s']:,.4g} TFLOP/s",
    ]
    if "host_to_device_gb_per_s" in ceilings:
        told.append(
            f"to and from the device {ceilings['host_to_device_gb_per_s']:.0f} and "
            f"{ceilings['device_to_host_gb_per_s']:.0f} GB/s"
        )
    yield f"What PyTorch reaches here: {', '.join(told)}."
    yield ""
    yield f"Made with `{found['command']}`. "
    for runtime, reason in machine["runtimes"].items():
        if reason is not None:
            yield f"Not measured: {runtime}, {reason}. "
    yield ""


def _goals(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Goals"
    yield ""
    yield from _header(
        "net",
        "precision",
        "runtime",
        "throughput, shared memory",
        "throughput, gRPC",
        "p50 overhead at batch 1",
        "GPU busy",
        "limit",
    )
    for variant in found["variants"]:
        memory, grpc, over, busy = (Goal(**goal) for goal in variant["goals"])
        told = [_judged(goal, f"{goal.value:.1%}" if goal.value is not None else "") for goal in (memory, grpc)]
        told.append(_judged(over, f"{over.value:.2f} ms" if over.value is not None else ""))
        told.append(_judged(busy, f"{busy.value:.0%}" if busy.value is not None else ""))
        yield _row(*_names(variant), *told, variant["limit"] or _NOT_MEASURED)
    yield ""
    full = found["scale"]["full_batch"]
    yield (
        f"Goals: at batch {full} at least {goals.MEMORY_GOAL:.0%} of the in-process throughput by shared memory and "
        f"{goals.GRPC_GOAL:.0%} by gRPC on loopback; at most {goals.OVERHEAD_GOAL_MS} ms more at batch 1 by shared "
        f"memory; at saturation the GPU at least {goals.UTILISATION_GOAL:.0%} busy. "
        + ("A rehearsal is not judged." if found["rehearsal"] else _counted(found["variants"]))
    )
    yield ""
    for variant in found["variants"]:
        name = " ".join(_names(variant))
        if variant["refused"]:
            yield f"* {name} is not served: {variant['refused']}"
        for cell, reason in variant["failed"].items():
            yield f"* {name}, {_cell(cell)}, failed: {reason}"
        if variant["missing"] and not variant["refused"]:
            yield f"* {name}: not measured yet: {', '.join(map(_cell, variant['missing']))}"
    yield ""


def _cells(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Every batch size"
    yield ""
    yield (
        "Rows a second and the time of one batch alone; percentages and overheads are taken round by round: median "
        "(lowest–highest). In-process is the same compiled model on tensors that lie on the device."
    )
    yield ""
    for variant in found["variants"]:
        if not variant["cells"]:
            continue
        yield f"### {' '.join(_names(variant))}"
        yield ""
        yield (
            "| batch | in-process rows/s | p50 | shared memory rows/s | of in-process | p50 overhead "
            "| gRPC rows/s | of in-process | p50 overhead |"
        )
        yield "| --: " * 9 + "|"
        for cell in variant["cells"]:
            ways = cell["ways"]
            told = [f"{_median(ways[IN_PROCESS]['rows_per_s']):,.0f}", f"{_median(ways[IN_PROCESS]['p50_ms']):.2f} ms"]
            for way in (MEMORY, GRPC):
                told += [
                    f"{_median(ways[way]['rows_per_s']):,.0f}",
                    _percents(goals.ratio(cell, way)),
                    _times(goals.overhead_ms(cell, way)),
                ]
            yield _row(str(cell["batch"]), *told)
        yield ""


def _saturation(found: Mapping[str, Any]) -> Iterator[str]:
    measured = [variant for variant in found["variants"] if variant["saturation"] is not None]
    if not measured:
        return
    yield f"## Saturation: batch {found['scale']['full_batch']} through shared memory"
    yield ""
    yield from _header(
        "model",
        "rows/s by requests in flight",
        "GPU busy",
        "power",
        "rows/J",
        "memory",
        "client's CPU",
        "server's time: queue, in, compute, out",
        "limit",
    )
    for variant in measured:
        cell = variant["saturation"]
        gpu, time = cell["gpu"], cell["server_time"]
        sweep = ", ".join(f"{entry['inflight']}: {entry['rows_per_s']:,.0f}" for entry in cell["sweep"])
        told = [_NOT_MEASURED] * 4
        if gpu is not None:
            rows_per_joule = cell["rows_per_s"] / gpu["power_w"] if gpu["power_w"] else 0.0
            told = [f"{gpu['utilisation']:.0%}", f"{gpu['power_w']:.0f} W", f"{rows_per_joule:.1f}"]
            told.append(f"{gpu['memory_bytes'] / 2**30:.1f} GiB")
        shares = ", ".join(
            f"{time[name]:.0%}" for name in ("queue", "compute_input", "compute_infer", "compute_output")
        )
        yield _row(" ".join(_names(variant)), sweep, *told, f"{cell['client_cpu']:.0%}", shares, variant["limit"])
    yield ""
    yield (
        "The limit is *compute* where the GPU is busy; else *client* where a client's thread is; else *copies* where "
        "a quarter of the server's work is moving tensors; else *server*. The client's CPU is in cores."
    )
    yield ""


def _tests(found: Mapping[str, Any]) -> Iterator[str]:
    tests = found["tests"]
    yield "## Tests"
    yield ""
    if tests is None:
        yield "tests/gpu did not run."
        return
    yield f"tests/gpu: {tests['passed']} passed, {tests['failed']} failed, {tests['skipped']} skipped."
    for name in tests["failures"]:
        yield f"* failed: {name}"
    for reason in tests["skip_reasons"]:
        yield f"* skipped: {reason}"


def _counted(found: list[dict[str, Any]]) -> str:
    judged = [goal["reached"] for variant in found for goal in variant["goals"] if goal["reached"] is not None]
    return f"{sum(judged)} of {len(judged)} that were measured are reached."


def _judged(goal: Goal, value: str) -> str:
    if goal.value is None:
        return _NOT_MEASURED
    if goal.reached is None:
        return value
    return f"{value}, {'reached' if goal.reached else '**missed**'}"


def _names(variant: Mapping[str, Any]) -> tuple[str, str, str]:
    return _TITLES.get(variant["net"], variant["net"]), variant["precision"], variant["runtime"]


def _cell(name: str) -> str:
    return f"batch {name}" if name.isdigit() else name


def _header(*titles: str) -> Iterator[str]:
    yield _row(*titles)
    yield _row(*["---"] * len(titles))


def _row(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _percent(spread: Spread) -> str:
    return f"{spread.median:.0%}"


def _percents(spread: Spread) -> str:
    return f"{spread.median:.1%} ({spread.lowest:.1%}–{spread.highest:.1%})"


def _times(spread: Spread) -> str:
    return f"{spread.median:.2f} ms ({spread.lowest:.2f}–{spread.highest:.2f})"

"""Measures one served model against the same model called in-process: a task of the environment."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from gpu.nvml import Watch
from gpu.plan import GRPC, IN_PROCESS, MEMORY, SATURATION, Scale, Variant
from gpu.sides import InOnnxRuntime, InPyTorch, Served, Side
from naiad.client import Client, ModelStatistics
from naiad.server import EmbeddedTriton

_READY_S = 240.0
_DIFFERENCE = 0.05
"""Of the largest value: more is another answer, and not another order of sums."""
_PROBE_S = 0.15


class WrongAnswer(Exception):
    """A served model answers otherwise than the same model in-process."""


def measure(
    variant: Variant, scale: Scale, repository: Path, *, cells: list[str], device: str, uuid: str | None, until: float
) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Give each cell with what was found, or `error`, and its seconds; begins none after `until` (monotonic)."""
    with ExitStack() as stack:
        path = _model_file(repository, variant.name)
        if path.suffix == ".pt2":
            sides = {IN_PROCESS: Side(InPyTorch, (str(path), device, _replays(repository, variant.name)))}
        else:
            sides = {IN_PROCESS: Side(InOnnxRuntime, (str(path), device))}
        stack.callback(_close, sides)
        gpus = "all" if device == "cuda" else None
        triton = stack.enter_context(EmbeddedTriton(repository, supervise=False, gpus=gpus, ready_timeout_s=_READY_S))
        served = (triton.grpc_url, triton.admin_secret, variant.name, device)
        sides[MEMORY] = Side(Served, (*served, True))
        sides[GRPC] = Side(Served, (*served, False), scale.grpc_clients)
        for side in sides.values():
            side.wait_ready()
        for cell in cells:
            if time.monotonic() > until:
                return
            started = time.monotonic()
            try:
                if cell == SATURATION:
                    client = stack.enter_context(triton.client())
                    found = _saturate(sides, variant, scale, client, uuid)
                else:
                    found = _compare(sides, variant, scale, int(cell))
            except (OSError, RuntimeError, WrongAnswer) as exc:
                traceback.print_exc()
                found = {"error": f"{type(exc).__name__}: {exc}"}
            yield cell, found, time.monotonic() - started


def _close(sides: dict[str, Side]) -> None:
    for side in sides.values():
        side.close()


def _model_file(repository: Path, model: str) -> Path:
    versions = sorted(
        (path for path in (repository / model).iterdir() if path.name.isdigit()), key=lambda p: int(p.name)
    )
    return next(path for name in ("model.pt2", "model.onnx") if (path := versions[-1] / name).is_file())


def _replays(repository: Path, model: str) -> bool:
    """Whether the server runs the model by CUDA graphs: the export writes the parameter only where it does."""
    return "naiad.cuda_graph" in (repository / model / "config.pbtxt").read_text()


def _compare(sides: dict[str, Side], variant: Variant, scale: Scale, batch: int) -> dict[str, Any]:
    """Time all ways in turn, each round in another order."""
    for side in sides.values():
        side.prepare(variant.net, scale.sizes, batch)
    difference = _check_answers(sides)
    inflight = {way: _best_inflight(side, way, scale, batch) for way, side in sides.items()}
    rounds = scale.rounds if batch in scale.key_batches else scale.fewer_rounds
    found: dict[str, dict[str, list[float]]] = {
        way: {"rows_per_s": [], "p50_ms": [], "client_cpu": []} for way in sides
    }
    order = list(sides)
    for _ in range(rounds):
        for way in order:
            for name, value in sides[way].throughput(batch, inflight[way], scale.window_s).items():
                found[way][name].append(round(value, 4))
            found[way]["p50_ms"].append(round(sides[way].p50_ms(scale.window_s / 2), 5))
        order = [*order[1:], order[0]]
    return {"batch": batch, "ways": found, "inflight": inflight, "max_difference": difference}


def _check_answers(sides: dict[str, Side]) -> float:
    """Return how far the served answers are from the in-process ones, as a part of the largest value."""
    expected = sides[IN_PROCESS].answer()
    scale = max(float(np.abs(expected).max()), 1e-9)
    worst = 0.0
    for way, side in sides.items():
        difference = float(np.abs(side.answer() - expected).max()) / scale
        if not difference <= _DIFFERENCE:
            raise WrongAnswer(f"expected {way} to answer as {IN_PROCESS} does, found a difference of {difference:.1%}")
        worst = max(worst, difference)
    return round(worst, 6)


def _best_inflight(side: Side, way: str, scale: Scale, batch: int) -> int:
    if way == IN_PROCESS:
        return 1
    rates = {inflight: side.throughput(batch, inflight, _PROBE_S)["rows_per_s"] for inflight in scale.inflight}
    for inflight in scale.inflight:
        side.forget(batch, inflight)
    return max(rates, key=lambda inflight: rates[inflight])


def _saturate(
    sides: dict[str, Side], variant: Variant, scale: Scale, client: Client, uuid: str | None
) -> dict[str, Any]:
    """Raise the requests in flight until no more rows come, and look at who is busy then."""
    batch, side = scale.full_batch, sides[MEMORY]
    side.prepare(variant.net, scale.sizes, batch)
    sides[IN_PROCESS].prepare(variant.net, scale.sizes, batch)
    peer = sides[IN_PROCESS].throughput(batch, 1, scale.window_s)["rows_per_s"]
    sweep = [
        {"inflight": inflight, "rows_per_s": round(side.throughput(batch, inflight, scale.window_s)["rows_per_s"], 1)}
        for inflight in scale.sweep
    ]
    best = max(sweep, key=lambda entry: entry["rows_per_s"])
    side.forget(batch, int(best["inflight"]))
    before = _statistics(client, variant.name)
    with Watch(uuid, settle_s=scale.saturated_s / 3) as watch:
        found = side.throughput(batch, int(best["inflight"]), scale.saturated_s)
    used = _statistics(client, variant.name) - before
    parts = {name: getattr(used, name).ns for name in ("queue", "compute_input", "compute_infer", "compute_output")}
    total = max(sum(parts.values()), 1)
    return {
        "batch": batch,
        "sweep": sweep,
        "inflight": best["inflight"],
        "rows_per_s": round(found["rows_per_s"], 1),
        "in_process_rows_per_s": round(peer, 1),
        "client_cpu": round(found["client_cpu"], 3),
        "server_time": {name: round(ns / total, 4) for name, ns in parts.items()},
        "gpu": watch.summary(),
    }


def _statistics(client: Client, model: str) -> ModelStatistics:
    return client.statistics(model)[0]

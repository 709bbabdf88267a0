"""What an export gains on this machine's CPU: real nets as PyTorch runs them, and as they are served.

    make bench-export        or: python benchmarks/export.py [--models embeddings,pitch] [--rounds 9] [--json FILE]

Each net with its trained weights is published twice: as fp32, and with `precision="auto"`, the fastest candidate that
passes. Four ways are then timed in interleaved rounds, each in a process of its own: PyTorch eager and torch.compile in
the process that asks, and both versions served by the embedded Triton to a client over loopback, the whole way there
and back. One request at a time; all may use all cores. Ratios are taken within a round, because machines drift.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import Side, Work, busy, machine
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from naiad.client import Client
from naiad.export import PrecisionResult, Repository, export_recipe, load_recipe
from naiad.server import EmbeddedTriton

Arrays = dict[str, np.ndarray[Any, Any]]
MODELS = ("embeddings", "pitch", "faces", "speakers", "voice_activity")
BATCHES = (1, 8)
TRANSFORMER, GOAL = "embeddings", 1.8
_ROUND_S = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One net at one batch size: milliseconds a batch in each round, by way."""

    model: str
    batch: int
    picked: str
    rounds: dict[str, list[float]]

    def ms(self, way: str) -> float:
        """Return the median time of a batch."""
        return statistics.median(self.rounds[way])

    def ratios(self, way: str, peer: str) -> list[float]:
        """Return how many times faster `way` is than `peer`, one for each round."""
        return [theirs / ours for ours, theirs in zip(self.rounds[way], self.rounds[peer], strict=True)]


@contextmanager
def in_pytorch(recipe: str, inputs: Arrays, *, compiled: bool) -> Iterator[Work]:
    """PyTorch in this process, with all cores."""
    import torch

    model = load_recipe(recipe).build()
    run = torch.compile(model) if compiled else model
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}

    def work(units: int) -> None:
        with torch.inference_mode():
            for _ in range(units):
                run(**tensors)

    yield work


@contextmanager
def served(url: str, model: str, inputs: Arrays) -> Iterator[Work]:
    """A client of the server."""
    with Client(url) as client:
        handle = client.model(model)

        def work(units: int) -> None:
            for _ in range(units):
                handle.infer(inputs)

        yield work


def inputs_of(recipe: Any, names: Sequence[str], batch: int) -> Arrays:
    """The first rows of the recipe's samples, over and over, by input name."""
    sample = recipe.samples()[0]
    arrays = sample if isinstance(sample, Mapping) else dict(zip(names, sample, strict=True))
    return {
        name: np.ascontiguousarray(np.asarray(arrays[name])[np.arange(batch) % len(arrays[name])]) for name in names
    }


def publish(recipe: Any, repository: Repository) -> tuple[str, tuple[PrecisionResult, ...]]:
    """Publish both versions under names of their own; gives what `auto` picked, and its table."""
    export_recipe(recipe, repository=repository, name=f"{recipe.name}_fp32", precision="fp32")
    version = export_recipe(recipe, repository=repository, name=f"{recipe.name}_auto", precision="auto")
    assert version.report is not None
    table = version.report.precision
    picked = next((f"{result.precision} {result.method}".strip() for result in table if result.chosen), "fp32")
    return picked, table


def measure(url: str, name: str, inputs: Arrays, picked: str, rounds: int) -> Row:
    """Time the four ways in turn, each round in another order."""
    batch = len(next(iter(inputs.values())))
    prepare: dict[str, Callable[[], Any]] = {
        "eager": functools.partial(in_pytorch, name, inputs, compiled=False),
        "compile": functools.partial(in_pytorch, name, inputs, compiled=True),
        "fp32": functools.partial(served, url, f"{name}_fp32", inputs),
        "auto": functools.partial(served, url, f"{name}_auto", inputs),
    }
    sides = {way: Side(each, _ROUND_S) for way, each in prepare.items()}
    try:
        for side in sides.values():
            side.timed()
        found: dict[str, list[float]] = {way: [] for way in sides}
        order = list(sides)
        for _ in range(rounds):
            for way in order:
                found[way].append(sides[way].timed().wall_s * 1e3)
            order = [*order[1:], order[0]]
    finally:
        for side in sides.values():
            side.close()
    return Row(model=name, batch=batch, picked=picked, rounds=found)


def report(rows: Sequence[Row], tables: Mapping[str, tuple[PrecisionResult, ...]]) -> None:
    """Print what was measured: medians, and ratios with their range."""
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(title=machine(), title_justify="left", caption="median of the rounds (lowest–highest ratio)")
    for column in (
        "net",
        "batch",
        "eager",
        "compile",
        "served fp32",
        "served auto",
        "rows/s auto",
        "auto is",
        "auto / eager",
        "auto / fp32",
    ):
        table.add_column(column, justify="left" if column == "net" else "right")
    for row in rows:
        times = [f"{row.ms(way):.2f} ms" for way in ("eager", "compile", "fp32", "auto")]
        ratios = [_spread(row.ratios("auto", peer)) for peer in ("eager", "fp32")]
        table.add_row(
            row.model, str(row.batch), *times, f"{row.batch * 1e3 / row.ms('auto'):,.0f}", row.picked, *ratios
        )
    console.print(table)
    for name, results in tables.items():
        console.print(_candidates(name, results))
    for sentence in verdicts(rows):
        console.print(sentence)


def _candidates(name: str, results: Sequence[PrecisionResult]) -> Table:
    table = Table(title=f"{name}: what auto chose from, in ONNX Runtime", title_justify="left")
    for column in ("precision", "method", "size", "error", "latency by batch", ""):
        table.add_column(column)
    for result in results:
        latency = ", ".join(f"{each.batch}: {each.median_ms:.3g} ms" for each in result.latency)
        error = max((parity.max_rel_error for parity in result.parity), default=None)
        said = "chosen" if result.chosen else result.refused or ""
        shown = "" if error is None else f"{error:.2g}"
        table.add_row(result.precision, result.method, f"{result.size_bytes / 1e6:.1f} MB", shown, latency, said)
    return table


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """Say whether the goals are reached."""
    for row in rows:
        gain = statistics.median(row.ratios("auto", "fp32"))
        if row.picked == "fp32":
            yield f"{row.model} at batch {row.batch}: auto kept fp32; the same graph measured twice: {gain:.2f}×"
        elif gain < 1:
            yield f"missed: {row.model} at batch {row.batch}: auto ({row.picked}) has {gain:.2f}× the speed of fp32"
        if row.model == TRANSFORMER:
            speed = statistics.median(row.ratios("auto", "eager"))
            word = "reached" if speed >= GOAL else "missed"
            yield f"{word}: {row.model} at batch {row.batch}: {speed:.2f}× PyTorch eager, goal {GOAL}×"


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"


def main() -> None:
    """Publish, serve, measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="recipes that come with Naiad, by comma")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
    recipes = [load_recipe(name) for name in options.models.split(",")]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True), transient=True) as progress:
        repository = Repository(Path(folder) / "models")
        task = progress.add_task("", total=len(recipes) * (1 + len(BATCHES)))
        tables, picked = {}, {}
        for recipe in recipes:
            progress.update(task, description=f"export {recipe.name}")
            picked[recipe.name], tables[recipe.name] = publish(recipe, repository)
            progress.advance(task)
        with EmbeddedTriton(repository.path, supervise=False) as triton:
            others = busy()
            for recipe in recipes:
                for batch in BATCHES:
                    progress.update(task, description=f"measure {recipe.name}, batch {batch}")
                    manifest = repository.manifest(f"{recipe.name}_fp32", 1)
                    inputs = inputs_of(recipe, [tensor["name"] for tensor in manifest["inputs"]], batch)
                    rows.append(measure(triton.grpc_url, recipe.name, inputs, picked[recipe.name], options.rounds))
                    progress.advance(task)
    report(rows, tables)
    print(f"Other work took {others:.0%} of the machine before the first round.")
    if options.json is not None:
        plain = {name: [asdict(result) for result in results] for name, results in tables.items()}
        options.json.write_text(
            json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows], "candidates": plain}, default=str)
        )


if __name__ == "__main__":
    main()

"""The search: make each candidate, verify it, time it in turns with fp32, and keep the fastest that passes."""

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from naiad.export._precision import judge as _judge
from naiad.export._precision.conversion import Conversion
from naiad.export._precision.converter import ConversionFailed, Converter
from naiad.export._runtime.place import PlaceOf, on_cpu
from naiad.export._runtime.session import session
from naiad.export._runtime.turns import Turns, in_turns
from naiad.export._verify.parity import Comparison

_LIKE_THE_FASTEST = 0.95
"""Of the candidates that reach this share of the best speed, the nearest to PyTorch is taken."""
_MOST_EXCLUDED = 0.5
"""Of the changed nodes; a candidate that needs more of them in fp32 is given up."""

_NO_BF16 = (
    "ONNX Runtime has no bf16 kernels on the CPU for what this graph computes, so that it cannot be verified here; "
    "export on a machine with a GPU (accelerator cuda), or have TensorRT compute in bf16 from the graph in fp32 "
    "(accelerator tensorrt)"
)
_LOOKS_FOR = {
    "fp32 fused": "attention that it could fuse",
    "fp16": "weights in fp32",
    "bf16": "weights in fp32",
    "int8 dynamic": "MatMul, Gemm or LSTM with constant weights",
    "int8 static": "convolution, MatMul or Gemm with constant weights",
    "int4 weights": "MatMul or Gemm with constant weights",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One candidate, as far as it came."""

    conversion: Conversion
    path: Path
    """Of its graph; removed when the candidate is refused."""
    num_changed: int = 0
    opset: int = 0
    ir_version: int = 0
    size_bytes: int = 0
    comparison: Comparison | None = None
    num_threads: int = 0
    baseline_threads: int = 0
    turns: Mapping[int, Turns] | None = None
    refused: str | None = None
    """Why it cannot be published at all."""
    no_gain: str | None = None
    """Why it is not worth publishing for its speed."""

    @property
    def error(self) -> float:
        """The largest relative error of an output; infinite for a graph that did not run."""
        if self.comparison is None or not self.comparison.parity:
            return math.inf
        return max(parity.max_rel_error for parity in self.comparison.parity)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """How the candidates of one graph are judged."""

    check: Callable[[Path, str], Comparison]
    """Compares a graph with PyTorch, within the tolerance of a precision."""
    feeds: Mapping[int, Mapping[str, Any]]
    """By batch size, what is timed; empty where the target cannot be timed here."""
    num_threads: Callable[[Path], int]
    """Those that the configuration of a graph will have."""
    level: int = 0
    """`optimization.graph.level` of the configuration."""
    place_of: PlaceOf = on_cpu
    """Where graphs of a precision are timed."""


def search(
    graph: Path, conversions: Iterable[Conversion], directory: Path, bench: Bench, on_step: Callable[[str], None]
) -> list[Trial]:
    """Return every candidate, refused or verified and timed, in the order of `conversions`.

    Raises:
        OSError: The disk is full.
    """
    trials: list[Trial] = []
    with Converter(graph, directory) as converter:
        for _, family in groupby(conversions, key=lambda conversion: conversion.family):
            trials += _Family(converter, directory, bench, on_step).try_all(list(family))
    num_threads = bench.num_threads(graph) if bench.feeds else 0
    return _confirmed([_timed(trial, graph, num_threads, bench, on_step) for trial in trials], graph, bench, on_step)


def as_they_are(
    graph: Path, conversions: Iterable[Conversion], bench: Bench, on_step: Callable[[str], None]
) -> list[Trial]:
    """Return trials of the graph as it is, which another runtime converts by itself: verified and timed."""
    trials = []
    for conversion in conversions:
        on_step(f"precision: {conversion}")
        compared = bench.check(graph, conversion.precision)
        trial = Trial(conversion=conversion, path=graph, comparison=compared, num_threads=1, baseline_threads=1)
        if compared.failure is not None:
            trials.append(replace(trial, refused=compared.failure.reason))
            continue
        on_step(f"precision: time {conversion}")
        turns = _turns(trial, graph, bench)
        trials.append(replace(trial, turns=turns, no_gain=_judge.why_not_faster(turns)))
    return trials


def fastest(trials: Iterable[Trial], *, allow_slower: bool = False) -> Trial | None:
    """Return the fastest trial that was not refused; among nearly equals the nearest to PyTorch."""
    passed = [trial for trial in trials if trial.refused is None and (allow_slower or trial.no_gain is None)]
    if not passed or any(trial.turns is None for trial in passed):
        return min(passed, key=lambda trial: trial.error, default=None)
    speeds = {id(trial): _judge.speed_up(trial.turns or {}) for trial in passed}
    near = [trial for trial in passed if speeds[id(trial)] >= _LIKE_THE_FASTEST * max(speeds.values())]
    return min(near, key=lambda trial: trial.error)


class _Family:
    """Candidates with the same operators, which differ in their calibration: the nearest to PyTorch stands for all."""

    def __init__(self, converter: Converter, directory: Path, bench: Bench, on_step: Callable[[str], None]) -> None:
        self._converter = converter
        self._directory = directory
        self._bench = bench
        self._on_step = on_step

    def try_all(self, conversions: Sequence[Conversion]) -> list[Trial]:
        trials = [self._try(conversion) for conversion in conversions]
        passed = [trial for trial in trials if trial.refused is None]
        if passed:
            best = min(passed, key=lambda trial: trial.error)
            return [trial if trial is best else _second_to(trial, best) for trial in trials]
        # What does not run, or overflows where this processor computes in fp32, is not found by its errors.
        failed = [trial for trial in trials if trial.comparison and _differs(trial.comparison)]
        if not failed:
            return trials
        nearest = min(failed, key=lambda trial: trial.error)
        return [*trials, self._with_exclusions(nearest)]

    def _try(self, conversion: Conversion) -> Trial:
        self._on_step(f"precision: {conversion}" + f", {len(conversion.excluded)} left out" * bool(conversion.excluded))
        slug = f"{conversion} {len(conversion.excluded)}".replace(" ", "-")
        trial = Trial(conversion=conversion, path=self._directory / slug / "model.onnx")
        try:
            made = self._converter.convert(conversion, trial.path)
        except ConversionFailed as exc:
            return _refused(trial, f"it cannot be made: {exc}")
        size = sum(file.stat().st_size for file in trial.path.parent.iterdir())
        trial = replace(trial, size_bytes=size, **made)
        if not trial.num_changed:
            return _refused(trial, f"no node was changed: the graph has no {_LOOKS_FOR[conversion.family]}")
        trial = replace(trial, comparison=self._bench.check(trial.path, conversion.precision))
        assert trial.comparison is not None
        failure = trial.comparison.failure
        if failure is None:
            return trial
        on_cpu_only = not self._bench.place_of(conversion.precision).on_gpu
        unsupported = failure.output is None and conversion.precision == "bf16" and on_cpu_only
        return replace(trial, refused=_NO_BF16 if unsupported else failure.reason)

    def _with_exclusions(self, worst: Trial) -> Trial:
        """Leave the nodes that add most to the error as they are, twice as many each time, until the rest passes."""
        try:
            ranking = self._converter.rank(worst.conversion, worst.path)
        except ConversionFailed as exc:
            return _refused(worst, f"{worst.refused}; which nodes spoil it could not be found: {exc}")
        most = min(len(ranking), max(1, int(worst.num_changed * _MOST_EXCLUDED)))
        count, left, trial = 1, 0, worst
        while count <= most:
            if trial is not worst:
                shutil.rmtree(trial.path.parent, ignore_errors=True)
            excluded = dict.fromkeys(name for names in ranking[:count] for name in names)
            trial = self._try(replace(worst.conversion, excluded=tuple(excluded)))
            if trial.refused is None:
                return trial
            count, left = 2 * count, count
        given_up = f", even with {left} of {worst.num_changed} nodes left in fp32" if left else ""
        return _refused(trial, f"{trial.refused}{given_up}")


def _differs(comparison: Comparison) -> bool:
    return comparison.failure is not None and comparison.failure.output is not None


def _second_to(trial: Trial, best: Trial) -> Trial:
    if trial.refused is not None:
        return trial
    method = best.conversion.method
    return _refused(trial, f"the same operators with {method} are nearer to PyTorch ({best.error:.2g})")


def _refused(trial: Trial, reason: str) -> Trial:
    shutil.rmtree(trial.path.parent, ignore_errors=True)
    return replace(trial, refused=reason)


def _timed(trial: Trial, graph: Path, num_threads: int, bench: Bench, on_step: Callable[[str], None]) -> Trial:
    if trial.refused is not None:
        shutil.rmtree(trial.path.parent, ignore_errors=True)
    if trial.refused is not None or not bench.feeds:
        return trial
    on_step(f"precision: time {trial.conversion}")
    trial = replace(trial, num_threads=bench.num_threads(trial.path), baseline_threads=num_threads)
    turns = _turns(trial, graph, bench)
    return replace(trial, turns=turns, no_gain=_judge.why_not_faster(turns))


def _confirmed(trials: list[Trial], graph: Path, bench: Bench, on_step: Callable[[str], None]) -> list[Trial]:
    """Time the fastest once more, and the next where it was luck: with many candidates the best has had some."""
    best = fastest(trials)
    while best is not None and best.turns is not None:
        on_step(f"precision: time {best.conversion} again")
        again = _turns(best, graph, bench)
        reason = _judge.why_not_faster(again)
        slower = min(again, best.turns, key=_judge.speed_up)
        changed = replace(best, turns=slower, no_gain=f"{reason}, when timed again" if reason else None)
        trials = [changed if trial is best else trial for trial in trials]
        if reason is None:
            break
        best = fastest(trials)
    return trials


def _turns(trial: Trial, graph: Path, bench: Bench) -> dict[int, Turns]:
    here, there = bench.place_of("fp32"), bench.place_of(trial.conversion.precision)
    return in_turns(
        session(graph, num_threads=trial.baseline_threads, level=bench.level, place=here),
        session(trial.path, num_threads=trial.num_threads, level=bench.level, place=there),
        bench.feeds,
    )

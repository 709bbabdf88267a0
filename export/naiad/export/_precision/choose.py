"""The precision step of an export: what was asked for, tried on the verified graph, and the graph to publish."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from naiad.export._capture.graph import Graph
from naiad.export._precision.conversion import Conversion, conversions
from naiad.export._precision.feeds import timed, write_calibration
from naiad.export._precision.results import results_of
from naiad.export._precision.search import Bench, Trial, as_they_are, fastest, search
from naiad.export._precision.served import Served
from naiad.export._runtime.place import PlaceOf, on_cpu
from naiad.export._source.samples import Samples
from naiad.export._verify.parity import Comparison
from naiad.export.errors import PrecisionRefused
from naiad.export.report import Finding, PrecisionResult

_BY_TENSORRT = ("fp16", "bf16")
"""What TensorRT makes of a graph in fp32 when it builds its engine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What was asked of this step."""

    model: str
    precision: str
    allow_slower: bool = False
    """Publish what passes even where it is not faster, for its size."""
    accelerator: str = "cpu"
    """What it is for: one for GPUs is timed on a GPU, or not at all."""
    place_of: PlaceOf = on_cpu
    """Where graphs of a precision are verified and timed."""

    @property
    def on_gpu(self) -> bool:
        """Whether candidates run on a GPU here."""
        return self.place_of("fp32").on_gpu

    @property
    def timed(self) -> bool:
        """Whether candidates are timed here."""
        return self.accelerator == "cpu" or self.on_gpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The graph to publish, with what was tried."""

    graph: Graph
    precision: str
    """That it is computed in."""
    comparison: Comparison
    results: tuple[PrecisionResult, ...] = ()
    findings: tuple[Finding, ...] = ()


def choose(
    graph: Graph,
    baseline: Comparison,
    samples: Samples,
    asked: Asked,
    *,
    check: Callable[[Path, str], Comparison],
    served: Served,
    directory: Path,
    on_step: Callable[[str], None],
) -> Choice:
    """Return the graph for the precision that was asked for; its files take the place of the verified ones.

    Args:
        graph: The verified graph.
        baseline: Its comparison with PyTorch.
        samples: For calibration and timing.
        asked: What was asked for.
        check: Compares a graph with PyTorch, within the tolerance of a precision.
        served: How the configuration will set up ONNX Runtime.
        directory: For the candidates, on the disk of the graph; it is made, and removed at the end.
        on_step: Called with the name of each step.

    Raises:
        PrecisionRefused: The precision was named, and no candidate passes or is faster.
        OSError: The disk is full.
    """
    converts_itself = asked.accelerator == "tensorrt" and asked.precision in (*_BY_TENSORRT, "auto")
    if converts_itself and not asked.on_gpu and asked.precision != "auto":
        note = _by_tensorrt(asked.precision)
        return Choice(graph=graph, precision=asked.precision, comparison=baseline, findings=(note,))
    feeds = timed(samples) if asked.timed else {}
    threads = _one_thread if asked.on_gpu else served.num_threads
    bench = Bench(check=check, feeds=feeds, num_threads=threads, level=served.level, place_of=asked.place_of)
    if converts_itself and asked.on_gpu:
        wanted = _BY_TENSORRT if asked.precision == "auto" else (asked.precision,)
        ways = [Conversion(precision=precision, method="by TensorRT") for precision in wanted]
        return _settle(graph, baseline, as_they_are(graph.path, ways, bench, on_step), asked)
    tried, hopeless = _split(asked, samples)
    if not tried and not hopeless:
        return Choice(graph=graph, precision="fp32", comparison=baseline)
    directory.mkdir()
    write_calibration(directory, samples)
    trials = [*search(graph.path, tried, directory, bench, on_step), *hopeless]
    choice = _settle(graph, baseline, trials, asked)
    shutil.rmtree(directory)
    return choice


def _settle(graph: Graph, baseline: Comparison, trials: list[Trial], asked: Asked) -> Choice:
    """Return the best of the trials, its files in the place of the verified graph's."""
    best = fastest(trials, allow_slower=asked.allow_slower and asked.precision != "auto")
    results = tuple(results_of(graph, baseline, trials, best, asked.place_of, timed=asked.timed))
    if best is None:
        if asked.precision != "auto":
            raise _refusal(asked, trials, results)
        return Choice(graph=graph, precision="fp32", comparison=baseline, results=results)
    published = graph if best.path == graph.path else _take(best, graph)
    assert best.comparison is not None
    return Choice(
        graph=published,
        precision=best.conversion.precision,
        comparison=best.comparison,
        results=results,
        findings=tuple(_findings(best)),
    )


def _split(asked: Asked, samples: Samples) -> tuple[list[Conversion], list[Trial]]:
    """Return what is tried, and what is refused without trying."""
    tried, hopeless = [], []
    for conversion in conversions(asked.precision):
        reason = _hopeless(conversion, asked, samples)
        if reason is None:
            tried.append(replace(conversion, symmetric=asked.accelerator == "tensorrt"))
        else:
            hopeless.append(Trial(conversion=conversion, path=Path(), refused=reason))
    return tried, hopeless


def _hopeless(conversion: Conversion, asked: Asked, samples: Samples) -> str | None:
    if asked.accelerator == "aoti":
        return "a model.pt2 keeps the types that the model has in PyTorch"
    if not asked.timed and asked.precision == "auto":
        return f"{asked.accelerator} is not on this machine, so that nothing can be timed"
    static = conversion.method.startswith("static")
    for_cpus = not (static and asked.accelerator == "tensorrt")
    if conversion.precision.startswith("int") and asked.accelerator != "cpu" and for_cpus:
        return "these integers are made for CPUs; GPUs gain with fp16, TensorRT with int8-static too"
    if static and samples.generated:
        return "its calibration needs real samples, and these were made up"
    return None


def _one_thread(path: Path) -> int:
    """Return the threads of a session whose work is the GPU's."""
    del path
    return 1


def _take(best: Trial, graph: Graph) -> Graph:
    """Put the candidate's files in the place of the verified graph's."""
    for file in graph.path.parent.glob(f"{graph.path.name}*"):
        file.unlink()
    for file in best.path.parent.iterdir():
        file.rename(graph.path.parent / file.name)
    return replace(graph, opset=best.opset, ir_version=best.ir_version)


def _by_tensorrt(precision: str) -> Finding:
    message = f"the graph stays in fp32, and TensorRT computes in {precision} by its own choice of layers: not measured"
    return Finding(check="precision", message=message)


def _findings(best: Trial) -> Iterator[Finding]:
    if best.conversion.excluded:
        yield Finding(
            check="precision",
            message=f"{len(best.conversion.excluded)} nodes stay in fp32, because {best.conversion} spoils them: "
            f"{', '.join(best.conversion.excluded)}",
        )
    if best.conversion.family == "int8 dynamic":
        message = (
            "activations are rounded by the largest of a batch, so that a row's answer varies a little with others"
        )
        yield Finding(check="precision", message=message)


def _refusal(asked: Asked, trials: Iterable[Trial], results: tuple[PrecisionResult, ...]) -> PrecisionRefused:
    reasons = [f"{trial.conversion}: {trial.refused or trial.no_gain}" for trial in trials]
    slower = any(trial.refused is None for trial in trials)
    advice = "publish it all the same with allow_slower (--allow-slower), or " if slower else ""
    return PrecisionRefused(
        f"{asked.model} in {asked.precision} is refused, and nothing was published: {'; '.join(reasons)}; {advice}keep "
        "fp32, which passed",
        model=asked.model,
        precision=asked.precision,
        results=results,
    )

"""What an export measured and found: the part of `manifest.json` that people read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from naiad.export.errors import InvalidExport, RepositoryError


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """How far ONNX Runtime may be from PyTorch: `|a - b| <= atol * max|b| + rtol * |b|`, with b from PyTorch.

    The defaults are those of fp32; `Tolerance.of(precision)` has the others.
    """

    rtol: float = 1e-3
    """Relative to each expected value."""
    atol: float = 1e-4
    """Relative to the largest magnitude of the expected output, over all cases."""
    cosine: float = 0.9999
    """The least cosine similarity of a row of an output with PyTorch's; -1 for any."""
    outputs: Mapping[str, "Tolerance"] = field(default_factory=dict)
    """Other tolerances for single outputs, by name."""

    def __post_init__(self) -> None:
        if not (0 <= self.rtol < 1 and 0 <= self.atol < 1):
            raise InvalidExport(f"a tolerance is at least 0 and below 1; found rtol={self.rtol}, atol={self.atol}")
        if not -1 <= self.cosine <= 1:
            raise InvalidExport(f"the least cosine similarity is from -1 to 1; found cosine={self.cosine}")

    def for_output(self, name: str) -> "Tolerance":
        """Return the tolerance of one output."""
        return self.outputs.get(name, self)

    @classmethod
    def of(cls, precision: str) -> "Tolerance":
        """Return the default for a precision, such as "fp16" or "int8-static"; `docs/why.md` derives them."""
        return _TOLERANCES.get(precision.replace("_", "-").partition("-")[0], _TOLERANCES["fp32"])


_TOLERANCES = {
    "fp32": Tolerance(),
    "fp16": Tolerance(rtol=1e-2, atol=1e-2, cosine=0.999),
    "bf16": Tolerance(rtol=5e-2, atol=5e-2, cosine=0.99),
    "int8": Tolerance(rtol=1e-1, atol=1e-1, cosine=0.99),
    "int4": Tolerance(rtol=2e-1, atol=2e-1, cosine=0.98),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One observation of the checks that did not stop the export."""

    check: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputParity:
    """The largest difference between ONNX Runtime and PyTorch in one output, over all verified cases."""

    output: str
    max_abs_error: float
    max_rel_error: float
    """The largest absolute error divided by the output's largest magnitude over all cases; for integers, the share of
    values that differ."""
    worst_batch: int
    cosine: float | None = None
    """The least cosine similarity of a row; None where a direction means nothing (integers, single values)."""
    worst_sizes: str = ""
    """The sizes of the case with the largest error, as in `batch 3, length 12`."""
    worst_sample: str = ""
    """The sample and the row with the largest error, as in `sample 0, row 2`."""
    num_near_ties: int = 0
    """Integer or boolean values that differ because two scores, or a value and a threshold, are nearly equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseParity:
    """One output of one verified case."""

    output: str
    sizes: str
    """As in `batch 3, length 12`."""
    sample: str = ""
    """Where its first row is from, as in `sample 0, row 8`."""
    max_abs_error: float
    max_rel_error: float
    cosine: float | None = None
    passed: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """Where a refused graph first differs from what it should give."""

    cause: str
    """`capture` (PyTorch's exported program already differs from the model), `conversion` (PyTorch's program is right
    and the ONNX node is not), `optimiser` (the graph is right until ONNX Runtime optimises it), `precision`, or
    `provider` (the graph is right on the CPU and not on the GPU)."""
    tensor: str
    """The first tensor that differs."""
    node: str
    """The node that gives it."""
    operator: str
    """Its type, such as `Conv`; for `capture` PyTorch's operator."""
    module: str = ""
    """The path of the PyTorch module it comes from, such as `encoder.layers.3.norm`."""
    source: str = ""
    """The line of the model it comes from, such as `model.py:41`."""
    detail: str = ""
    """What is wrong there and what follows from it, in words."""

    def __str__(self) -> str:
        module = f" in {self.module}" if self.module else ""
        source = f" ({self.source})" if self.source else ""
        return (
            f"the first tensor that differs is {self.tensor!r} of the {self.operator} node "
            f"{self.node!r}{module}{source}: {self.detail}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricResult:
    """A task metric of the recipe, computed with PyTorch and with the published file in ONNX Runtime."""

    name: str
    pytorch: float
    candidate: float
    limit: str
    """What was allowed, as it was written: `max drop 0.5%` (of PyTorch's value), or `max rise 0.005` (in its unit)."""
    change: float
    """The candidate's value minus PyTorch's."""
    passed: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLatency:
    """The median time of one batch in ONNX Runtime, on one thread of the exporting machine or on its GPU."""

    batch: int
    median_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One field of the configuration that was derived from what was measured."""

    field: str
    value: str
    """In words."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionLatency:
    """One batch size of a candidate, timed in turns with fp32 on the exporting machine."""

    batch: int
    median_ms: float
    spread_ms: float
    """Between the quartiles of the rounds."""
    rows_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionResult:
    """One candidate of the precision step: verified, timed, and chosen or refused."""

    precision: str
    method: str = ""
    """As in `dynamic` or `static entropy`; empty where there is only one."""
    chosen: bool = False
    refused: str | None = None
    """Why it was not published, with the numbers; None for the chosen one, and where another was preferred."""
    num_changed: int = 0
    """Nodes that compute in another type than the model's own."""
    left_in_fp32: tuple[str, ...] = ()
    """Nodes that were left as they are, because they would have spoilt the answers."""
    size_bytes: int = 0
    """Of the graph with its weights; 0 where none could be made."""
    parity: tuple[OutputParity, ...] = ()
    """The largest difference of each output from PyTorch; empty where the graph did not run."""
    latency: tuple[PrecisionLatency, ...] = ()
    """By batch size; empty where it was not timed."""
    num_threads: int = 0
    """What it was timed with, as the configuration has it; 0 for all cores."""
    speed_up: float | None = None
    """How many times faster than fp32: the geometric mean over batch sizes; None where it was not timed."""
    metric: MetricResult | None = None
    """The task metric, where one was asked for and the outputs were within their tolerance."""
    verified_on: str = ""
    """As in `ONNX Runtime's CUDA provider on NVIDIA H200`; empty where it did not run."""
    timed_on: str = ""
    """The same, or why it was not timed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsSummary:
    """The weights of one type in a graph."""

    dtype: str
    """As ONNX names it: FLOAT, INT64, …"""
    num_tensors: int
    num_elements: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphSummary:
    """What the published graph is made of, and what made it."""

    exporter: str
    """`dynamo`, `legacy`, or `copy` of an existing file."""
    reason: str
    """Why that exporter, where it was not the first choice."""
    opset: int
    ir_version: int
    inputs: dict[str, str]
    """Type and dimensions by name, as in `FLOAT [batch, 4]`."""
    outputs: dict[str, str]
    dynamic: tuple[str, ...]
    """The names of the dimensions of inputs that vary."""
    num_nodes: int
    operators: dict[str, int]
    """How many nodes there are of each operator, the most frequent first."""
    num_parameters: int
    """Elements of all weights."""
    weights: tuple[WeightsSummary, ...]
    """By type, the largest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one export found: parity, latency, findings and the size of the graph."""

    batches: tuple[int, ...]
    """The batch sizes that were compared with PyTorch."""
    num_cases: int
    """Comparisons in all, over batch sizes, samples and other dynamic dimensions."""
    parity: tuple[OutputParity, ...]
    latency: tuple[BatchLatency, ...]
    findings: tuple[Finding, ...]
    size_bytes: int
    """Of the ONNX graph with its weights."""
    cases: tuple[CaseParity, ...] = ()
    """Every comparison, by output and case."""
    left_out: tuple[str, ...] = ()
    """What the verification left out to stay within its time and memory, one sentence each."""
    tolerance: Tolerance = field(default_factory=Tolerance)
    """What the outputs had to be within."""
    metric: MetricResult | None = None
    """The task metric, where one was asked for."""
    precision: tuple[PrecisionResult, ...] = ()
    """Every candidate that was tried, fp32 first; empty where fp32 was asked for."""
    choices: tuple[Choice, ...] = ()
    """What of the configuration was derived, and why."""
    not_measured: tuple[str, ...] = ()
    """What could not be run on the exporting machine, one phrase each."""
    verified_on: str = ""
    """Where the published file was compared, as in `ONNX Runtime's CUDA provider on NVIDIA H200`."""
    timed_on: str = ""
    """Where `latency` was measured."""
    graph: GraphSummary | None = None
    """None for a version of an older Naiad, and for what is no graph."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Report":
        """Build a report from what `to_dict` gave."""
        return cls(
            batches=tuple(values["batches"]),
            num_cases=values["num_cases"],
            parity=_items(OutputParity, values, "parity"),
            latency=_items(BatchLatency, values, "latency"),
            findings=_items(Finding, values, "findings"),
            size_bytes=values["size_bytes"],
            cases=_items(CaseParity, values, "cases"),
            left_out=tuple(values.get("left_out", ())),
            tolerance=_tolerance(values.get("tolerance") or {}),
            precision=tuple(map(_precision_result, values.get("precision") or ())),
            metric=MetricResult(**_known(MetricResult, values["metric"])) if values.get("metric") else None,
            choices=_items(Choice, values, "choices"),
            not_measured=tuple(values.get("not_measured", ())),
            verified_on=values.get("verified_on", ""),
            timed_on=values.get("timed_on", ""),
            graph=_graph(values["graph"]) if values.get("graph") else None,
        )


def _graph(values: dict[str, Any]) -> GraphSummary:
    known = _known(GraphSummary, values)
    return GraphSummary(
        **known | {"dynamic": tuple(known["dynamic"]), "weights": _items(WeightsSummary, values, "weights")}
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One published version of a model."""

    model: str
    number: int
    location: str
    """The path or URL of its directory, `<repository>/<model>/<number>`."""
    report: Report | None
    """None for a version that was not published by an export."""

    @property
    def path(self) -> Path:
        """The version's directory.

        Raises:
            RepositoryError: It is in a bucket; `Repository.files` gives a directory with its files.
        """
        if "://" in self.location:
            raise RepositoryError(
                f"{self.location} is not a directory; Repository.files() gives one with a version's files",
                model=self.model,
                version=self.number,
            )
        return Path(self.location)


def _items(cls: Any, values: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """Build the results under `key`; what another release of Naiad wrote more or less of is left out or defaulted."""
    return tuple(cls(**_known(cls, item)) for item in values.get(key) or ())


def _known(cls: Any, item: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(cls)}
    return {name: value for name, value in item.items() if name in names}


def _tolerance(values: Mapping[str, Any]) -> Tolerance:
    outputs = {name: _tolerance(item) for name, item in (values.get("outputs") or {}).items()}
    return Tolerance(**(_known(Tolerance, values) | {"outputs": outputs}))


LintEffect = Literal[
    "stops the server",
    "does not load",
    "does not load on a GPU",
    "served wrongly",
    "needs a GPU",
    "not with naiad serve",
    "advice",
]
"""What follows from a lint finding; the first four are errors, the others warnings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LintFinding:
    """One of Triton's load rules that an entry of a model repository breaks, or a trap in it."""

    rule: str
    effect: LintEffect
    model: str
    """The model's directory; empty for the repository itself."""
    file: str
    """Relative to the model's directory, such as `config.pbtxt` or `1/model.onnx`."""
    field: str
    """The field of the configuration, such as `input.x.dims`; empty where the whole file is meant."""
    message: str
    """What was expected and what was found."""
    fix: str
    """What to do."""

    @property
    def severity(self) -> Literal["error", "warning"]:
        """An error would not load, or would be served wrongly."""
        return "warning" if self.effect in ("needs a GPU", "not with naiad serve", "advice") else "error"

    def __str__(self) -> str:
        place = "/".join(filter(None, (self.model, self.file)))
        return f"{', '.join(filter(None, (place, self.field)))}: {self.message}; {self.fix}"

    def to_dict(self) -> dict[str, str]:
        """Return the finding as plain values for JSON."""
        return {"severity": self.severity, **asdict(self)}


def _precision_result(values: Mapping[str, Any]) -> PrecisionResult:
    nested = {"parity": _items(OutputParity, values, "parity"), "latency": _items(PrecisionLatency, values, "latency")}
    metric = MetricResult(**_known(MetricResult, values["metric"])) if values.get("metric") else None
    left = {"left_in_fp32": tuple(values.get("left_in_fp32") or ()), "metric": metric}
    return PrecisionResult(**(_known(PrecisionResult, values) | nested | left))

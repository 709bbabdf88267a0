"""What an export measured and found: the part of `manifest.json` that people read."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from naiad.export.errors import InvalidExport


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """How far ONNX Runtime may be from PyTorch: `|a - b| <= atol * max|b| + rtol * |b|`, with b from PyTorch."""

    rtol: float = 1e-3
    """Relative to each expected value."""
    atol: float = 1e-4
    """Relative to the largest magnitude of the expected output."""

    def __post_init__(self) -> None:
        if not (0 <= self.rtol < 1 and 0 <= self.atol < 1):
            raise InvalidExport(f"a tolerance is at least 0 and below 1; found rtol={self.rtol}, atol={self.atol}")


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
    """The largest absolute error divided by the largest magnitude of the expected output, per case."""
    worst_batch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLatency:
    """The median time of one batch in ONNX Runtime on one thread of the exporting machine."""

    batch: int
    median_ms: float


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

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Report":
        """Build a report from what `to_dict` gave."""
        return cls(
            batches=tuple(values["batches"]),
            num_cases=values["num_cases"],
            parity=tuple(OutputParity(**item) for item in values["parity"]),
            latency=tuple(BatchLatency(**item) for item in values["latency"]),
            findings=tuple(Finding(**item) for item in values["findings"]),
            size_bytes=values["size_bytes"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One published version of a model."""

    model: str
    number: int
    path: Path
    """The version's directory, `<repository>/<model>/<number>`."""
    report: Report | None
    """None for a version that was not published by an export."""

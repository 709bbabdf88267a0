"""What an export was asked for, and what it holds between its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from naiad.export._capture.graph import Graph
from naiad.export._check.targets import Target, find_target
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Dynamic, Samples
from naiad.export._source.subject import Subject
from naiad.export._verify.metric import Metric
from naiad.export._verify.tolerances import Tolerances
from naiad.export.inputs import Input
from naiad.export.report import Finding


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What was asked for."""

    model: str
    samples: Sequence[Any] | None
    dynamic: Dynamic | None
    max_batch_size: int | None
    outputs: tuple[str, ...] | None
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None
    settings: Mapping[str, object]
    tolerances: Tolerances
    precision: str
    opset: int
    target: Target = field(default_factory=find_target)
    allow_slower: bool = False
    exporter: str = "auto"
    inputs: Mapping[str, Input] = field(default_factory=dict)
    trust_pickle: bool = False
    source: Mapping[str, object] = field(default_factory=dict)
    cores: int | None = None
    accelerator: str = "cpu"
    device: str = "auto"
    """As it was asked for; `naiad.export._device.resolve` says which one that is."""
    states: Mapping[str, str] = field(default_factory=dict)
    metric: Metric | None = None
    known: dict[str, Any] = field(default_factory=dict)
    """What is known so far, as in the manifest: for the page of an export that is refused later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Captured:
    """A graph with the answers it must give."""

    subject: Subject
    samples: Samples
    answers: tuple[Answer, ...]
    graph: Graph
    findings: tuple[Finding, ...]
    precision: str = "fp32"
    metric: float = 0.0
    """The task metric of the subject itself, where one was asked for."""
    left_out: tuple[str, ...] = ()
    """What was not compared, to stay within time and memory."""

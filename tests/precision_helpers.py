"""Small nets for the tests of precision, and their candidates made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from naiad.export import Tolerance, export
from naiad.export._capture.graph import Graph
from naiad.export._precision import choose as step
from naiad.export._precision.choose import Choice
from naiad.export._precision.conversion import Conversion
from naiad.export._precision.converter import Converter
from naiad.export._precision.feeds import write_calibration
from naiad.export._precision.served import Served
from naiad.export._source import reference
from naiad.export._source.samples import Samples
from naiad.export._source.subject import bind, open_subject
from naiad.export._verify.gate import Gate
from naiad.export._verify.tolerances import Tolerances

MAX_BATCH_SIZE = 8


class Encoder(nn.Module):
    """A transformer encoder whose padding is masked with minus infinity: ids and mask to [batch, width]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.table = nn.Embedding(50, width)
            layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, activation="gelu")
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.encoder(self.table(ids), src_key_padding_mask=mask == 0)
        weights = mask.unsqueeze(-1).float()
        return (states * weights).sum(1) / weights.sum(1)


class Recurrent(nn.Module):
    """An LSTM and a linear layer: [batch, 10, 8] to [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.lstm = nn.LSTM(8, 16, batch_first=True)
            self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class OnlyConvolutions(nn.Module):
    """Nothing that a quantiser of MatMul could change."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).mean((2, 3))


class Spoilt(nn.Module):
    """Five linear layers, the third of which reads a few values that are thousands of times larger than the rest."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.ModuleList(
                [nn.Linear(64, 256), *(nn.Linear(256, 256) for _ in range(3)), nn.Linear(256, 8)]
            )
            with torch.no_grad():
                self.layers[1].weight[:4] *= 2000
                self.layers[2].weight[:, :4] /= 2000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third, fourth, last = self.layers
        return last(torch.tanh(fourth(torch.tanh(third(second(torch.tanh(first(x))))))))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return reproducible numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sentences() -> dict[str, torch.Tensor]:
    """Return sixteen made-up sentences, some of them short."""
    ids = torch.randint(0, 50, (16, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(16, 12, dtype=torch.int64)
    mask[::3, 7:] = 0
    return {"ids": ids, "mask": mask}


@dataclass(frozen=True, kw_only=True)
class Net:
    """A model that was published in fp32."""

    model: nn.Module
    sample: dict[str, torch.Tensor]
    dynamic: dict[str, dict[int, str]] | None
    path: Path
    """Of the version."""

    @property
    def graph(self) -> Path:
        return self.path / "model.onnx"

    @property
    def inputs(self) -> dict[str, np.ndarray[Any, Any]]:
        return {name: tensor.numpy() for name, tensor in self.sample.items()}

    def gate(self, directory: Path, tolerance: Tolerance | None = None) -> Gate:
        """Return what a copy of the graph in `directory` has to be equal to."""
        subject = open_subject(self.model)
        samples = bind(subject, [self.sample], self.dynamic, MAX_BATCH_SIZE)
        with subject.evaluating():
            answers = reference.answers(subject, samples)
        directory.mkdir()
        shutil.copy(self.graph, directory)
        graph = Graph(
            path=directory / self.graph.name,
            inputs={},
            outputs={},
            ranges={},
            unused=(),
            opset=20,
            ir_version=10,
            exporter="dynamo",
            versions={},
        )
        tolerances = Tolerances(given=tolerance)
        return Gate(model="net", subject=subject, graph=graph, samples=samples, answers=answers, tolerances=tolerances)


def publish(
    model: nn.Module, sample: dict[str, torch.Tensor], directory: Path, dynamic: dict[str, dict[int, str]] | None = None
) -> Net:
    """Publish a model in fp32."""
    version = export(
        model.eval(),
        "net",
        samples=[sample],
        repository=directory / "models",
        max_batch_size=MAX_BATCH_SIZE,
        dynamic=dynamic,
    )
    return Net(model=model, sample=sample, dynamic=dynamic, path=version.path)


def choose(
    net: Net,
    directory: Path,
    precision: str,
    *,
    tolerance: Tolerance | None = None,
    on_step: Callable[[str], object] = len,
    **asked: Any,
) -> tuple[Choice, Path]:
    """Run the precision step on a copy of a published graph; return the choice and the directory of its files."""
    gate = net.gate(directory / "files", tolerance)
    served = Served(samples=gate.samples, answers=gate.answers, fixed_threads=1, level=0, cores=None)
    choice = step.choose(
        gate.graph,
        gate.check(gate.graph.path, "fp32"),
        gate.samples,
        step.Asked(model="net", precision=precision, **asked),
        check=gate.check,
        served=served,
        directory=directory / "precision",
        on_step=on_step,
    )
    assert not (directory / "precision").exists()
    return choice, gate.graph.path.parent


@dataclass
class Candidates:
    """The candidates of one published model, each made when it is first asked for."""

    source: Path
    directory: Path
    inputs: dict[str, np.ndarray[Any, Any]]
    converter: Converter
    made: dict[Conversion, tuple[Path, dict[str, Any]]] = field(default_factory=dict)

    def path(self, precision: str, method: str = "", excluded: Sequence[str] = ()) -> Path:
        """Return the file of a candidate."""
        return self._make(precision, method, excluded)[0]

    def facts(self, precision: str, method: str = "", excluded: Sequence[str] = ()) -> dict[str, Any]:
        """Return what the converter said of a candidate."""
        return self._make(precision, method, excluded)[1]

    def operators(self, precision: str, method: str = "") -> list[tuple[str, str]]:
        """Return domain and type of every node."""
        return [(node.domain, node.op_type) for node in onnx.load(self.path(precision, method)).graph.node]

    def error(self, path: Path) -> float:
        """Return the largest error of an output against the source, relative to the largest value."""
        expected, actual = answers(self.source, self.inputs), answers(path, self.inputs)
        return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(actual, expected, strict=True))

    def _make(self, precision: str, method: str, excluded: Sequence[str]) -> tuple[Path, dict[str, Any]]:
        conversion = Conversion(precision=precision, method=method, excluded=tuple(excluded))
        if conversion not in self.made:
            target = self.directory / str(len(self.made)) / "model.onnx"
            self.made[conversion] = target, self.converter.convert(conversion, target)
        return self.made[conversion]


def candidates(net: Net, directory: Path) -> Candidates:
    """Return what makes the candidates of a net; close its converter at the end."""
    write_calibration(directory, Samples(rows=(net.inputs,), dynamic={}, batch="batch", max_batch_size=MAX_BATCH_SIZE))
    return Candidates(net.graph, directory, net.inputs, Converter(net.graph, directory))


def answers(path: Path, inputs: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """Return ONNX Runtime's answer of a graph."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray[Any, Any]] = session.run(None, inputs)
    return outputs

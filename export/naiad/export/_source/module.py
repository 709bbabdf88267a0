"""An `nn.Module` as the subject of an export."""

import contextlib
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from naiad.export._source import outputs as _outputs
from naiad.export._source.arguments import Arguments, bind
from naiad.export._source.checkpoint import sha256
from naiad.export._source.generate import Ranges
from naiad.export._source.samples import Dynamic, Inputs
from naiad.export.errors import InvalidExport
from naiad.export.inputs import Input
from naiad.export.report import Finding

_DIFFER_IN_TRAINING = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._NormBase)


class ModuleSubject:
    """A module, run in eval mode and left as it was."""

    reference = "PyTorch"

    def __init__(
        self, model: torch.nn.Module, outputs: Sequence[str] | None = None, *, file: Path | None = None
    ) -> None:
        self.model = _unwrapped(model)
        self.label = getattr(self.model, "original_name", type(self.model).__name__)
        self.arguments: Arguments
        self._outputs = outputs
        self._file = file

    def bind(self, samples: Sequence[Any]) -> tuple[Inputs, ...]:
        """Bind tuples and dicts to `forward`."""
        self.arguments, rows = bind(_signature(self.model), samples)
        if isinstance(self.model, torch.jit.ScriptModule) and not self.arguments.plain:
            raise InvalidExport(
                f"{self.label} is a ScriptModule; its inputs must be tensors, found {samples[0]!r:.200}"
            )
        return rows

    def inputs(self) -> dict[str, Input]:
        """Return none: a module says nothing of its inputs."""
        return {}

    def ranges(self) -> Ranges:
        """Return none: a module says nothing of its sizes."""
        return {}

    def batched(self) -> bool:
        """Return True: a module says nothing else."""
        return True

    def dynamic(self, rows: tuple[Inputs, ...], max_batch_size: int) -> Dynamic:
        """Return the batch as the first dimension of every input."""
        return {name: {0: "batch"} for name in rows[0]} if max_batch_size else {}

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[bool]:
        """Put every part of the model in eval mode, restore each afterwards, and say whether that changes answers."""
        training = [module for module in self.model.modules() if module.training]
        differs = any(isinstance(module, _DIFFER_IN_TRAINING) for module in training)
        self.model.eval()
        try:
            with torch.no_grad():
                yield differs
        finally:
            for module in training:
                module.training = True

    def run(self, inputs: Inputs) -> Inputs:
        """Call the model."""
        answer = self.arguments.call(self.model, self.arguments.tensors(inputs))
        return _outputs.named(answer, self._outputs, self.arguments.names)

    def captured(self) -> torch.nn.Module:
        """Return what the capture process exports: the model, or the model with flat arguments."""
        return self.model if self.arguments.plain else self.flat()

    def flat(self) -> "Flat":
        """Return the model with flat arguments."""
        return Flat(self.model, self.arguments)

    def describe(self) -> dict[str, Any]:
        """Return the class and the hash of the weights."""
        file = {"file": self._file.name, "sha256": sha256(self._file)} if self._file else {}
        return {
            **file,
            "class": f"{type(self.model).__module__}.{type(self.model).__qualname__}",
            "weights_sha256": weights_sha256(self.model.state_dict()),
        }

    def findings(self) -> tuple[Finding, ...]:
        """Name the arguments that became constants."""
        return constants(self.arguments)


class Flat(torch.nn.Module):
    """A model that takes its tensors one after the other, as a graph does."""

    def __init__(self, model: torch.nn.Module, arguments: Arguments) -> None:
        super().__init__()
        self.model = model
        self._arguments = arguments
        self.eval()

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Call the model with the tensors where they belong."""
        return self._arguments.call(self.model, tensors)


def constants(arguments: Arguments) -> tuple[Finding, ...]:
    """Name the arguments that became constants of the graph."""
    return tuple(
        Finding(
            check="constant",
            message=f"argument {name!r} is {value!r} in every sample and a constant of the graph: clients cannot set "
            "it; pass a tensor to make it an input",
        )
        for name, value in arguments.constants.items()
    )


def weights_sha256(state: dict[str, Any]) -> str:
    """Return the hash of all parameters and buffers with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _signature(model: torch.nn.Module) -> inspect.Signature:
    if not isinstance(model, torch.jit.ScriptModule):
        return inspect.signature(model.forward)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [
            inspect.Parameter(
                argument.name,
                kind,
                default=argument.default_value if argument.has_default_value() else inspect.Parameter.empty,
            )
            for argument in cast(Any, model.forward).schema.arguments[1:]
        ]
    )


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the module inside torch.compile() and the parallel wrappers, whose forward() has no names."""
    if type(model).__name__ == "OptimizedModule":
        return _unwrapped(cast(torch.nn.Module, model._orig_mod))
    if isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return _unwrapped(model.module)
    return model

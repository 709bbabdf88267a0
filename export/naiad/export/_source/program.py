"""An `ExportedProgram`, or the `.pt2` file of one, as the subject of an export."""

import contextlib
import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument
from torch.utils import _pytree as pytree

from naiad.export._source import outputs as _outputs
from naiad.export._source.archive import needs_trust
from naiad.export._source.arguments import Arguments, bind
from naiad.export._source.checkpoint import sha256
from naiad.export._source.generate import Ranges
from naiad.export._source.module import constants, weights_sha256
from naiad.export._source.samples import Dynamic, Inputs
from naiad.export.errors import InvalidExport
from naiad.export.inputs import Input
from naiad.export.report import Finding

Program = torch.export.ExportedProgram

_TRAINING = {"dropout": 2, "feature_dropout": 2, "native_dropout": 2, "alpha_dropout": 2, "batch_norm": 5}
"""Operators that differ in train mode, with the place of the argument that says so."""


class ProgramSubject:
    """A program that PyTorch exported before; its dimensions vary as they were declared then."""

    reference = "PyTorch"

    def __init__(
        self,
        program: Program,
        outputs: Sequence[str] | None = None,
        *,
        label: str = "ExportedProgram",
        digest: str | None = None,
    ) -> None:
        self.program = program
        self.label = label
        self.arguments: Arguments
        self._module = program.module()
        self._outputs = outputs
        self._digest = digest

    def bind(self, samples: Sequence[Any]) -> tuple[Inputs, ...]:
        """Bind tuples and dicts to the arguments that the program was exported with."""
        self._refuse_training()
        self.arguments, rows = bind(self._signature(), samples)
        expected = self._tensors()
        if len(expected) != len(self.arguments.names):
            raise InvalidExport(
                f"{self.label} takes {len(expected)} tensors ({', '.join(node.name for node in expected)}); the "
                f"samples have {len(self.arguments.names)} ({', '.join(self.arguments.names)})"
            )
        for name, node in zip(self.arguments.names, expected, strict=True):
            self._check(name, node.meta["val"], rows)
        return rows

    def dynamic(self, rows: tuple[Inputs, ...], max_batch_size: int) -> Dynamic:
        """Return the dimensions that the program leaves open; the first of all inputs is the batch."""
        del rows
        names: dict[str, str] = {}
        found: dict[str, dict[int, str]] = {}
        for name, node in zip(self.arguments.names, self._tensors(), strict=True):
            for axis, size in enumerate(node.meta["val"].shape):
                if not isinstance(size, int):
                    default = "batch" if axis == 0 and max_batch_size else f"{name}_{axis}"
                    found.setdefault(name, {})[axis] = names.setdefault(_symbol(self.label, name, size), default)
        return found

    def batched(self) -> bool:
        """Whether the first dimension of every input is open."""
        shapes = [node.meta["val"].shape for node in self._tensors()]
        return all(len(shape) > 0 and not isinstance(shape[0], int) for shape in shapes)

    def inputs(self) -> dict[str, Input]:
        """Return what the program declares of each argument."""
        names = [name for name in self._signature().parameters if name not in self._constants()]
        nodes = self._tensors()
        if len(names) != len(nodes):
            raise InvalidExport(f"{self.label} takes nested inputs; give samples, which cannot be made up for these")
        return {name: self._input(name, node) for name, node in zip(names, nodes, strict=True)}

    def ranges(self) -> Ranges:
        """Return the sizes for which the program was exported."""
        found = {}
        for name, node in zip(self.inputs(), self._tensors(), strict=True):
            for axis, size in enumerate(node.meta["val"].shape):
                if not isinstance(size, int):
                    limits = self.program.range_constraints.get(size.node.expr)
                    low, high = (limits.lower, limits.upper) if limits is not None else (2, None)
                    found[_open(name, axis)] = (max(int(str(low)), 1), int(str(high)) if str(high).isdigit() else None)
        return found

    def evaluating(self) -> contextlib.AbstractContextManager[bool]:
        """Run it without gradients; an exported program has no modes."""
        return _without_gradients()

    def run(self, inputs: Inputs) -> Inputs:
        """Call the program."""
        answer = self.arguments.call(self._module, self.arguments.tensors(inputs))
        return _outputs.named(answer, self._outputs, self.arguments.names)

    def describe(self) -> dict[str, Any]:
        """Return the hash of the weights, and of the file where there is one."""
        file = {"file": self.label, "sha256": self._digest} if self._digest else {}
        return {
            "class": "torch.export.ExportedProgram",
            **file,
            "weights_sha256": weights_sha256(self.program.state_dict),
        }

    def findings(self) -> tuple[Finding, ...]:
        """Name the arguments that are constants."""
        return constants(self.arguments)

    def _constants(self) -> set[str]:
        return {
            spec.arg.name for spec in self.program.graph_signature.input_specs if isinstance(spec.arg, ConstantArgument)
        }

    def _input(self, name: str, node: Any) -> Input:
        declared = node.meta["val"]
        shape = [size if isinstance(size, int) else _open(name, axis) for axis, size in enumerate(declared.shape)]
        rows = [
            user.args[0].meta["val"].shape[0]
            for user in node.users
            if str(user.target).startswith("aten.embedding") and user.args[1] is node
        ]
        low, high = (0, min(rows) - 1) if rows else (None, None)
        return Input(dtype=str(declared.dtype).removeprefix("torch."), shape=shape, low=low, high=high)

    def _refuse_training(self) -> None:
        for node in self.program.graph.nodes:
            name = str(node.target).removeprefix("aten.").removesuffix(".default")
            place = _TRAINING.get(name)
            if place is not None and len(node.args) > place and node.args[place] is True:
                raise InvalidExport(
                    f"{self.label} was exported in train mode: {name} is random or depends on the batch there; call "
                    "model.eval() and export the program again"
                )

    def _signature(self) -> inspect.Signature:
        """Return the program's arguments; those that became constants need not be given."""
        signature = inspect.signature(self._module.forward)
        spec = self.program.call_spec.in_spec
        args, _ = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
        parameters = []
        for index, parameter in enumerate(signature.parameters.values()):
            kind = parameter.POSITIONAL_OR_KEYWORD if index < len(args) else parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(kind=kind))
        return signature.replace(parameters=parameters)

    def _tensors(self) -> list[Any]:
        """Return the nodes of the tensors among the arguments, in order."""
        nodes = {node.name: node for node in self.program.graph.nodes}
        return [nodes[name] for name in self.program.graph_signature.user_inputs if isinstance(name, str)]

    def _check(self, name: str, declared: torch.Tensor, rows: tuple[Inputs, ...]) -> None:
        for index, row in enumerate(rows):
            array = row[name]
            fits = len(array.shape) == len(declared.shape) and all(
                not isinstance(size, int) or size == actual
                for size, actual in zip(declared.shape, array.shape, strict=True)
            )
            dtype = str(declared.dtype).removeprefix("torch.")
            if not fits or array.dtype.name != dtype:
                shape = [size if isinstance(size, int) else "any" for size in declared.shape]
                raise InvalidExport(
                    f"input {name!r} of sample {index} is {array.dtype} {list(array.shape)}; {self.label} was exported "
                    f"for {dtype} {shape}: give samples of that shape, or export the program again with "
                    "dynamic_shapes"
                )


def load(
    path: str | os.PathLike[str], outputs: Sequence[str] | None = None, *, trust_pickle: bool = False
) -> ProgramSubject:
    """Read a `.pt2` file.

    Raises:
        InvalidExport: There is no such file, it is no exported program, or reading it would run code.
    """
    file = Path(path)
    try:
        runs = None if trust_pickle else needs_trust(file)
        program = None if runs else torch.export.load(file)
        digest = sha256(file)
    except OSError as exc:
        raise InvalidExport(f"cannot read {file}: {exc.strerror or exc}") from exc
    except Exception as exc:  # whatever a file that is something else makes its reader raise
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise InvalidExport(
            f"{file} cannot be read as an exported program: {reason}; expected a file that torch.export.save() wrote"
        ) from exc
    if program is None:
        raise InvalidExport(
            f"{file} asks for {runs} to be unpickled or evaluated, which can run any code of the file's author; say "
            "--trust-pickle (trust_pickle=True) if you trust the file"
        )
    return ProgramSubject(program, outputs, label=file.name, digest=digest)


def _open(name: str, axis: int) -> str:
    return "batch" if axis == 0 else f"{name}_{axis}"


def _symbol(label: str, name: str, size: Any) -> str:
    expression = str(size.node.expr)
    if not expression.isidentifier():
        raise InvalidExport(
            f"input {name!r} of {label} has a dimension of size {expression}, which depends on another; export the "
            "program with independent dimensions"
        )
    return expression


@contextlib.contextmanager
def _without_gradients() -> Iterator[bool]:
    with torch.no_grad():
        yield False

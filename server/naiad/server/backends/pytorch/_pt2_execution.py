"""Answers requests: joins those of equal shapes where there is a batch, runs them, and parts the answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
import triton_python_backend_utils as pb_utils
from _pt2_config import ModelConfig
from _pt2_device import Device
from _pt2_errors import RequestError, mismatch
from _pt2_package import Package
from _pt2_shapes import Shapes
from torch.utils import dlpack

TORCH_TYPES: Final[Mapping[str, torch.dtype]] = {
    "TYPE_BOOL": torch.bool,
    "TYPE_UINT8": torch.uint8,
    "TYPE_UINT16": torch.uint16,
    "TYPE_UINT32": torch.uint32,
    "TYPE_UINT64": torch.uint64,
    "TYPE_INT8": torch.int8,
    "TYPE_INT16": torch.int16,
    "TYPE_INT32": torch.int32,
    "TYPE_INT64": torch.int64,
    "TYPE_FP16": torch.float16,
    "TYPE_BF16": torch.bfloat16,
    "TYPE_FP32": torch.float32,
    "TYPE_FP64": torch.float64,
}

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """One request: its place in the call, its tensors in the package's order, and the outputs that are wanted."""

    index: int
    tensors: list[torch.Tensor]
    wanted: frozenset[str]


class Runner(Protocol):
    """Runs a package: itself, or recordings of its work."""

    @property
    def lends(self) -> bool:
        """Whether the outputs are good until the next run only."""

    def run(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The flat outputs for flat inputs."""


class Executor:
    """Runs one model instance; every request given to it is answered, unless the device is lost."""

    def __init__(
        self, config: ModelConfig, package: Package, shapes: Shapes, device: Device, runner: Runner | None = None
    ) -> None:
        self._config = config
        self._shapes = shapes
        self._package = package
        self._device = device
        self._runner = runner or package
        self._order = sorted(package.inputs, key=package.inputs.__getitem__)
        # Responses look at the tensors until Triton has sent them, which is after execute returned.
        self._sent: list[Tensors | RequestError] = []

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in their order. Raises ``DeviceLost``."""
        answers: dict[int, Tensors | RequestError] = {}
        jobs = list(self._jobs(requests, answers))
        for group in self._groups(jobs):
            self._answer(group, answers)
        self._device.finish()
        self._sent = [answers[index] for index in range(len(requests))]
        return [_response(answer) for answer in self._sent]

    def _jobs(self, requests: Sequence[Any], answers: dict[int, Tensors | RequestError]) -> Iterable[_Job]:
        for index, request in enumerate(requests):
            try:
                given = {tensor.name(): tensor for tensor in request.inputs()}
                tensors = [dlpack.from_dlpack(given[name].to_dlpack()) for name in self._order]
                self._shapes.check(self._config.name, {n: t.shape for n, t in zip(self._order, tensors, strict=True)})
            except RequestError as exc:
                answers[index] = exc
                continue
            except Exception as exc:  # noqa: BLE001  an unforeseen failure must not take the others along
                answers[index] = RequestError(f"model '{self._config.name}': the request could not be read: {exc}")
                continue
            wanted = frozenset(request.requested_output_names()) or frozenset(self._package.outputs)
            yield _Job(index=index, tensors=tensors, wanted=wanted)

    def _groups(self, jobs: Iterable[_Job]) -> Iterable[list[_Job]]:
        if not self._config.max_batch_size:
            return [[job] for job in jobs]
        groups: dict[object, list[_Job]] = {}
        for job in jobs:
            groups.setdefault(tuple(tensor.shape[1:] for tensor in job.tensors), []).append(job)
        return groups.values()

    def _answer(self, group: list[_Job], answers: dict[int, Tensors | RequestError]) -> None:
        """Run a group; if that fails, its halves, so that a bad request fails alone at the price of a few runs."""
        try:
            outputs = self._run(group)
        except Exception as exc:  # noqa: BLE001  PyTorch's errors share no class, and no request may stay unanswered
            self._device.check(exc)
            if len(group) > 1:
                middle = len(group) // 2
                self._answer(group[:middle], answers)
                self._answer(group[middle:], answers)
                return
            error = exc if isinstance(exc, RequestError) else RequestError(f"model '{self._config.name}': {exc}")
            answers[group[0].index] = error
            return
        start = 0
        for job in group:
            rows = job.tensors[0].shape[0]
            parts = outputs if len(group) == 1 else {n: value[start : start + rows] for n, value in outputs.items()}
            answers[job.index] = {name: part for name, part in parts.items() if name in job.wanted}
            start += rows

    def _run(self, group: list[_Job]) -> Tensors:
        inputs = [self._device.gather(column) for column in zip(*(job.tensors for job in group), strict=True)]
        rows = sum(job.tensors[0].shape[0] for job in group)
        flat = self._runner.run(inputs)
        outputs = {name: flat[place] for name, place in self._package.outputs.items()}
        for tensor in self._config.outputs:
            self._check(tensor.name, tensor.data_type, tensor.dims, outputs[tensor.name], rows)
        return {name: self._device.deliver(value, lent=self._runner.lends) for name, value in outputs.items()}

    def _check(self, name: str, data_type: str, dims: tuple[int, ...], output: torch.Tensor, rows: int) -> None:
        """Triton itself would pass anything on to the client."""
        shape = (rows, *dims) if self._config.max_batch_size else dims
        found = tuple(output.shape)
        fits = len(found) == len(shape) and all(a in (-1, b) for a, b in zip(shape, found, strict=True))
        if output.dtype != TORCH_TYPES[data_type] or not fits:
            message = mismatch(
                f"model '{self._config.name}', output '{name}'",
                expected=f"{data_type} {list(shape)}",
                found=f"{output.dtype} {list(found)}",
                advice="correct config.pbtxt or export the model again",
            )
            raise RequestError(message)


def _response(answer: Tensors | RequestError) -> Any:
    if isinstance(answer, RequestError):
        code = getattr(pb_utils.TritonError, answer.code)
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(answer), code))
    # As capsules: given a tensor, Triton would wait for the GPU once more for each.
    capsule: Any = dlpack.to_dlpack  # type: ignore[attr-defined]  # public, and not declared so
    tensors = [pb_utils.Tensor.from_dlpack(name, capsule(value)) for name, value in answer.items()]
    return pb_utils.InferenceResponse(output_tensors=tensors)

"""CUDA graphs: the work of one run is recorded once for each set of input shapes, and launched as a whole after that.

A short model's time on a GPU is mostly that of launching its kernels one by one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch

MOST_GRAPHS: Final = 32
_WARM_UPS: Final = 2
"""Runs before the recording: the first ones load kernels and choose algorithms, which cannot be recorded."""

Run = Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """Work on tensors that stay where they are."""

    inputs: Sequence[torch.Tensor]
    outputs: list[torch.Tensor]
    replay: Callable[[], None]


class Recorder(Protocol):
    """Records a run."""

    def __call__(self, run: Run, inputs: Sequence[torch.Tensor]) -> Recording:
        """Record a run on tensors of these shapes. Raises what CUDA raises where the work cannot be recorded."""


class Graphs:
    """Runs a package, from recordings where there are some; outputs are lent until the next run."""

    lends: Final = True

    def __init__(self, run: Run, record: Recorder, on_failure: Callable[[Exception], None]) -> None:
        self._run = run
        self._record = record
        self._on_failure = on_failure
        self._recordings: dict[object, Recording] = {}
        self._most = MOST_GRAPHS

    def run(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The flat outputs for flat inputs."""
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes not in self._recordings and len(self._recordings) < self._most:
            self._add(shapes, tensors)
        recording = self._recordings.get(shapes)
        if recording is None:
            return self._run(tensors)
        for static, given in zip(recording.inputs, tensors, strict=True):
            static.copy_(given, non_blocking=True)
        recording.replay()
        return recording.outputs

    def _add(self, shapes: object, tensors: Sequence[torch.Tensor]) -> None:
        """Record a run; a package whose work cannot be recorded is run as it is from then on."""
        try:
            self._recordings[shapes] = self._record(self._run, tensors)
        except Exception as exc:  # noqa: BLE001  CUDA's errors share no class
            self._most = 0
            self._on_failure(exc)


class CudaRecorder:
    """Records on a GPU; all recordings share one pool of memory, since only one of them runs at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run, inputs: Sequence[torch.Tensor]) -> Recording:
        """Warm up on a stream of its own, as CUDA demands, and record."""
        static = [tensor.clone() for tensor in inputs]
        current = torch.cuda.current_stream()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                run(static)
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Triton's stub has threads of its own; in CUDA's default mode what they do would spoil the recording.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = run(static)
        finally:
            torch.cuda.set_stream(current)  # PyTorch leaves the stream of a recording that failed in its place
        return Recording(inputs=static, outputs=outputs, replay=graph.replay)

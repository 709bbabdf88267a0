"""Answers with outputs on a GPU."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from naiad.client._device.tensor import CudaOutputs, CudaTensor
from naiad.client.result import Result


class CudaResult(Result):
    """A result some of whose outputs are on a GPU; ``result[name]`` copies those into arrays."""

    __slots__ = ()

    @property
    def cuda(self) -> CudaOutputs:
        """The outputs that are on a GPU."""
        outputs: dict[str, Any] = dict(self._outputs)
        tensors = {name: value for name, value in outputs.items() if isinstance(value, CudaTensor)}
        return CudaOutputs(tensors, self._not_on_gpu)

    def __getitem__(self, name: str) -> NDArray[Any]:
        found: Any = super().__getitem__(name)
        return found.numpy() if isinstance(found, CudaTensor) else found

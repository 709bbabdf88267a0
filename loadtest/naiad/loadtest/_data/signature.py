"""What a model takes and gives, as its requests have to know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from naiad.client import ModelMetadata, TensorMetadata

__all__ = ["Signature"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """What a model takes and gives; shapes hold -1 where a size may vary, first of all that of the batch."""

    metadata: ModelMetadata
    max_batch_size: int = 0
    optional: frozenset[str] = frozenset()
    """Names of the inputs a request may leave out."""
    decoupled: bool = False
    """Whether a request has any number of responses, which come over a stream only."""
    stateful: bool = False
    """Whether requests belong to sequences."""
    controls: frozenset[str] = frozenset()
    """Names of the inputs that the server itself fills in, from a request's place in its sequence."""
    layouts: Mapping[str, str] = field(default_factory=dict)
    """``"NHWC"`` or ``"NCHW"``, by the name of an input whose configuration says so."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.metadata.name

    @property
    def batching(self) -> bool:
        """Whether the first dimension of every tensor is the batch."""
        return self.max_batch_size > 0

    @property
    def inputs(self) -> dict[str, TensorMetadata]:
        """The inputs that requests bring, by name."""
        return {tensor.name: tensor for tensor in self.metadata.inputs if tensor.name not in self.controls}

    @property
    def outputs(self) -> dict[str, TensorMetadata]:
        """The outputs by name."""
        return {tensor.name: tensor for tensor in self.metadata.outputs}

    @property
    def takes(self) -> str:
        """The inputs as messages show them."""
        return ", ".join(map(str, self.inputs.values()))

    def row_shape(self, tensor: TensorMetadata) -> tuple[int, ...]:
        """Return the shape of ``tensor`` in one row: without the batch, where the model has one."""
        return tensor.shape[1:] if self.batching else tensor.shape

"""What a server says about itself and its models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ModelMetadata", "ModelState", "ServerMetadata", "TensorMetadata"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorMetadata:
    """One input or output: Triton's data type (``"FP32"``) and the full shape.

    The shape has the batch dimension where the model has one; -1 stands for a dimension that may vary.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} [{', '.join('?' if dim < 0 else str(dim) for dim in self.shape)}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelMetadata:
    """A served model: the versions that are ready, its platform or backend, its tensors as configured."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]

    @classmethod
    def from_message(cls, message: Any) -> ModelMetadata:
        """Read a ModelMetadataResponse."""
        return cls(
            name=message.name,
            versions=tuple(message.versions),
            platform=message.platform,
            inputs=tuple(_tensor(tensor) for tensor in message.inputs),
            outputs=tuple(_tensor(tensor) for tensor in message.outputs),
        )


def _tensor(message: Any) -> TensorMetadata:
    return TensorMetadata(name=message.name, datatype=message.datatype, shape=tuple(message.shape))


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerMetadata:
    """The server's name (``"triton"``), its version and the protocol extensions it offers."""

    name: str
    version: str
    extensions: tuple[str, ...]

    @classmethod
    def from_message(cls, message: Any) -> ServerMetadata:
        """Read a ServerMetadataResponse."""
        return cls(name=message.name, version=message.version, extensions=tuple(message.extensions))


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelState:
    """One line of the server's repository index.

    ``state`` is ``"READY"``, ``"UNAVAILABLE"``, ``"LOADING"`` or ``"UNLOADING"``; empty where it was never loaded.
    """

    name: str
    version: str
    state: str
    reason: str

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self.state == "READY"

    @classmethod
    def from_message(cls, message: Any) -> ModelState:
        """Read one entry of a RepositoryIndexResponse."""
        return cls(name=message.name, version=message.version, state=message.state, reason=message.reason)

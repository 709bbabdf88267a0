"""What a model's configuration looks like to a type checker.

The objects are Triton's protobuf messages (``tritonclient.grpc.model_config_pb2``), which come without types. The
fields are described in Triton's model_config.proto; those that are rarely read in a program are ``Any`` here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableSequence
from typing import Any, Protocol, TypeVar

__all__ = ["ConfigMessages", "InstanceGroup", "ModelConfig", "ModelInput", "ModelOutput"]

T = TypeVar("T", covariant=True)


class ConfigMessages(Protocol[T]):
    """A list of messages within a message; it grows by :meth:`add`."""

    def __getitem__(self, index: int, /) -> T:
        """Return one of them."""
        ...

    def __iter__(self) -> Iterator[T]:
        """Iterate over them."""
        ...

    def __len__(self) -> int:
        """Return their number."""
        ...

    def add(self, **fields: Any) -> T:
        """Append one with these fields and return it."""
        ...


class ModelInput(Protocol):
    """An input: its shape is ``dims``, without the batch."""

    name: str
    data_type: int
    """A number of Triton's DataType; ``Model.metadata`` has its name."""
    format: int
    dims: MutableSequence[int]
    reshape: Any
    is_shape_tensor: bool
    allow_ragged_batch: bool
    optional: bool


class ModelOutput(Protocol):
    """An output: its shape is ``dims``, without the batch."""

    name: str
    data_type: int
    """A number of Triton's DataType; ``Model.metadata`` has its name."""
    dims: MutableSequence[int]
    reshape: Any
    label_filename: str
    is_shape_tensor: bool


class InstanceGroup(Protocol):
    """Instances of a model on one kind of device."""

    name: str
    kind: int
    count: int
    gpus: MutableSequence[int]
    rate_limiter: Any
    profile: MutableSequence[str]
    passive: bool
    host_policy: str


class ModelConfig(Protocol):
    """A model's configuration: Triton's ``ModelConfig`` message."""

    name: str
    platform: str
    backend: str
    runtime: str
    max_batch_size: int
    """0: the model does not batch."""
    default_model_filename: str
    version_policy: Any
    optimization: Any
    dynamic_batching: Any
    """Present only where ``HasField("dynamic_batching")``."""
    sequence_batching: Any
    ensemble_scheduling: Any
    model_operations: Any
    model_transaction_policy: Any
    """``model_transaction_policy.decoupled``: any number of answers to a request."""
    model_repository_agents: Any
    response_cache: Any
    model_warmup: ConfigMessages[Any]
    batch_input: ConfigMessages[Any]
    batch_output: ConfigMessages[Any]
    parameters: Mapping[str, Any]
    """``parameters["name"].string_value``."""
    metric_tags: Mapping[str, str]
    cc_model_filenames: Mapping[str, str]

    @property
    def input(self) -> ConfigMessages[ModelInput]:
        """The inputs."""
        ...

    @property
    def output(self) -> ConfigMessages[ModelOutput]:
        """The outputs."""
        ...

    @property
    def instance_group(self) -> ConfigMessages[InstanceGroup]:
        """How many instances run where."""
        ...

    def HasField(self, name: str) -> bool:  # noqa: N802
        """Whether a message within this one is present."""
        ...

    def CopyFrom(self, other: Any) -> None:  # noqa: N802
        """Become equal to another."""
        ...

    def SerializeToString(self) -> bytes:  # noqa: N802
        """Return it as protobuf."""
        ...

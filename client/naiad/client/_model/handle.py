"""What a server said about a model, and what both kinds of handle share: everything but waiting."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, TypeVar

from naiad.client._device.devices import Devices
from naiad.client._device.model import DeviceModel, device_model
from naiad.client._protocol import operations
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.operations import Operation
from naiad.client._protocol.placing import Placing, placing_of
from naiad.client._protocol.request import InferOptions, Inputs, check_cast
from naiad.client.config import ModelConfig
from naiad.client.metadata import ModelMetadata
from naiad.client.options import NotGiven, SharedMemory, check_timeout
from naiad.client.result import Result

if TYPE_CHECKING:
    pass

T = TypeVar("T")
_OLD_S = 1.0


class Description:
    """What a server said about a model, and the codec made from it."""

    __slots__ = ("codec", "config", "metadata", "on_gpu", "placing", "taken_at", "versions")

    def __init__(
        self,
        name: str,
        version: str | None,
        metadata: ModelMetadata,
        config: ModelConfig,
        shared_memory: SharedMemory | None = None,
        cast: Literal["safe"] | None = None,
        devices: Devices | None = None,
    ) -> None:
        self.metadata: ModelMetadata = metadata
        self.config: ModelConfig = config
        self.codec: Codec = Codec(name, version or "", Contract.of(metadata, config), cast)
        self.placing: Placing | None = placing_of(self.codec, metadata, config.max_batch_size, shared_memory)
        self.on_gpu: DeviceModel | None = device_model(devices, name, version, self.codec.contract)
        self.versions: set[str] = set(metadata.versions)
        self.taken_at: float = time.monotonic()

    @property
    def old(self) -> bool:
        """Whether the model may have been replaced since."""
        return time.monotonic() - self.taken_at > _OLD_S


class Handle:
    """What :class:`Model` and :class:`AsyncModel` share: everything but waiting."""

    def __init__(
        self, name: str, version: str | None, *, idempotent: bool, cast: Literal["safe"] | None, total_s: float
    ) -> None:
        check_cast(cast)
        self._cast: Literal["safe"] | None = cast
        self._described: Description | None = None
        self._noticed: set[str] = set()
        self._total_s = total_s
        self.idempotent = idempotent
        self.name = name
        self.version = version

    def refresh(self) -> None:
        """Fetch metadata and configuration again at the next use."""
        self._described = None

    def _operation(
        self, description: Description, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven
    ) -> Operation[Result]:
        queue_timeout_us = 0
        if description.codec.queue_timeout:  # so that the server does not run what nobody waits for any more
            queue_timeout_us = int(self._limit_s(timeout_s) * 1e6)
        return operations.infer(
            self.name,
            self.version,
            inputs,
            options,
            description.codec,
            idempotent=self.idempotent,
            placing=description.placing,
            on_gpu=description.on_gpu,
            queue_timeout_us=queue_timeout_us,
        )

    def _limit_s(self, timeout_s: float | NotGiven) -> float:
        return self._total_s if isinstance(timeout_s, NotGiven) else check_timeout(timeout_s)

    def _notice(self, description: Description, result: Result) -> None:
        """Ask for the description again where another version answers than those that it spoke of."""
        version = result.model_version
        if version not in description.versions and version not in self._noticed:
            self._noticed.add(version)  # once: servers may differ for a while, and describe what the others do not have
            self.refresh()

"""The requests to one model that have to do with a GPU: on it where that can be, else by the host or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from naiad.client._device.devices import Devices
from naiad.client._device.driver import DeviceError
from naiad.client._device.request import ByHost, DeviceRequest, Target
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.dlpack import is_on_cuda
from naiad.client._protocol.request import InferOptions, Inputs
from naiad.client.errors import InvalidInput, Unsupported
from naiad.client.result import Result


class DeviceModel:
    """What a client's GPUs are to one model."""

    __slots__ = ("_devices", "_target")

    def __init__(self, devices: Devices, model: str, version: str | None, contract: Contract | None) -> None:
        self._devices = devices
        self._target = Target(model, version or "", contract, {})

    def concerns(self, inputs: Inputs, options: InferOptions) -> bool:
        """Whether a request has anything to do with a GPU."""
        return self._devices.concerns(inputs, options)

    def request(
        self,
        inputs: Inputs,
        options: InferOptions,
        by_host: Callable[[Inputs, InferOptions], ByHost],
        *,
        queue_timeout_us: int,
        repeatable: bool,
    ) -> tuple[bytes, Callable[[bytes], Result]]:
        """Return what to send, and what reads the answer.

        Raises:
            InvalidInput: a tensor has an unknown name, or another type, shape or layout than expected.
            Unsupported: CUDA cannot be used here, and the client was not told to go by the host then.
        """
        try:
            request = DeviceRequest(
                self._devices,
                self._target,
                inputs,
                options,
                by_host,
                queue_timeout_us=queue_timeout_us,
                repeatable=repeatable,
            )
        except DeviceError as exc:
            if not self._devices.options.fallback:
                raise Unsupported(f"{exc} (cuda_memory='auto' goes by the host's memory instead)") from exc
            self._devices.say_once(str(exc))
            host = by_host(_on_host(inputs), replace(options, outputs_on=None, out=_on_host_only(options)))
            return host.request, host.decode
        return cast("bytes", request), request.read


def device_model(
    devices: Devices | None, model: str, version: str | None, contract: Contract | None = None
) -> DeviceModel | None:
    """Return what a client's GPUs are to a model, if it uses any."""
    return None if devices is None else DeviceModel(devices, model, version, contract)


def _on_host(inputs: Inputs) -> Mapping[str, Any]:
    """Return the inputs in the host's memory, where their own library can copy them."""
    return {
        name: value.cpu() if is_on_cuda(value) and hasattr(value, "cpu") else value for name, value in inputs.items()
    }


def _on_host_only(options: InferOptions) -> Mapping[str, Any] | None:
    for name, value in (options.out or {}).items():
        if is_on_cuda(value):
            raise InvalidInput(
                f"out['{name}'] is on a GPU, which this client cannot use: give one in the host's memory"
            )
    return options.out

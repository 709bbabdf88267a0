"""The answer to an inference: a mapping from output names to arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

__all__ = ["Result", "Timing"]


class Timing(NamedTuple):
    """Where the time of a call went, in seconds."""

    total_s: float
    """From the call of the method to its return."""
    encode_s: float
    """Checking the inputs and building the request."""
    waiting_s: float
    """For ``Limits.inflight``, for attempts that failed and for the pauses after them."""
    rpc_s: float
    """From the departure of the attempt that succeeded to its answer: network, queue and computation."""
    decode_s: float
    """Reading the answer into arrays."""
    num_attempts: int
    endpoint: str
    """The server that answered."""


NO_TIMING = Timing(0.0, 0.0, 0.0, 0.0, 0.0, 0, "")


class Result(Mapping[str, NDArray[Any]]):
    """The outputs by name, writable and owned by the caller, and what the server said with them.

    BYTES outputs are object arrays of ``bytes``; BF16 outputs have ``ml_dtypes.bfloat16``.
    """

    __slots__ = ("_outputs", "model_name", "model_version", "parameters", "request_id", "timing")

    model_name: str
    model_version: str
    request_id: str
    parameters: dict[str, bool | int | float | str]
    timing: Timing
    """Where the time went, as this client measured it."""

    def __init__(
        self,
        outputs: Mapping[str, NDArray[Any]],
        *,
        model_name: str = "",
        model_version: str = "",
        request_id: str = "",
        parameters: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        self._outputs = outputs
        self.model_name = model_name
        self.model_version = model_version
        self.request_id = request_id
        self.parameters = dict(parameters) if parameters else {}
        self.timing = NO_TIMING

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self._outputs[name]
        except KeyError:
            raise KeyError(
                f"no output '{name}' in the answer of '{self.model_name}'; it has {', '.join(self._outputs)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        tensors = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in self._outputs.items())
        return f"<Result of {self.model_name}/{self.model_version}: {tensors}>"

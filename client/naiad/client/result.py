"""The answer to an inference: a mapping from output names to arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from naiad.client._device.tensor import CudaOutputs
from naiad.client._protocol.dlpack import tensor_of
from naiad.client.errors import InvalidInput

__all__ = ["RankedClass", "Result", "Timing"]


class RankedClass(NamedTuple):
    """One of the best classes of an output, see :meth:`Result.classes`."""

    score: float
    class_index: int
    label: str | None
    """As the model's label file has it; ``None`` where the model has no labels."""


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


class Clock(NamedTuple):
    """What was read off the clock, from which :class:`Timing` is made when somebody asks for it."""

    started: float
    encode_s: float
    began: float
    arrived: float
    read: float
    num_attempts: int
    endpoint: str

    def timing(self) -> Timing:
        """Return where the time went."""
        return Timing(
            self.read - self.started + self.encode_s,
            self.encode_s,
            self.began - self.started,
            self.arrived - self.began,
            self.read - self.arrived,
            self.num_attempts,
            self.endpoint,
        )


class Result(Mapping[str, NDArray[Any]]):
    """The outputs by name, writable and owned by the caller, and what the server said with them.

    BYTES outputs are object arrays of ``bytes``; BF16 outputs have ``ml_dtypes.bfloat16``. Triton has no type for 8-bit
    floats: models declare them as UINT8, so that ``result["y"].view(ml_dtypes.float8_e4m3fn)`` shows what they are.
    """

    __slots__ = ("_clock", "_outputs", "model_name", "model_version", "parameters", "request_id")

    model_name: str
    model_version: str
    request_id: str
    parameters: dict[str, bool | int | float | str]

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
        self._clock: Timing | Clock = NO_TIMING

    @property
    def timing(self) -> Timing:
        """Where the time went, as this client measured it."""
        if isinstance(self._clock, Clock):
            self._clock = self._clock.timing()
        return self._clock

    @timing.setter
    def timing(self, timing: Timing) -> None:
        self._clock = timing

    def classes(self, name: str) -> list[list[RankedClass]]:
        """Return the best classes of an output that was asked for with ``Output(name, class_count=...)``.

        One list for each row, the best class first; a model without a batch dimension has one row.

        Raises:
            InvalidInput: the output was not asked for as classes.
        """
        found = self[name]
        try:
            rows = found.reshape(-1, found.shape[-1]).tolist()
            return [[_ranked(item) for item in row] for row in rows]
        except (AttributeError, IndexError, ValueError) as exc:
            raise InvalidInput(
                f"output '{name}' has no classes: ask for them with outputs=[Output(name={name!r}, class_count=...)]",
                model=self.model_name,
            ) from exc

    def dlpack(self, name: str) -> Any:
        """Return an output as an object that ``torch.from_dlpack`` and its like take without a copy, BF16 as well.

        NumPy's own arrays can be handed over as they are, except for the types of ``ml_dtypes``.
        """
        return tensor_of(self[name])

    @property
    def cuda(self) -> CudaOutputs:
        """The outputs that were left on a GPU (``outputs_on="cuda"``): ``torch.from_dlpack(result.cuda("y"))``."""
        return CudaOutputs({}, self._not_on_gpu)

    def _not_on_gpu(self, name: str) -> KeyError:
        where = "in the host's memory" if name in self._outputs else "not in the answer"
        return KeyError(
            f"output '{name}' of '{self.model_name}' is expected on a GPU, found {where}: outputs_on='cuda'"
        )

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


def _ranked(item: bytes) -> RankedClass:
    """Read ``score:index[:label]``, as Triton's classification extension writes a class."""
    score, index, *label = item.decode().split(":", 2)
    return RankedClass(float(score), int(index), label[0] if label else None)

"""Implicit states: what a model leaves for the next request of a sequence.

Triton's Python backend hands a model the initial state with every request and has no way to give one back. So the
states live here, by sequence: an instance gets all requests of a sequence, in their order and never two at once.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from _ort_errors import RequestError
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_START: Final = 1
_END: Final = 2
"""``TRITONSERVER_REQUEST_FLAG_SEQUENCE_START`` and ``_END``."""
_CHECK_EVERY_S: Final = 1.0


class States:
    """The states of one instance's sequences; ``names`` are outputs by the inputs that they become."""

    def __init__(self, model: str, names: Mapping[str, str], max_idle_s: float) -> None:
        self._model = model
        self._names = names
        self._max_idle_s = max_idle_s
        self._kept: dict[object, tuple[Arrays, float]] = {}
        self._checked = time.monotonic()

    def begin(self, request: Any, inputs: Arrays) -> "Turn | None":
        """Put the states of the request's sequence into its inputs; None for a model without states.

        The first request of a sequence keeps the initial state that Triton put there.
        """
        if not self._names:
            return None
        self._forget_idle()
        turn = Turn(sequence=request.correlation_id(), last=bool(request.flags() & _END))
        if not request.flags() & _START and turn.sequence:
            inputs.update(self._states(turn))
        return turn

    def end(self, turn: "Turn | None", outputs: Arrays) -> None:
        """Keep what the model left for the next request, or forget the sequence after its last one."""
        if turn is None or not turn.sequence:  # 0 fills an empty slot of the direct strategy
            return
        if turn.last:
            self._kept.pop(turn.sequence, None)
            return
        # Copied: an output is a view of the whole batch's.
        left = {source: outputs[target].copy() for source, target in self._names.items()}
        self._kept[turn.sequence] = left, time.monotonic()

    def _states(self, turn: "Turn") -> Arrays:
        kept = self._kept.get(turn.sequence)
        if kept is None:
            message = f"sequence {turn.sequence} has no state here; expected it to begin with the START flag"
            raise RequestError(f"model '{self._model}': {message}, begin it again")
        return kept[0]

    def _forget_idle(self) -> None:
        """Triton itself ends a sequence that is idle for too long, and does not say so."""
        now = time.monotonic()
        if now - self._checked < _CHECK_EVERY_S:
            return
        self._checked = now
        for sequence in [each for each, (_, used) in self._kept.items() if now - used > 2 * self._max_idle_s]:
            del self._kept[sequence]


class Turn:
    """One request's place in its sequence."""

    __slots__ = ("last", "sequence")

    def __init__(self, *, sequence: object, last: bool) -> None:
        self.sequence = sequence
        self.last = last

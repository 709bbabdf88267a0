"""Sessions whose truth is known: runs drawn from a distribution, or from recorded ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from naiad.loadtest._gate.subjects import RunValues, Side


class DrawnSession:
    """Runs of a server whose noise is drawn: the candidate is ``slower`` times as slow."""

    def __init__(
        self, *, slower: float = 1.0, noise: float = 0.1, seed: int = 0, spoil: Callable[[int], str] | None = None
    ) -> None:
        self._slower, self._noise = slower, noise
        self._generator = np.random.default_rng(seed)
        self._spoil = spoil or (lambda number: "")
        self.sides: list[Side] = []
        self.closed = False

    def measure(self, side: Side, *, window_s: float, settle_s: float) -> RunValues:
        self.sides.append(side)
        factor = float(np.exp(self._noise * self._generator.standard_normal()))
        factor *= self._slower if side == "candidate" else 1.0
        values = {"p50": 1000 * factor, "p90": 1500 * factor, "p99": 3000 * factor, "throughput": 8000 / factor}
        doubt = self._spoil(len(self.sides))
        return RunValues(
            values=values,
            completed=round(window_s * values["throughput"]),
            objectives={"p99<4ms": values["p99"]},
            doubts=(doubt,) if doubt else (),
        )

    def close(self) -> None:
        self.closed = True

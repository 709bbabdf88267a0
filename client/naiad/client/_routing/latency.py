"""How long the calls of a model take lately: what a hedged call waits before it asks a second server."""

from __future__ import annotations

from collections import deque

from naiad.client.options import Hedge

_KEPT = 512
_RENEW_AFTER = 32
_FEWEST = 64  # before these, nothing is known about a percentile like the 95th


class Latencies:
    """A sliding window for each model; threads may share it, as nothing depends on an exact count."""

    def __init__(self, hedge: Hedge) -> None:
        self._hedge = hedge
        self._windows: dict[str, deque[float]] = {}
        self._delays: dict[str, float] = {}
        self._num_added = 0

    def add(self, model: str, seconds: float) -> None:
        """Count an answer."""
        window = self._windows.get(model)
        if window is None:
            window = self._windows.setdefault(model, deque(maxlen=_KEPT))
        window.append(seconds)
        self._num_added += 1
        if len(window) >= _FEWEST and (self._num_added % _RENEW_AFTER == 0 or model not in self._delays):
            self._renew(model, window)

    def delay_s(self, model: str) -> float | None:
        """Return when a second server is asked, ``None`` as long as too little is known."""
        return self._delays.get(model)

    def _renew(self, model: str, window: deque[float]) -> None:
        ordered = sorted(window.copy())
        delay_s = ordered[min(int(len(ordered) * self._hedge.percentile / 100), len(ordered) - 1)]
        self._delays[model] = max(delay_s, self._hedge.min_delay_s)

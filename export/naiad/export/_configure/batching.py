"""Dynamic batching, derived from the latency by batch that was measured.

The rule, with r(b) = b / latency(b):

* the *gain* is the best r(b) over r(1). Below `_WORTHWHILE_GAIN` a batch of b takes as long as b single requests, and
  whoever waits for it loses: requests are then joined only if they already wait for the model (no delay).
* the *knee* is the smallest measured batch with `_KNEE` of the best throughput: beyond it a batch only takes longer.
  It is preferred, and so is the largest batch, for the moments when that many wait.
* the delay is `_DELAY_SHARE` of the latency of one row, which bounds what a request that finds the server idle pays
  for a batch that does not come. Below `_SMALLEST_DELAY_US` none: the batcher's own timer is not finer.

Preferred sizes come with a delay only: without one Triton would cut a queue of 20 at a preferred 8 for no reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from naiad.export.report import BatchLatency, Choice

_WORTHWHILE_GAIN = 1.2
_KNEE = 0.9
_DELAY_SHARE = 0.1
_SMALLEST_DELAY_US = 100
_LARGEST_DELAY_US = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Batching:
    """How requests should be joined."""

    preferred: tuple[int, ...]
    """Batch sizes worth waiting for; empty for none."""
    delay_us: int
    gain: float
    """The best throughput of a batch over that of single rows."""
    knee: int
    """The smallest measured batch with nearly the best throughput."""


def derive(latency: Sequence[BatchLatency], max_batch_size: int) -> Batching:
    """Return the batching that a latency curve suggests; a curve without a batch of 1 suggests nothing."""
    times = {item.batch: item.median_ms for item in latency if 0 < item.batch <= max_batch_size and item.median_ms > 0}
    if 1 not in times or len(times) == 1:
        return Batching(preferred=(), delay_us=0, gain=1.0, knee=1)
    throughput = {batch: batch / time_ms for batch, time_ms in times.items()}
    best = max(throughput.values())
    gain = best / throughput[1]
    knee = min(batch for batch, rate in throughput.items() if rate >= _KNEE * best)
    delay_us = min(int(times[1] * 1e3 * _DELAY_SHARE), _LARGEST_DELAY_US)
    if gain < _WORTHWHILE_GAIN or delay_us < _SMALLEST_DELAY_US:
        return Batching(preferred=(), delay_us=0, gain=gain, knee=knee)
    return Batching(preferred=tuple(sorted({knee, max_batch_size})), delay_us=delay_us, gain=gain, knee=knee)


def apply(config: Any, batching: Batching) -> None:
    """Write it into a configuration; without a queue policy, with which Triton stalls for half a second at a time."""
    config.dynamic_batching.SetInParent()
    if batching.delay_us:
        config.dynamic_batching.preferred_batch_size.extend(batching.preferred)
        config.dynamic_batching.max_queue_delay_microseconds = batching.delay_us


def explain(batching: Batching, max_batch_size: int) -> Choice:
    """Return what was chosen and why, for the report."""
    measured = f"a batch gives up to {batching.gain:.1f} times the throughput of single rows"
    if max_batch_size <= 1:
        return Choice(field="dynamic_batching", value="off", reason="no batch larger than 1 may be formed")
    if not batching.delay_us:
        small = f"a tenth of a row's latency is below {_SMALLEST_DELAY_US} µs"
        why = "that is too little" if batching.gain < _WORTHWHILE_GAIN else small
        reason = f"{measured}: requests that already wait are joined, nobody waits for others ({why})"
        return Choice(field="dynamic_batching", value="on, no delay", reason=reason)
    sizes = " and ".join(map(str, batching.preferred))
    return Choice(
        field="dynamic_batching",
        value=f"prefers {sizes}, delay {batching.delay_us} µs",
        reason=f"{measured}, nearly all of it at batch {batching.knee}; the delay is a tenth of a single row's latency",
    )

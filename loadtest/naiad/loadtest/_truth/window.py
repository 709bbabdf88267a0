"""The server's readings that belong to a window, and to the whole run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Final

from naiad.loadtest._data.pipeline import Key
from naiad.loadtest._engine.messages import Interval
from naiad.loadtest._truth.points import NOT_SENT
from naiad.loadtest._truth.resources import ServerSample
from naiad.loadtest._truth.server_times import ServerTimes

__all__ = ["Counted", "began_anew", "count", "samples_within", "server_times"]

_NEAR_S: Final = 0.6  # samples are a second apart, and a window may begin between two


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """How many requests were answered over the whole run, warm-up and end included, as each side counted them."""

    client: int
    """Successes."""
    client_failed: int
    """Failures, which the server may have counted as successes: an answer too late, or a wrong one."""
    server: int
    """Successes."""

    def to_json(self) -> dict[str, int]:
        """Return the fields as the report has them."""
        return asdict(self)


def samples_within(samples: Sequence[ServerSample], start_s: float, end_s: float) -> list[ServerSample]:
    """Return the samples from the one nearest to the start to the one nearest to the end; none where one is far."""
    if not samples:
        return []
    first = min(range(len(samples)), key=lambda index: abs(samples[index].at_s - start_s))
    last = min(range(len(samples)), key=lambda index: abs(samples[index].at_s - end_s))
    if abs(samples[first].at_s - start_s) > _NEAR_S or abs(samples[last].at_s - end_s) > _NEAR_S:
        return []
    return list(samples[first : last + 1]) if first < last else []


def server_times(samples: Sequence[ServerSample], traffic: int | Key) -> ServerTimes | None:
    """Return what the server did for a model from the first to the last sample; ``None`` where it cannot be known."""
    if len(samples) < 2 or began_anew(samples, traffic):
        return None
    before, after = samples[0].snapshots.get(traffic), samples[-1].snapshots.get(traffic)
    if before is None or after is None:
        return None
    return ServerTimes.between(before, after, samples[-1].at_s - samples[0].at_s)


def began_anew(samples: Sequence[ServerSample], traffic: int | Key) -> bool:
    """Whether the model's counters fell between two samples: the server, or the model, began anew."""
    found = [sample.snapshots[traffic] for sample in samples if traffic in sample.snapshots]
    return any(after.fell_since(before) for before, after in pairwise(found))


def count(samples: Sequence[ServerSample], intervals: Iterable[Interval], traffics: Sequence[int]) -> Counted | None:
    """Return both sides' counts of a model's requests; ``None`` unless samples before and after the run have them."""
    own, traffic = [interval for interval in intervals if interval.traffic in traffics], traffics[0]
    known = [sample for sample in samples if traffic in sample.snapshots]
    if not own or len(known) < 2 or began_anew(known, traffic):
        return None
    if known[0].at_s > min(interval.start_s for interval in own) or known[-1].at_s < max(one.end_s for one in own):
        return None
    failed = sum(sum(interval.errors.values()) - interval.errors.get(NOT_SENT, 0) for interval in own)
    return Counted(
        client=sum(interval.latencies.count for interval in own),
        client_failed=failed,
        server=known[-1].snapshots[traffic].success_count - known[0].snapshots[traffic].success_count,
    )

"""What servers do at the moment: the difference of two readings of their statistics, for each version of each model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from naiad.client import AccessDenied, AsyncClient, ClientError

if TYPE_CHECKING:
    from naiad.client import ModelState, ModelStatistics

_Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """A version of a model on one server; what needs two readings is None after the first.

    The times are those of the requests that ended in between, so a request that takes longer than the interval shows
    when it ends.
    """

    server: str
    model: str
    version: str
    state: str
    """As in the repository index, ``"READY"`` where it is served."""
    reason: str
    """Why it is not."""
    requests_per_s: float | None = None
    failures_per_s: float | None = None
    rows_per_s: float | None = None
    mean_batch: float | None = None
    waiting: float | None = None
    """Requests in the queue, on average (Little's law: their waiting time for each second)."""
    running: float | None = None
    """Requests in the model, on average."""
    queue_us: float | None = None
    compute_us: float | None = None
    last_request: float | None = None
    """Seconds since 1970 by the server's clock; None where there was none."""

    @property
    def weight(self) -> float:
        """What the table is sorted by: requests in the server, on average."""
        return (self.waiting or 0.0) + (self.running or 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """All servers at one time; ``away`` says why those did not answer that did not."""

    time: float
    loads: tuple[Load, ...]
    away: Mapping[str, str]
    servers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    at: float
    statistics: Mapping[_Key, ModelStatistics]
    states: Mapping[_Key, ModelState]


class Watch:
    """Reads the statistics of a client's servers again and again."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._earlier: dict[str, _Reading] = {}

    async def look(self) -> Sight:
        """Ask all servers at once."""
        if not self._client.servers:
            await self._client.live()  # looks the names up
        servers = tuple(state.address for state in self._client.servers)
        found = await asyncio.gather(*map(self._look_at, servers))
        away = {server: answer for server, answer in zip(servers, found, strict=True) if isinstance(answer, str)}
        if not servers:
            away[self._client.url] = "its name has no address"
        loads = [load for answer in found if not isinstance(answer, str) for load in answer]
        loads.sort(key=lambda load: (-load.weight, load.model, load.version, load.server))
        return Sight(time=time.time(), loads=tuple(loads), away=away, servers=servers)

    async def _look_at(self, server: str) -> list[Load] | str:
        earlier = self._earlier.pop(server, None)  # after an outage there is nothing to compare with
        try:
            now = await _read(self._client.only(server))
        except ClientError as error:
            return str(error)
        self._earlier[server] = now
        return _loads(server, earlier, now)


async def _read(client: AsyncClient) -> _Reading:
    statistics, states = await asyncio.gather(client.statistics(), _states(client))
    return _Reading(
        at=time.monotonic(),
        statistics={(entry.name, entry.version): entry for entry in statistics},
        states={(state.name, state.version): state for state in states},
    )


async def _states(client: AsyncClient) -> tuple[ModelState, ...]:
    try:
        return await client.models()
    except AccessDenied:  # the index is an administrator's; the statistics have what is served
        return ()


def _loads(server: str, earlier: _Reading | None, now: _Reading) -> list[Load]:
    troubled = {key: state for key, state in now.states.items() if _matters(state)}
    loads = []
    for key in now.statistics.keys() | troubled.keys():
        model, version = key
        state = troubled.get(key)
        known: dict[str, Any] = {
            "server": server,
            "model": model,
            "version": version,
            "state": state.state if state else "READY",
            "reason": state.reason if state else "",
        }
        counters = now.statistics.get(key)
        loads.append(Load(**known, **({} if counters is None else _rates(counters, earlier, now.at))))
    return loads


def _matters(state: ModelState) -> bool:
    """Whether a model that is not served should be shown: not one that nobody loaded, or that somebody unloaded."""
    return bool(state.state) and not state.ready and state.reason != "unloaded"


def _rates(counters: ModelStatistics, earlier: _Reading | None, at: float) -> dict[str, Any]:
    last: dict[str, Any] = {"last_request": counters.last_inference_ms / 1000 or None}
    if earlier is None:
        return last
    window = counters.since(earlier.statistics.get((counters.name, counters.version)))
    seconds = at - earlier.at
    compute_ns = window.compute_input.ns + window.compute_infer.ns + window.compute_output.ns
    answered = window.success.count
    return last | {
        "requests_per_s": answered / seconds,
        "failures_per_s": window.fail.count / seconds,
        "rows_per_s": window.inference_count / seconds,
        "mean_batch": window.mean_batch or None,
        "waiting": window.queue.ns / 1e9 / seconds,
        "running": compute_ns / 1e9 / seconds,
        "queue_us": window.queue.mean_us if answered else None,
        "compute_us": window.mean_compute_us if answered else None,
    }

"""The lines that an engine process and its conductor exchange: one JSON object each.

To the engine, after the traffic in the first line: ``users N``, ``open`` (the measured window begins), ``close`` (it
ends; drain, then say so). The end of its input ends the engine. From the engine: the messages below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from naiad.loadtest.measurement import Interval
from naiad.loadtest.server_times import ServerSnapshot

__all__ = ["Closed", "EngineMessage", "Failed", "Lost", "Ready", "decode_message", "encode_message"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The samples are encoded, the first request may leave."""

    num_samples: int
    request_bytes: int
    """Size of the largest request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """For some time nothing succeeded, and the server does not answer."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """The window is over and what was in flight has ended, or was given up."""

    before: ServerSnapshot | None
    """The server's counters when the window opened; ``None`` where they could not be had."""
    after: ServerSnapshot | None
    note: str = ""
    """Why a snapshot is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The engine could not start."""

    message: str


EngineMessage = Ready | Interval | Lost | Closed | Failed
_KINDS: Final = {"ready": Ready, "interval": Interval, "lost": Lost, "closed": Closed, "failed": Failed}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def encode_message(message: EngineMessage) -> bytes:
    """Return the line for ``message``."""
    fields = message.to_json() if isinstance(message, Interval) else asdict(message)
    return json.dumps({"type": _NAMES[type(message)], **fields}).encode() + b"\n"


def decode_message(line: bytes | str) -> EngineMessage:
    """Read a line that :func:`encode_message` wrote."""
    fields = json.loads(line)
    kind = fields.pop("type")
    if kind == "interval":
        return Interval.from_json(fields)
    if kind == "closed":
        return Closed(before=_snapshot(fields["before"]), after=_snapshot(fields["after"]), note=fields["note"])
    found: EngineMessage = _KINDS[kind](**fields)
    return found


def _snapshot(fields: Mapping[str, Any] | None) -> ServerSnapshot | None:
    return None if fields is None else ServerSnapshot.from_json(fields)

"""How a client behaves: deadlines, retries, transport security."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from naiad.client.errors import InvalidInput

__all__ = ["TLS", "Retry", "Timeout"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeout:
    """How long a call may take, in seconds, over all attempts. There is always a limit."""

    total_s: float = 60.0
    """For inference and everything that only asks."""
    load_s: float = 300.0
    """For loading and unloading a model."""

    def __post_init__(self) -> None:
        for name in ("total_s", "load_s"):
            check_timeout(getattr(self, name), name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Which failed calls are sent again, and when.

    Only errors that say ``retryable`` are retried, and only within the call's deadline. The pause before attempt
    *n* + 1
    is drawn evenly from ``[0, min(max_pause_s, first_pause_s * 2**(n - 1))]`` ("full jitter").
    A request that belongs to a sequence is never sent twice.
    """

    attempts: int = 3
    """How often a request is sent at most; 1 means no retry."""
    first_pause_s: float = 0.05
    """Upper bound of the first pause."""
    max_pause_s: float = 2.0
    """Upper bound of every pause."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            msg = f"Retry.attempts is at least 1 (no retry), found {self.attempts}"
            raise InvalidInput(msg)


@dataclass(frozen=True, kw_only=True, slots=True)
class TLS:
    """Transport security. Without any field, the system's certificate authorities are trusted."""

    root_certificates: Path | str | None = None
    """PEM file with the authorities to trust instead of the system's."""
    certificate_chain: Path | str | None = None
    """PEM file with this client's certificate (mutual TLS)."""
    private_key: Path | str | None = None
    """PEM file with the key of this client's certificate."""
    server_name: str | None = None
    """The name to expect in the server's certificate, where it is not the address's."""

    def __post_init__(self) -> None:
        if (self.certificate_chain is None) != (self.private_key is None):
            msg = "mutual TLS needs both certificate_chain and private_key, found only one of them"
            raise InvalidInput(msg)


@final
class NotGiven:
    """The type of :data:`NOT_GIVEN`: the caller said nothing, which is not the same as ``None``."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = NotGiven()


def check_timeout(value: float, name: str = "timeout_s") -> float:
    """Return ``value`` if it is a time a call can take; raise :class:`InvalidInput` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
        msg = f"{name} is a number of seconds above 0 and finite, found {value!r}"
        raise InvalidInput(msg)
    return float(value)

"""How a client behaves: deadlines, retries, transport security."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, final

from naiad.client.errors import InvalidInput

__all__ = ["TLS", "Balancing", "CudaMemory", "Hedge", "Limits", "Retry", "SharedMemory", "Timeout"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeout:
    """How long a call may take, in seconds, over all attempts. There is always a limit."""

    total_s: float = 60.0
    """For inference and everything that only asks."""
    load_s: float = 300.0
    """For loading and unloading a model."""
    stream_s: float = 600.0
    """For a whole stream, from its first attempt to its last part."""
    attempt_s: float | None = None
    """For one attempt at one server, so that another can be tried within the total; without it, the total alone."""

    def __post_init__(self) -> None:
        for name in ("total_s", "load_s", "stream_s"):
            check_timeout(getattr(self, name), f"Timeout.{name}")
        if self.attempt_s is not None:
            check_timeout(self.attempt_s, "Timeout.attempt_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Which failed calls are sent again, and when.

    Only errors that say ``retryable`` are retried, within the call's deadline:

    * what surely did not run (``error.unprocessed``: nobody answered, the queue was full, the server was shutting
      down) goes to any server;
    * what may have run (the connection broke) goes only to a server that had not got it yet, unless the call was
      marked ``idempotent``, as everything is that only asks;
    * a refused identity, a wrong request and a failed computation are never retried; a request of a sequence only
      with ``sequences`` and if it surely did not run.

    The first attempt at a server that was not tried yet is made at once. Otherwise the pause before attempt *n* + 1
    is drawn evenly from ``[0, min(max_pause_s, first_pause_s * 2**(n - 1))]`` ("full jitter").
    """

    attempts: int = 3
    """How often a request is sent at most; 1 means no retry."""
    first_pause_s: float = 0.05
    """Upper bound of the first pause."""
    max_pause_s: float = 2.0
    """Upper bound of every pause."""
    budget: float = 0.2
    """Extra attempts for each call, on average, so that retries cannot multiply the load of a failing service."""
    patience_s: float = 5.0
    """How long a call goes on looking for a server, among several, as long as none has had it: while all are away or
    shutting down, as in a rolling restart. These attempts are not counted; ``attempts=1`` makes none."""
    sequences: bool = False
    """Whether requests of a sequence are retried too."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InvalidInput(f"Retry.attempts is at least 1 (no retry), found {self.attempts}")
        check_ratio(self.budget, "Retry.budget")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hedge:
    """Ask a second server when the first takes longer than usual, and take the answer that comes first.

    It costs ``budget`` more requests and cuts the slowest answers ("The Tail at Scale", Dean and Barroso, 2013).
    Requests of a sequence are never hedged.
    """

    percentile: float = 95.0
    """Of the recent latencies of the same model: after that time the second request leaves."""
    budget: float = 0.1
    """Second requests for each call, at most."""
    min_delay_s: float = 0.001
    """No second request leaves sooner."""

    def __post_init__(self) -> None:
        if not 0 < self.percentile < 100:
            raise InvalidInput(f"Hedge.percentile lies between 0 and 100, found {self.percentile!r}")
        check_ratio(self.budget, "Hedge.budget")
        check_timeout(self.min_delay_s, "Hedge.min_delay_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class Balancing:
    """Which of several servers gets a call, and when one is left alone."""

    policy: Literal["least_outstanding", "power_of_two", "round_robin"] = "least_outstanding"
    """The one with the fewest unanswered calls; the better of two drawn at random; each in turn."""
    eject_after: int = 5
    """Failures in a row after which a server that answers is ejected; one that cannot be reached is at once."""
    eject_s: float = 1.0
    """How long it gets no calls the first time; doubled each time it fails again."""
    max_eject_s: float = 10.0
    """The longest time without calls."""
    all_ejected: Literal["try", "refuse"] = "try"
    """When all servers are ejected: try one all the same, or refuse at once (an open circuit)."""
    refresh_s: float = 30.0
    """How often the addresses of ``dns:///`` or a function are looked up again."""

    def __post_init__(self) -> None:
        _check_one_of(self.policy, ("least_outstanding", "power_of_two", "round_robin"), "Balancing.policy")
        _check_one_of(self.all_ejected, ("try", "refuse"), "Balancing.all_ejected")
        if self.eject_after < 1:
            raise InvalidInput(f"Balancing.eject_after is at least 1, found {self.eject_after}")
        for name in ("eject_s", "max_eject_s", "refresh_s"):
            check_timeout(getattr(self, name), f"Balancing.{name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a client takes on at most."""

    inflight: int | None = None
    """Calls at a time; further ones wait, within their deadline."""
    max_response_bytes: int = 2**31 - 1
    """The largest answer that is read; the default is the largest that gRPC can carry."""

    def __post_init__(self) -> None:
        if self.inflight is not None and self.inflight < 1:
            raise InvalidInput(f"Limits.inflight is at least 1, or None for no limit, found {self.inflight}")
        if not 0 < self.max_response_bytes < 2**31:
            raise InvalidInput(
                f"Limits.max_response_bytes lies between 1 and 2**31 - 1, found {self.max_response_bytes}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedMemory:
    """Large tensors reach a server on this machine through memory that both see, instead of the connection.

    The server must allow it (Triton's system shared memory; the embedded server wants the admin secret for it). Where
    it does not, or sees another ``/dev/shm``, requests go over the connection as if nothing had been said.
    """

    max_bytes: int = 1 << 30
    """All of it together; requests that find none free go over the connection."""
    min_tensor_bytes: int = 1 << 18
    """Requests whose inputs or outputs are smaller go over the connection, which is as fast for them."""
    servers: Literal["local", "all"] = "local"
    """Those at loopback addresses and Unix sockets; or all, for containers that share their ``/dev/shm``."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "min_tensor_bytes"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"SharedMemory.{name} is at least 1, found {getattr(self, name)!r}")
        _check_one_of(self.servers, ("local", "all"), "SharedMemory.servers")

    @classmethod
    def of(cls, value: SharedMemory | bool | str) -> SharedMemory | None:
        """Read what a client was given; ``None`` is without."""
        if isinstance(value, SharedMemory):
            return value
        if value is False:
            return None
        if value is True or value == "auto":
            return cls(servers="all" if value is True else "local")
        raise InvalidInput(f"shared_memory is 'auto', True, False or a SharedMemory, found {value!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CudaMemory:
    """Tensors on a GPU reach a server on the same GPU through memory that both see, without a copy in the host's.

    The server must allow it (Triton's CUDA shared memory; the embedded server wants the admin secret for it), run on
    the same machine and see the same GPU.
    """

    max_bytes: int = 1 << 30
    """All of it together, on all GPUs, with the outputs that somebody still has."""
    region_bytes: int = 64 << 20
    """How much is allocated and registered at a time, at least."""
    servers: Literal["local", "all"] = "local"
    """Those at loopback addresses and Unix sockets; or all, for containers that share this machine's GPU and IPC."""
    fallback: bool = False
    """Whether tensors go by the host's memory, with a line in the log, where it cannot be had; else it is an error."""
    host_inputs: bool = False
    """Whether arrays in the host's memory are copied to the GPU, too, in requests that use it."""
    server_devices: Mapping[int, int] = field(default_factory=dict[int, int])
    """The server's number of a GPU, by this process's, where CUDA_VISIBLE_DEVICES makes them differ."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "region_bytes"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"CudaMemory.{name} is at least 1, found {getattr(self, name)!r}")
        _check_one_of(self.servers, ("local", "all"), "CudaMemory.servers")

    @classmethod
    def of(cls, value: CudaMemory | bool | str) -> CudaMemory | None:
        """Read what a client was given; ``None`` is without."""
        if isinstance(value, CudaMemory):
            return value
        if value is False:
            return None
        if value is True or value == "auto":
            return cls(servers="all" if value is True else "local", fallback=value is not True)
        raise InvalidInput(f"cuda_memory is 'auto', True, False or a CudaMemory, found {value!r}")


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


def check_ratio(value: float, name: str) -> float:
    """Return ``value`` if it is a share of calls, 0 or more; raise :class:`InvalidInput` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InvalidInput(f"{name} is a number of 0 or more, found {value!r}")
    return float(value)


def _check_one_of(value: str, allowed: tuple[str, ...], name: str) -> None:
    if value not in allowed:
        raise InvalidInput(f"{name} is one of {', '.join(allowed)}, found {value!r}")

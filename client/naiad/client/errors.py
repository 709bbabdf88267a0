"""Everything that can go wrong in a call, one class for each thing a caller would do differently.

::

    ClientError
    ├── InvalidInput (ValueError)        the request or an argument is wrong: correct it
    ├── ModelNotFound                    no such model or version is served: load it, or correct the name
    ├── AccessDenied                     the server wants another secret, certificate or identity
    ├── DeadlineExceeded (TimeoutError)  the deadline passed; the answer may still have been computed
    ├── Cancelled                        the call was cancelled on the way
    ├── ServerUnavailable                nobody answers there: try again later, or another server
    │   ├── Overloaded                   the server answers, but its queue or memory is full: send less
    │   └── SequenceLost                 the server has lost the state of a sequence: begin a new one
    ├── Unsupported                      this server, or this model, does not offer the method
    ├── InferenceFailed                  the server or the model broke while computing
    ├── InvalidResponse                  the answer does not follow the protocol
    └── ClientClosed                     the client was used after ``close()``

gRPC's statuses are translated in :func:`from_status`, from the one table below; nothing else in this package looks
at them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

__all__ = [
    "AccessDenied",
    "Cancelled",
    "ClientClosed",
    "ClientError",
    "DeadlineExceeded",
    "InferenceFailed",
    "InvalidInput",
    "InvalidResponse",
    "ModelNotFound",
    "Overloaded",
    "SequenceLost",
    "ServerUnavailable",
    "Unsupported",
]


class ClientError(Exception):
    """The root of this package's errors. The fields are what one would log; any of them may be ``None``.

    ``status`` is the name of the gRPC status (``"UNAVAILABLE"``), ``retryable`` whether the same request may be
    sent again as it is, ``unprocessed`` whether it is known that no server ran it.
    """

    retryable_by_default: ClassVar[bool] = False
    rows: range | None = None
    """The rows that failed, of those given to ``infer_many``; ``None`` where that is not what was called."""

    def __init__(
        self,
        message: str,
        *,
        model: str | None = None,
        version: str | None = None,
        endpoint: str | None = None,
        request_id: str | None = None,
        status: str | None = None,
        retryable: bool | None = None,
        unprocessed: bool = False,
    ) -> None:
        super().__init__(message)
        self.model = model
        self.version = version
        self.endpoint = endpoint
        self.request_id = request_id
        self.status = status
        self.retryable: bool = self.retryable_by_default if retryable is None else retryable
        self.unprocessed = unprocessed

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[ClientError], args: tuple[Any, ...], fields: dict[str, Any]) -> ClientError:
    error = cls(*args)
    error.__dict__.update(fields)
    return error


class InvalidInput(ClientError, ValueError):
    """The request, or an argument, is wrong."""


class ModelNotFound(ClientError):
    """The server serves no such model or version."""


class AccessDenied(ClientError):
    """The server wants another secret, certificate or identity."""


class DeadlineExceeded(ClientError, TimeoutError):
    """The deadline of the call passed."""


class Cancelled(ClientError):
    """The call was cancelled."""


class ServerUnavailable(ClientError):
    """Nobody answers at the endpoint."""

    retryable_by_default = True


class Overloaded(ServerUnavailable):
    """The server answers, but cannot take this request now."""


class SequenceLost(ServerUnavailable):
    """The server has lost the state of a sequence; only a new one, from its start, makes sense."""

    retryable_by_default = False


class Unsupported(ClientError):
    """This server or model does not offer the method."""


class InferenceFailed(ClientError):
    """The server or the model broke while it computed the answer."""


class InvalidResponse(ClientError):
    """The answer does not follow the KServe v2 protocol."""


class ClientClosed(ClientError):
    """The client was used after ``close()``."""


STATUS_TABLE: Final[dict[str, type[ClientError]]] = {
    "CANCELLED": Cancelled,
    "UNKNOWN": InferenceFailed,
    "INVALID_ARGUMENT": InvalidInput,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "NOT_FOUND": ModelNotFound,
    "ALREADY_EXISTS": InvalidInput,
    "PERMISSION_DENIED": AccessDenied,
    "RESOURCE_EXHAUSTED": Overloaded,
    "FAILED_PRECONDITION": InvalidInput,
    "ABORTED": InferenceFailed,
    "OUT_OF_RANGE": InvalidInput,
    "UNIMPLEMENTED": Unsupported,
    "INTERNAL": InferenceFailed,
    "UNAVAILABLE": ServerUnavailable,
    "DATA_LOSS": InvalidResponse,
    "UNAUTHENTICATED": AccessDenied,
}

_NO_REQUEST_ID: Final = "[request id: <id_unknown>] "

# Statuses that stand for several things, told apart by their text. Triton answers UNAVAILABLE for much that has nothing
# to do with a server that is away; gRPC answers RESOURCE_EXHAUSTED for a message that is larger than we accept.
_EXCEPT: Final[dict[str, tuple[tuple[str, type[ClientError]], ...]]] = {
    "INVALID_ARGUMENT": (("Request for unknown model", ModelNotFound),),  # of trace settings
    "INTERNAL": (("failed to poll from model repository", InvalidInput),),  # what it was asked to load is wrong
    "UNAVAILABLE": (
        ("protocol is restricted", AccessDenied),
        ("Exceeds maximum queue size", Overloaded),
        ("Request timeout expired", Overloaded),
        ("explicit model load / unload is not allowed", Unsupported),
    ),
    "RESOURCE_EXHAUSTED": (
        ("Received message larger than max", InvalidResponse),
        ("metadata size exceeds", InvalidResponse),
    ),
}

# The server, or the way to it, says that it did not run the request.
_NOT_RUN: Final = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "Name resolution",
    "DNS resolution failed",
    "GOAWAY received",  # of streams that the server says it has not seen
    "Stream refused",
    "Exceeds maximum queue size",
    "Request timeout expired",
    "Server is stopping",
    "Server exiting",
    "Server not ready",
    "is not at ready state",  # of a version that is named, while the server stops or the model loads
)

# INTERNAL, but of this server only: a Python model's process died, which Triton does not repair.
_BROKEN_THERE: Final = ("Stub process", "is not healthy")


@dataclass(frozen=True, kw_only=True, slots=True)
class CallContext:
    """What is known about a call when it fails: it becomes the fields of the error."""

    endpoint: str
    method: str
    model: str | None = None
    version: str | None = None
    request_id: str | None = None
    timeout_s: float | None = None


def from_status(status: str, details: str, context: CallContext) -> ClientError:
    """Translate a gRPC status and its text into the error a caller can act on."""
    cls = STATUS_TABLE.get(status, InferenceFailed)
    cls = next((other for text, other in _EXCEPT.get(status, ()) if text in details), cls)
    unprocessed = issubclass(cls, ServerUnavailable) and any(text in details for text in _NOT_RUN)
    broken_there = cls is InferenceFailed and all(text in details for text in _BROKEN_THERE)
    return cls(
        _message(cls, details.removeprefix(_NO_REQUEST_ID), context, unprocessed),
        model=context.model,
        version=context.version,
        endpoint=context.endpoint,
        request_id=context.request_id,
        status=status,
        retryable=True if broken_there else None,
        unprocessed=unprocessed,
    )


def shutting_down(error: ClientError, context: CallContext) -> ServerUnavailable:
    """Translate a refusal by a server that is on its way out: Triton unloads its models first, and says NOT_FOUND."""
    return ServerUnavailable(
        f"the server at {context.endpoint} is shutting down ({error})",
        model=context.model,
        version=context.version,
        endpoint=context.endpoint,
        request_id=context.request_id,
        status=error.status,
        unprocessed=True,
    )


_NOT_LOADED: Final = (
    "; the reason is in the server's log alone: no such model in its repository, a configuration that it cannot read, "
    "or a file of it with a wrong path"
)


def _message(cls: type[ClientError], details: str, context: CallContext, unprocessed: bool) -> str:
    where = context.endpoint
    what = f"{context.method} of model '{context.model}'" if context.model else context.method
    if cls is ServerUnavailable:
        reason = details.strip(": ").rsplit(": ", 1)[-1] or "no reason given"
        if not unprocessed:
            return f"{where} was lost while it had {what} ({reason}): it may have run there"
        return (
            f"no Triton server answers at {where} ({reason}): start one with `naiad serve model_repository`, "
            "or give the address of one that runs"
        )
    if cls is ModelNotFound:
        return f"{where} does not serve what was asked for: {details} (`Client.models()` lists what it has)"
    if cls is DeadlineExceeded:
        limit = "" if context.timeout_s is None else f" within {context.timeout_s:g} s"
        return f"{what} got no answer from {where}{limit}: the server is slower than the deadline allows, or is stuck"
    if cls is AccessDenied:
        return f"{where} refused {what}: {details}; give the server's admin secret, or the identity it expects"
    advice = _NOT_LOADED if "failed to poll from model repository" in details else ""
    return f"{what} at {where}: {details or cls.__doc__}{advice}"

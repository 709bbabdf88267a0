"""Saying no as a server does: a gRPC status and a text."""

from __future__ import annotations

from typing import Final

from naiad.client.errors import STATUS_TABLE, InvalidInput

UNKNOWN_ID: Final = "<id_unknown>"


class Refusal(Exception):
    """Raised by a model's function to answer with an error of its choice.

    ``status`` is the name of a gRPC status. Any other exception of the function is answered as Triton's Python
    backend answers it: INTERNAL, with the exception's text.

    Raises:
        InvalidInput: there is no such status.
    """

    def __init__(self, message: str, status: str = "INVALID_ARGUMENT") -> None:
        super().__init__(message)
        self.message = message
        self.status: str = checked_status(status)


def checked_status(status: str) -> str:
    """Return the name of a gRPC status other than OK; raise :class:`InvalidInput` for anything else."""
    if status not in STATUS_TABLE:
        raise InvalidInput(f"expected the name of a gRPC status like 'UNAVAILABLE', found {status!r}")
    return status


def invalid(message: str, request_id: str | None = None) -> Refusal:
    """Return INVALID_ARGUMENT; with ``request_id``, in the form that Triton's core gives its texts."""
    return Refusal(message if request_id is None else f"[request id: {request_id or UNKNOWN_ID}] {message}")

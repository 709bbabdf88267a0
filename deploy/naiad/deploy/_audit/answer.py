"""What a server says to a request that should perhaps not be answered, in gRPC and in HTTP."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final


class Reach(Enum):
    """How far a request came."""

    OPEN = "open"
    """The server dealt with it, be it with an error of its own."""
    REFUSED = "refused"
    """Who asked may not."""
    ABSENT = "absent"
    """There is no such API here, or it is switched off."""
    SILENT = "silent"
    """No answer, or nobody behind the gateway."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer, read the same way for both protocols."""

    status: str
    """A gRPC status, or an HTTP one."""
    reach: Reach
    text: str = ""
    """The message of an error, or the beginning of the body."""
    body: Any = None
    """The parsed message or JSON document of a success."""

    @property
    def said(self) -> str:
        """The status with the message, short."""
        return f"{self.status} {self.text[:120]}".strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One API, asked without a credential and, if there is one, with it."""

    api: str
    over: str
    """`gRPC` or `HTTP`."""
    anonymous: Answer
    authorised: Answer | None = None

    @property
    def best(self) -> Answer:
        """The answer that came further."""
        authorised = self.authorised
        return authorised if authorised and authorised.reach is Reach.OPEN else self.anonymous


_SWITCHED_OFF: Final = re.compile(
    r"explicit model load / unload is not allowed|not supported|not enabled", re.IGNORECASE
)
_RESTRICTED: Final = re.compile(r"restricted, expecting header '([^']+)'")
_GRPC: Final = {
    "OK": Reach.OPEN,
    "UNIMPLEMENTED": Reach.ABSENT,
    "UNAUTHENTICATED": Reach.REFUSED,
    "PERMISSION_DENIED": Reach.REFUSED,
    "RESOURCE_EXHAUSTED": Reach.REFUSED,
    "UNAVAILABLE": Reach.SILENT,
    "DEADLINE_EXCEEDED": Reach.SILENT,
    "CANCELLED": Reach.SILENT,
}
_HTTP: Final = {
    401: Reach.REFUSED,
    403: Reach.REFUSED,
    413: Reach.REFUSED,
    429: Reach.REFUSED,
    404: Reach.ABSENT,
    405: Reach.ABSENT,
    501: Reach.ABSENT,
    502: Reach.SILENT,
    503: Reach.SILENT,
    504: Reach.SILENT,
}


def grpc_answer(status: str, text: str, body: Any = None) -> Answer:
    """Read a gRPC status. Triton refuses restricted APIs with UNAVAILABLE."""
    reach = _by_text(text) or _GRPC.get(status, Reach.OPEN)
    return Answer(status=status, reach=reach, text=text, body=body)


def http_answer(status: int, text: str, body: Any = None) -> Answer:
    """Read an HTTP status; a 404 about a model is Triton's answer to a request that came through."""
    reach = _by_text(text) if status >= 400 else None
    if reach is None:
        reach = Reach.OPEN if status == 404 and "unknown model" in text else _HTTP.get(status, Reach.OPEN)
    return Answer(status=str(status), reach=reach, text=text, body=body)


def expected_header(answer: Answer) -> str | None:
    """The header that a restricted API of Triton's asks for."""
    match = _RESTRICTED.search(answer.text)
    return match[1] if match else None


def _by_text(text: str) -> Reach | None:
    if _RESTRICTED.search(text):
        return Reach.REFUSED
    return Reach.ABSENT if _SWITCHED_OFF.search(text) else None

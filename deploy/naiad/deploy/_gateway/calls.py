"""The kinds of calls that are routed differently; which of them exist at all, `identity` knows."""

from dataclasses import dataclass
from typing import Literal

from naiad.deploy._gateway._document import Message
from naiad.deploy._gateway.clusters import Protocol

Kind = Literal["infer", "stream", "change", "read"]

_SERVICE = "/inference.GRPCInferenceService/"
_CHANGES = "RepositoryModel(?:Load|Unload)|(?:System|Cuda)SharedMemory(?:Register|Unregister)|TraceSetting|LogSettings"
_MODEL = "/v2/models/[^/]+(?:/versions/[^/]+)?"


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """Calls of one protocol that are treated alike."""

    kind: Kind
    """infer: one request, one answer. stream: of either many, or an answer in parts. change: of the server's state.
    read: everything else."""
    protocol: Protocol
    path: str | None = None
    """A regular expression of the whole path; None for any."""
    verb: str | None = None

    def match(self) -> Message:
        """The part of a route's match that tells these calls."""
        match: Message = {"prefix": "/"} if self.path is None else {"safe_regex": {"regex": self.path}}
        if self.protocol == "grpc":
            match["grpc"] = {}
        if self.verb:
            match["headers"] = [{"name": ":method", "string_match": {"exact": self.verb}}]
        return match


CALLS = (
    Call(kind="infer", protocol="grpc", path=f"{_SERVICE}ModelInfer"),
    Call(kind="stream", protocol="grpc", path=f"{_SERVICE}ModelStreamInfer"),
    Call(kind="change", protocol="grpc", path=f"{_SERVICE}(?:{_CHANGES})"),
    Call(kind="read", protocol="grpc"),
    Call(kind="infer", protocol="http", path=f"{_MODEL}/(?:infer|generate)"),
    Call(kind="stream", protocol="http", path=f"{_MODEL}/generate_stream"),
    Call(kind="read", protocol="http", path="/v2/repository/index"),
    Call(kind="change", protocol="http", verb="POST"),
    Call(kind="read", protocol="http"),
)
"""The first that fits is it."""

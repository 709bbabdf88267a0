"""What a service is: the one description that the gateway, the containers and the local form are rendered from.

It says nothing about a machine: no address, no port, no path of one. Those belong to a rendering (`Place`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from naiad.deploy._checks import (
    HEADER,
    IDENTITY,
    LABEL,
    MODEL,
    PATTERN,
    check_name,
    check_names,
    check_range,
    check_release,
    wrong,
)
from naiad.deploy._fits import check_fits

__all__ = [
    "ANONYMOUS",
    "Canary",
    "Identity",
    "Issuer",
    "Limits",
    "Objective",
    "Pool",
    "Rights",
    "Service",
    "Shadow",
    "Triton",
]

ANONYMOUS: Final = "anonymous"
"""What logs and metrics call somebody without an identity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Triton:
    """The servers behind the gateway."""

    release: str = "26.07"
    """NVIDIA's release of the container, as in `nvcr.io/nvidia/tritonserver:26.07-py3`."""
    model_control: Literal["none", "explicit"] = "none"
    """`explicit` lets administrators load and unload models while the service runs."""
    gpus_per_replica: int | Literal["all"] = "all"
    """GPUs that a replica reserves; with `all`, replicas share them."""
    shared_memory_mb: int = 1024
    """Size of a replica's /dev/shm in MiB."""
    exit_timeout_s: int = 30
    """Seconds that Triton gives requests in flight when it is asked to end."""

    def __post_init__(self) -> None:
        check_release(self.release)
        if self.gpus_per_replica != "all":
            check_range(self.gpus_per_replica, "gpus_per_replica", least=1, most=64)
        check_range(self.shared_memory_mb, "shared_memory_mb", least=64)
        check_range(self.exit_timeout_s, "exit_timeout_s", least=1, most=3600)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the gateway lets through at most."""

    request_mb: float = 64.0
    """Largest request body in MiB."""
    response_timeout_s: float = 60.0
    """Seconds until the gateway gives up an answer; streams have no such limit."""
    stream_idle_timeout_s: float = 300.0
    """Seconds without a byte in either direction until a stream is ended."""
    num_connections: int = 4096
    """Connections of clients at a time."""
    num_concurrent_streams: int = 1024
    """Requests at a time on one HTTP/2 connection."""
    header_kb: int = 32
    """All headers of a request together, in KiB."""
    header_timeout_s: float = 10.0
    """Seconds that a client has to send its headers."""
    num_pending: int = 4096
    """Requests in flight or waiting per pool before further ones are refused."""
    memory_mb: int = 2048
    """Memory of the gateway in MiB; close to it, the largest requests and then all new ones are refused."""

    def __post_init__(self) -> None:
        check_range(self.request_mb, "request_mb", over=0, most=2047)  # a gRPC message of Triton has at most 2 GiB
        for name in ("response_timeout_s", "stream_idle_timeout_s", "header_timeout_s"):
            check_range(getattr(self, name), name, over=0, most=86_400)
        for name in ("num_connections", "num_concurrent_streams", "num_pending"):
            check_range(getattr(self, name), name, least=1, most=1_000_000)
        check_range(self.memory_mb, "memory_mb", least=128)
        check_range(self.header_kb, "header_kb", least=1, most=8192)  # the gateway's own bound


@dataclass(frozen=True, kw_only=True, slots=True)
class Rights:
    """What somebody may do. Models are names or patterns with `*`, as in `resnet*`."""

    infer: tuple[str, ...] = ()
    """Models that may be asked for inferences, and for what a client needs for that: metadata, configuration,
    readiness."""
    observe: tuple[str, ...] = ()
    """Models whose metadata, configuration and statistics may be read; with `*` also the repository's index."""
    admin: bool = False
    """May load and unload models, register and use shared memory, change trace and log settings, and observe all."""

    def __post_init__(self) -> None:
        check_names(self.infer, PATTERN, "infer")
        check_names(self.observe, PATTERN, "observe")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Somebody who calls: by API key, by client certificate, by token."""

    name: str
    rights: Rights = Rights()
    requests_per_s: float | None = None
    """Requests per second on average; None for no limit."""
    burst: int | None = None
    """Requests at once before the limit is felt; None for one second's worth."""
    request_mb: float | None = None
    """Largest request body in MiB; None for the gateway's."""
    certificates: tuple[str, ...] = ()
    """Subject alternative names (URI or DNS) of client certificates that are this identity."""
    tokens: tuple[str, ...] = ()
    """JSON Web Tokens that are this identity, as `issuer-name/subject`."""

    def __post_init__(self) -> None:
        check_name(self.name, IDENTITY, "name")
        if self.name == ANONYMOUS:
            raise wrong(
                "a name of its own", self.name, "name", do="what everybody may do stands in the table [anonymous]"
            )
        check_range(self.requests_per_s, "requests_per_s", over=0, most=1_000_000)
        check_range(self.burst, "burst", least=1, most=1_000_000)
        check_range(self.request_mb, "request_mb", over=0)
        if self.burst is not None and self.requests_per_s is None:
            raise wrong("it beside requests_per_s", self.burst, "burst", do="say how many requests a second there are")
        for number, name in enumerate(self.certificates):
            if not name or name != "".join(name.split()):
                expected = "an alternative name of a certificate, as spiffe://example.com/vision or vision.example.com"
                raise wrong(expected, name, "certificates", number)
        for number, token in enumerate(self.tokens):
            if not all(token.partition("/")):
                raise wrong("issuer-name/subject", token, "tokens", number)


@dataclass(frozen=True, kw_only=True, slots=True)
class Issuer:
    """Whose JSON Web Tokens are believed; its keys lie in `<secrets>/jwks/<name>.json`.

    Its next keys come as an issuer of another name with the same `iss`, so that both count while callers change over.
    """

    name: str
    issuer: str
    """The `iss` claim."""
    audiences: tuple[str, ...] = ()
    """Values of `aud` of which one must be there; empty for any."""
    claim: str = "sub"
    """The claim that names the caller."""

    def __post_init__(self) -> None:
        check_name(self.name, LABEL, "name")
        if not self.issuer:
            raise wrong("the iss claim of its tokens", self.issuer, "issuer")
        if not self.claim:
            raise wrong("the name of a claim, as sub", self.claim, "claim")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Replicas that serve the same repository."""

    name: str
    num_replicas: int = 1
    repository: str | None = None
    """A repository of its own (`s3://…`, or a path beside the description); None for the service's."""

    def __post_init__(self) -> None:
        check_name(self.name, LABEL, "name")
        check_range(self.num_replicas, "num_replicas", least=1, most=100)
        if self.repository is not None and not self.repository.strip():
            raise wrong("a path, or s3://bucket/path", self.repository, "repository")


@dataclass(frozen=True, kw_only=True, slots=True)
class Canary:
    """A share of the traffic that goes to another pool."""

    pool: str
    weight_percent: float = 0.0
    models: tuple[str, ...] = ("*",)
    """Models that take part."""
    header: str = "x-naiad-canary"
    """With the value `always` or `never` a caller chooses for itself."""

    def __post_init__(self) -> None:
        check_range(self.weight_percent, "weight_percent", least=0, most=100)
        check_names(self.models, PATTERN, "models")
        if not self.header.startswith("x-") or self.header in ("x-naiad-identity", "x-naiad-model", "x-api-key"):
            raise wrong("a header of its own in small letters that begins with x-", self.header, "header")
        check_name(self.header, HEADER, "header")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shadow:
    """A copy of the traffic that goes to another pool, whose answers nobody sees."""

    pool: str
    percent: float = 100.0
    models: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        check_range(self.percent, "percent", least=0, most=100)
        check_names(self.models, PATTERN, "models")


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """What is promised for a model; alerts hold the service to it."""

    model: str
    p99_ms: float | None = None
    error_percent: float = 1.0

    def __post_init__(self) -> None:
        check_name(self.model, MODEL, "model")
        check_range(self.p99_ms, "p99_ms", over=0)
        check_range(self.error_percent, "error_percent", over=0, most=100)


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A whole service. The default is two replicas behind a gateway that lets nobody in."""

    name: str = "naiad"
    triton: Triton = Triton()
    limits: Limits = Limits()
    tls: bool = True
    """Whether callers must use TLS."""
    client_certificates: Literal["none", "optional", "required"] = "none"
    revocations: bool = False
    """Whether `clients.crl` among the secrets lists client certificates that are no longer valid."""
    identities: tuple[Identity, ...] = ()
    anonymous: Rights | None = None
    """What callers without an identity may do; None for nothing."""
    anonymous_requests_per_s: float | None = None
    """Requests per second of all callers without an identity together; None for no limit."""
    issuers: tuple[Issuer, ...] = ()
    pools: tuple[Pool, ...] = field(default_factory=lambda: (Pool(name="main", num_replicas=2),))
    """The first is where traffic goes."""
    canary: Canary | None = None
    shadow: Shadow | None = None
    objectives: tuple[Objective, ...] = ()
    trace_percent: float = 1.0
    """Share of requests whose trace goes to the collector, where the caller has not decided."""

    def __post_init__(self) -> None:
        check_name(self.name, LABEL, "name")
        check_range(self.anonymous_requests_per_s, "anonymous_requests_per_s", over=0, most=1_000_000)
        check_range(self.trace_percent, "trace_percent", least=0, most=100)
        check_fits(self)

    @classmethod
    def load(cls, path: str | Path) -> Service:
        """Read the description from a TOML file; see :func:`naiad.deploy.load.load_service`."""
        from naiad.deploy.load import load_service  # it imports this module

        return load_service(path)

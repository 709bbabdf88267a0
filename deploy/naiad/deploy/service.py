"""What a service is: the one description that the gateway, the containers and the local form are rendered from.

It says nothing about a machine: no address, no port, no path of one. Those belong to a rendering (`Place`).
"""

from dataclasses import dataclass, field
from typing import Literal


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Rights:
    """What somebody may do. Models are names or patterns with `*`, as in `resnet*`."""

    infer: tuple[str, ...] = ()
    """Models that may be asked for inferences, and for their metadata and readiness."""
    observe: tuple[str, ...] = ()
    """Models whose metadata, configuration and statistics may be read; with `*` also the repository's index."""
    admin: bool = False
    """May load and unload models, register shared memory, and change trace and log settings."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Issuer:
    """Whose JSON Web Tokens are believed; its keys lie in `<secrets>/jwks/<name>.json`."""

    name: str
    issuer: str
    """The `iss` claim."""
    audiences: tuple[str, ...] = ()
    """Values of `aud` of which one must be there; empty for any."""
    claim: str = "sub"
    """The claim that names the caller."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Replicas that serve the same repository."""

    name: str
    num_replicas: int = 1
    repository: str | None = None
    """A repository of its own (`s3://…`, or a path beside the description); None for the service's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Canary:
    """A share of the traffic that goes to another pool."""

    pool: str
    weight_percent: float = 0.0
    models: tuple[str, ...] = ("*",)
    """Models that take part."""
    header: str = "x-naiad-canary"
    """With the value `always` or `never` a caller chooses for itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shadow:
    """A copy of the traffic that goes to another pool, whose answers nobody sees."""

    pool: str
    percent: float = 100.0
    models: tuple[str, ...] = ("*",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """What is promised for a model; alerts hold the service to it."""

    model: str
    p99_ms: float | None = None
    error_percent: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A whole service. The default is two replicas behind a gateway that lets nobody in."""

    name: str = "naiad"
    triton: Triton = Triton()
    limits: Limits = Limits()
    tls: bool = True
    """Whether callers must use TLS."""
    client_certificates: Literal["none", "optional", "required"] = "none"
    identities: tuple[Identity, ...] = ()
    anonymous: Rights | None = None
    """What callers without an identity may do; None for nothing."""
    issuers: tuple[Issuer, ...] = ()
    pools: tuple[Pool, ...] = field(default_factory=lambda: (Pool(name="main", num_replicas=2),))
    """The first is where traffic goes."""
    canary: Canary | None = None
    shadow: Shadow | None = None
    objectives: tuple[Objective, ...] = ()
    trace_percent: float = 1.0
    """Share of requests whose trace goes to the collector, where the caller has not decided."""

"""What an embedded Triton is started with."""

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from naiad.server import _gpus
from naiad.server.errors import InvalidOption

# Triton splits the option that carries it at the other characters.
_SECRET: Final = re.compile(r"[A-Za-z0-9_.~-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Company:
    """What a server that serves beside others shares with them."""

    turn: AbstractContextManager[object] = field(default_factory=nullcontext)
    """Held while changed models are loaded: one server at a time."""
    tell: Callable[[bool, Collection[str]], None] = lambda fit, models: None
    """Called with False when a process of this server was found dead or hanging, and the models that are concerned;
    with True when it serves again."""


ALONE: Final = Company()
_EXPOSING: Final = (
    "--grpc-address",
    "--http-address",
    "--metrics-address",
    "--allow-sagemaker",
    "--allow-vertex-ai",
)
"""The two platforms' endpoints listen on every interface, and know no restricted APIs in 2.51."""
_EXPOSING_MIN_LETTERS: Final = len("--grpc-a")
"""Triton takes any beginning that is unique for an option (getopt_long), as in `--http-addr`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The arguments of `EmbeddedTriton`, checked."""

    repository: Path | str
    """A directory, or the URL of a bucket."""
    models: Sequence[str] | None = None
    """Names of the models to load; None for all."""
    grpc_port: int = 0
    http_port: int = 0
    metrics_port: int = 0
    auto_complete: bool = False
    """Let Triton complete unfinished configurations; costs more than a second at every load."""
    response_cache_bytes: int = 0
    ready_timeout_s: float = 60.0
    drain_timeout_s: float = 10.0
    supervise: bool = True
    watch: bool = False
    exit_on_load_error: bool = True
    extra_args: tuple[str, ...] = ()
    """Further arguments of `tritonserver`, appended to ours."""
    home: Path | None = None
    log_path: Path | None = None
    gpus: str | None = None
    """"all", "none", numbers as "0,1" or UUIDs as "GPU-8932f937-…"; None for what there is."""
    cuda_memory_pool_bytes: int | None = None
    """On each GPU; None for a share of its memory."""
    pinned_memory_pool_bytes: int | None = None
    """None for Triton's own 256 MiB."""
    admin_secret: str | None = None
    """What the restricted APIs ask for; None for a random one."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if isinstance(self.models, str):
            raise InvalidOption(f"Expected a sequence of model names, found the string {self.models!r}.")
        if self.ready_timeout_s <= 0:
            raise InvalidOption(f"Expected ready_timeout_s > 0, found {self.ready_timeout_s}.")
        if self.drain_timeout_s < 0:
            raise InvalidOption(f"Expected drain_timeout_s >= 0, found {self.drain_timeout_s}.")
        if self.response_cache_bytes < 0:
            raise InvalidOption(f"Expected response_cache_bytes >= 0, found {self.response_cache_bytes}.")
        _gpus.check(self.gpus)
        for pool in ("cuda_memory_pool_bytes", "pinned_memory_pool_bytes"):
            size_bytes = getattr(self, pool)
            if size_bytes is not None and size_bytes < 0:
                raise InvalidOption(f"Expected {pool} >= 0, found {size_bytes}.")
        if self.admin_secret is not None and not _SECRET.fullmatch(self.admin_secret):
            raise InvalidOption("Expected admin_secret of letters, digits and _ . ~ - only, found something else.")
        for argument in filter(_exposes, self.extra_args):
            raise InvalidOption(
                f"Expected extra_args that leave Triton on loopback, found {argument!r}: the embedded Triton lacks "
                "security fixes, so others must not reach it. Use the gateway (`naiad serve --gateway`), or NVIDIA's "
                "container."
            )


def _exposes(argument: str) -> bool:
    name = argument.partition("=")[0]
    return len(name) >= _EXPOSING_MIN_LETTERS and any(option.startswith(name) for option in _EXPOSING)

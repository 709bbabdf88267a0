"""What an embedded Triton is started with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from naiad.server.errors import InvalidOption


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The arguments of `EmbeddedTriton`, checked."""

    repository: Path
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
    """CUDA_VISIBLE_DEVICES for the server: "0,1", or "" for none; None leaves it as it is."""

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

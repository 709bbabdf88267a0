"""What an embedded Triton is started with."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from naiad.server.errors import InvalidOption

_GPUS: Final = re.compile(r"all|none|\d+(,\d+)*")


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
    """"all", "none", or their numbers as "0,1"; None leaves the choice to the environment."""

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
        if self.gpus is not None and not _GPUS.fullmatch(self.gpus):
            raise InvalidOption(f"Expected gpus to be 'all', 'none' or numbers such as '0,1', found {self.gpus!r}.")

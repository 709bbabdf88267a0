"""Settings that need the server's help, cost more than they say, or exclude each other."""

from collections.abc import Iterator
from typing import Any

from naiad.export.errors import InvalidExport
from naiad.export.report import Finding


def complete(config: Any) -> None:
    """Fill in what Triton demands beside a setting: the level of requests that name none, in the middle."""
    batching = config.dynamic_batching
    if config.HasField("dynamic_batching") and batching.priority_levels and not batching.default_priority_level:
        batching.default_priority_level = (batching.priority_levels + 1) // 2


def findings(config: Any) -> tuple[Finding, ...]:
    """Return one finding for each such setting.

    Raises:
        InvalidExport: Two settings exclude each other.
    """
    if config.response_cache.enable and config.HasField("sequence_batching"):
        raise InvalidExport("a response cache cannot serve sequences, whose answers depend on earlier requests")
    return tuple(Finding(check=check, message=message) for check, message in _found(config))


def _found(config: Any) -> Iterator[tuple[str, str]]:
    batching = config.dynamic_batching
    if batching.HasField("default_queue_policy") or batching.priority_queue_policy:
        yield (
            "queue policy",
            "Triton 24.10 checks a queue policy only when its batcher wakes, and stalls for up to half a second at a "
            "time with any: leave it out unless requests must be rejected; a client's deadline does the rest",
        )
    if config.response_cache.enable:
        yield (
            "response cache",
            "the server must have a cache: EmbeddedTriton(response_cache_bytes=…), or tritonserver "
            "--cache-config=local,size=…; an answer is kept for equal inputs, so it only pays where inputs repeat",
        )
    if any(group.rate_limiter.ByteSize() for group in config.instance_group):
        yield "rate limiter", "it has an effect only with tritonserver --rate-limit=execution_count"

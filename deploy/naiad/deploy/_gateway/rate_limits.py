"""Requests per second of each identity."""

import math
from collections.abc import Iterator

from naiad.deploy._gateway._document import Message, seconds
from naiad.deploy.service import ANONYMOUS, Service

_SHORTEST_S = 0.05
"""Envoy fills no bucket more often."""


def rate_limit(service: Service) -> Message:
    """The fields of a LocalRateLimit: a bucket for each identity that has a limit, and none for the others."""
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    unlimited = {"max_tokens": 4_000_000_000, "tokens_per_fill": 4_000_000_000, "fill_interval": "1s"}
    return {
        "stat_prefix": "limits",
        "rate_limited_as_resource_exhausted": True,
        "filter_enabled": always,
        "filter_enforced": always,
        "token_bucket": unlimited,
        "always_consume_default_token_bucket": False,
        "rate_limits": [
            {"actions": [{"request_headers": {"header_name": "x-naiad-identity", "descriptor_key": "identity"}}]}
        ],
        "descriptors": [_descriptor(*limit) for limit in _limits(service)],
    }


def _limits(service: Service) -> Iterator[tuple[str, float, int | None]]:
    """Name, requests per second and burst of whoever has a limit."""
    for identity in service.identities:
        if identity.requests_per_s is not None:
            yield identity.name, identity.requests_per_s, identity.burst
    if service.anonymous_requests_per_s is not None:
        yield ANONYMOUS, service.anonymous_requests_per_s, None


def _descriptor(name: str, requests_per_s: float, burst: int | None) -> Message:
    num_tokens = max(1, math.ceil(requests_per_s * _SHORTEST_S))
    bucket = {
        "max_tokens": burst or max(1, math.ceil(requests_per_s)),
        "tokens_per_fill": num_tokens,
        "fill_interval": seconds(num_tokens / requests_per_s),
    }
    return {"entries": [{"key": "identity", "value": name}], "token_bucket": bucket}

"""Requests per second of each identity."""

import math

from naiad.deploy._gateway._document import Message, seconds
from naiad.deploy.service import Identity, Service

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
        "descriptors": [
            {"entries": [{"key": "identity", "value": identity.name}], "token_bucket": _bucket(identity)}
            for identity in service.identities
            if identity.requests_per_s is not None
        ],
    }


def _bucket(identity: Identity) -> Message:
    rate = identity.requests_per_s
    assert rate is not None
    num_tokens = max(1, math.ceil(rate * _SHORTEST_S))
    return {
        "max_tokens": identity.burst or max(1, math.ceil(rate)),
        "tokens_per_fill": num_tokens,
        "fill_interval": seconds(num_tokens / rate),
    }

"""Which pools share the traffic of a kind of calls: the main one, the canary, the shadow."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from naiad.deploy._gateway._document import Message
from naiad.deploy._gateway.calls import Call
from naiad.deploy.service import Service

_WHOLE = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Traffic that has these headers, and where it goes."""

    pool: str
    headers: tuple[Message, ...] = ()
    canary: str = ""
    weights: tuple[int, int] | None = None
    """Of the pool, of the canary; None where all goes to the pool."""
    shadow: str = ""
    shadow_percent: float = 0.0


def shares(service: Service, call: Call) -> Iterator[Share]:
    """The shares of a call, those for special models and callers first."""
    for share in _canary_shares(service, call):
        yield from _shadowed(service, call, share)


def _canary_shares(service: Service, call: Call) -> Iterator[Share]:
    main = service.pools[0].name
    canary = service.canary
    if canary is not None:
        models = _of_models(canary.models)
        yield Share(pool=canary.pool, headers=(*models, _exactly(canary.header, "always")))
        if canary.weight_percent and call.kind in ("infer", "stream"):
            yield Share(pool=main, headers=(*models, _exactly(canary.header, "never")))
            weight = round(canary.weight_percent * _WHOLE / 100)
            yield Share(pool=main, headers=models, canary=canary.pool, weights=(_WHOLE - weight, weight))
    yield Share(pool=main)


def _shadowed(service: Service, call: Call, share: Share) -> Iterator[Share]:
    shadow = service.shadow
    # A stream is answered in its own time, by each pool in another: there is nothing to copy it for.
    if shadow is not None and shadow.percent and call.kind == "infer" and share.pool != shadow.pool:
        headers = (*share.headers, *_of_models(shadow.models))
        yield replace(share, headers=headers, shadow=shadow.pool, shadow_percent=shadow.percent)
        if "*" in shadow.models:
            return
    yield share


def _of_models(patterns: tuple[str, ...]) -> tuple[Message, ...]:
    if "*" in patterns:
        return ()
    either = "|".join(".*".join(re.escape(part) for part in pattern.split("*")) for pattern in patterns)
    return ({"name": "x-naiad-model", "string_match": {"safe_regex": {"regex": either}}},)


def _exactly(name: str, value: str) -> Message:
    return {"name": name, "string_match": {"exact": value}}

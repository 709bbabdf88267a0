"""The test itself as the report has it; no secret, no local path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from naiad.loadtest._data.codec import without_secret
from naiad.loadtest.plan import Data, Files, Golden, Load, LoadTest, Rate, Trace, Traffic, Users

if TYPE_CHECKING:
    from naiad.loadtest._data.target import Target

__all__ = ["target_json", "test_json"]


def test_json(test: LoadTest) -> dict[str, Any]:
    """Return the parameters of the test."""
    precision = test.precision
    return {
        "url": without_secret(test.connection.url),
        "load": _load_json(test.load),
        "traffic": [_traffic_json(traffic) for traffic in test.mix],
        "warmup_s": test.warmup_s,
        "max_warmup_s": test.max_warmup_s,
        "duration_s": test.duration_s,
        "max_duration_s": test.max_duration_s,
        "precision": None if precision is None else {"percentile": precision.percentile, "within": precision.within},
        "engines": test.engines,
        "connections": test.connections,
        "transport": test.transport,
        "realtime": test.realtime,
        "seed": test.seed,
        "price_per_hour": test.price_per_hour,
    }


def target_json(traffic: Traffic, target: Target) -> dict[str, Any]:
    """Return what served a model's requests."""
    signature = target.signature
    return {
        "model": traffic.model,
        "version": traffic.version,
        "served_versions": list(signature.metadata.versions),
        "backend": target.backend,
        "server_version": target.server_version,
        "max_batch_size": signature.max_batch_size,
        "instances": list(target.instances),
        "decoupled": signature.decoupled,
        "stateful": signature.stateful,
    }


def _load_json(load: Load) -> dict[str, Any]:
    nothing = dict.fromkeys(("users", "spawn_rate", "per_s", "arrivals", "trace", "speed", "max_in_flight"))
    match load:
        case Users():
            text = "1 user" if load.users == 1 else f"{load.users:,} users"
            found = {"kind": "users", "text": text, "users": load.users, "spawn_rate": load.spawn_rate}
        case Rate():
            text = f"{load.per_s:,.10g} requests/s ({'Poisson' if load.arrivals == 'poisson' else 'constant'})"
            found = {"kind": "rate", "text": text, "per_s": load.per_s, "arrivals": load.arrivals}
        case Trace():
            speed = "" if load.speed == 1 else f" at {load.speed:g} times its speed"
            text = f"the arrivals of {load.path.name}{speed}"
            found = {"kind": "trace", "text": text, "trace": load.path.name, "speed": load.speed}
    return nothing | found | {"max_in_flight": getattr(load, "max_in_flight", None)}


def _traffic_json(traffic: Traffic) -> dict[str, Any]:
    sequence = traffic.sequence
    return {
        "model": traffic.model,
        "version": traffic.version,
        "weight": traffic.weight,
        "batch": traffic.batch,
        "data": _data_json(traffic.data),
        "check": traffic.check,
        "shared_memory": traffic.shared_memory,
        "stream": traffic.stream,
        "sequence": None
        if sequence is None
        else {"min_length": sequence.length[0], "max_length": sequence.length[1], "pause_s": sequence.pause_s},
        "timeout_s": traffic.timeout_s,
    }


def _data_json(data: Data) -> dict[str, str]:
    match data:
        case Golden():
            return {"kind": "golden", "text": "the golden samples of a version"}
        case Files():
            return {"kind": "files", "text": f"files: {data.path.name}"}
        case _:
            return {"kind": "synthetic", "text": "random values"}

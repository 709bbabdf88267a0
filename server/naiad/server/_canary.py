"""Finds out with a real inference whether a model's processes answer: readiness stays true when they are dead."""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from naiad.server._admin import Admin, Counts
from naiad.server.errors import AdminRefused, Unreachable

_IDLE_S: Final = 30.0
_TIMEOUT_S: Final = 5.0
_FIRST_TIMEOUT_S: Final = 60.0
_MOST_PROBES: Final = 8
_UNHEALTHY: Final = re.compile(r"Stub process '[^']*' is not healthy")
_STRING: Final = "TYPE_STRING"
_ITEM_BYTES: Final = {
    "TYPE_BOOL": 1,
    "TYPE_UINT8": 1,
    "TYPE_UINT16": 2,
    "TYPE_UINT32": 4,
    "TYPE_UINT64": 8,
    "TYPE_INT8": 1,
    "TYPE_INT16": 2,
    "TYPE_INT32": 4,
    "TYPE_INT64": 8,
    "TYPE_FP16": 2,
    "TYPE_FP32": 4,
    "TYPE_FP64": 8,
    "TYPE_BF16": 2,
    # An empty string is its length, 0, in four bytes.
    _STRING: 4,
}


@dataclass(kw_only=True, slots=True)
class _Seen:
    counts: Counts
    since: float = field(default_factory=time.monotonic)


class Canary:
    """Probes models whose requests fail, and those that nobody has used for half a minute.

    A probe is one request of zeros at batch size 1, with the id `naiad-canary`. So that it does not distort statistics
    or disturb load, a model that answers its callers is never probed; models that keep state, answer more than once or
    run the user's own Python code are probed only while their requests fail.
    """

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._seen: dict[str, _Seen] = {}

    def unhealthy_models(self) -> list[str]:
        """Models with an instance that does not answer. Raises `Unreachable`."""
        found = []
        for model, counts in self._admin.counts().items():
            num_probes = self._num_probes(model, counts)
            if num_probes:
                found += [model] if self._hangs(model, num_probes) else []
                self._seen[model] = _Seen(counts=self._admin.counts().get(model, counts))
        return found

    def _num_probes(self, model: str, counts: Counts) -> int:
        seen = self._seen.setdefault(model, _Seen(counts=counts))
        if counts.failed > seen.counts.failed:
            # The first probe may meet a healthy instance of several.
            return _MOST_PROBES
        if counts != seen.counts:
            self._seen[model] = _Seen(counts=counts)
            return 0
        return 1 if time.monotonic() - seen.since > _IDLE_S else 0

    def _hangs(self, model: str, num_probes: int) -> bool:
        try:
            config = self._admin.config(model)
        except AdminRefused:
            return False
        if _has_state(config) or (num_probes == 1 and config.get("backend") == "python"):
            return False
        header, payloads = request(config)
        for _ in range(num_probes):
            try:
                error = self._admin.infer(model, header, payloads, _TIMEOUT_S)
            except Unreachable:
                return False  # slow, or the server is gone: not for the canary to judge
            if _UNHEALTHY.search(error):
                return True
        return False


def first_trouble(admin: Admin) -> str:
    """Ask every model that is served for one inference; returns "" or what one said that does not work.

    A model's complaint about zeros is no trouble: what counts is that its processes answer. Left out are those that a
    probe could harm: models that keep state, answer more than once, or run the user's own Python code.

    Raises: `Unreachable`.
    """
    for model in sorted(admin.ready_models()):
        config = admin.config(model)
        if _has_state(config) or config.get("backend") == "python":
            continue
        error = admin.infer(model, *request(config), _FIRST_TIMEOUT_S)
        if _UNHEALTHY.search(error):
            return f"{model}: {error}"
    return ""


def request(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Header and binary tensors of an inference request with zeros, at batch size 1."""
    batch = [1] if int(config.get("max_batch_size", 0)) > 0 else []
    inputs, payloads = [], []
    for tensor in config["input"]:
        if tensor.get("optional"):
            continue
        shape = batch + [max(1, int(size)) for size in tensor["dims"]]
        payloads.append(bytes(math.prod(shape) * _ITEM_BYTES[tensor["data_type"]]))
        inputs.append(
            {
                "name": tensor["name"],
                "shape": shape,
                "datatype": tensor["data_type"].removeprefix("TYPE_").replace("STRING", "BYTES"),
                "parameters": {"binary_data_size": len(payloads[-1])},
            }
        )
    return {"id": "naiad-canary", "inputs": inputs, "parameters": {"binary_data_output": True}}, payloads


def _has_state(config: Mapping[str, Any]) -> bool:
    decoupled = (config.get("model_transaction_policy") or {}).get("decoupled", False)
    # An ensemble's parts are probed by themselves.
    return bool("sequence_batching" in config or decoupled or "ensemble_scheduling" in config)

"""Finds out whether a model's processes answer: readiness stays true when they are dead."""

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from naiad.server._admin import Admin, Counts
from naiad.server.errors import AdminRefused, Unreachable

_IDLE_S: Final = 30.0
_TIMEOUT_S: Final = 5.0
_FIRST_TIMEOUT_S: Final = 60.0
_FAILING_S: Final = 5.0
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
    """Looks closer at models whose requests fail, and probes those that nobody has used for half a minute.

    A probe is one request of zeros at batch size 1, with the id `naiad-canary`. So that it does not distort statistics
    or disturb load, a model that answers its callers is never probed, nor one that keeps state, answers more than once
    or runs the user's own Python code. Where requests fail, a probe would wait behind them, a second for each: there
    it is the processes' pulse that counts.
    """

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._seen: dict[str, _Seen] = {}
        self._failing: dict[str, float] = {}

    def unhealthy_models(self, is_frozen: Callable[[str], bool]) -> list[str]:
        """Models with an instance that does not answer. Raises `Unreachable`.

        `is_frozen` tells whether a process of a model does not run any more; it is asked while requests fail.
        """
        counts = self._admin.counts()
        idle = [model for model, count in counts.items() if self._is_idle(model, count)]
        found = [model for model in counts if self._fails(model) and is_frozen(model)]
        for model in idle:
            found += [model] if self._hangs(model) else []
            self._seen[model] = _Seen(counts=self._admin.counts().get(model, counts[model]))
        return found

    def _is_idle(self, model: str, counts: Counts) -> bool:
        """Whether nobody has used it for long; takes note of failures and of use."""
        seen = self._seen.setdefault(model, _Seen(counts=counts))
        if counts.failed > seen.counts.failed:
            self._failing[model] = time.monotonic() + _FAILING_S
        if counts != seen.counts:
            self._seen[model] = _Seen(counts=counts)
            return False
        return time.monotonic() - seen.since > _IDLE_S

    def _fails(self, model: str) -> bool:
        return time.monotonic() < self._failing.get(model, 0.0)

    def _hangs(self, model: str) -> bool:
        try:
            config = self._admin.config(model)
        except AdminRefused:
            return False
        if not _may_be_probed(config):
            return False
        try:
            return _UNHEALTHY.search(self._admin.infer(model, *request(config), _TIMEOUT_S)) is not None
        except Unreachable:
            return False  # slow, or the server is gone: not for the canary to judge


def first_trouble(admin: Admin) -> str:
    """Ask every model that is served for one inference; returns "" or what one said that does not work.

    A model's complaint about zeros is no trouble: what counts is that its processes answer. Left out are those that a
    probe could harm: models that keep state, answer more than once, or run the user's own Python code.

    Raises: `Unreachable`.
    """
    for model in sorted(admin.ready_models()):
        config = admin.config(model)
        if not _may_be_probed(config):
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


def _may_be_probed(config: Mapping[str, Any]) -> bool:
    decoupled = (config.get("model_transaction_policy") or {}).get("decoupled", False)
    # An ensemble's parts are probed by themselves.
    has_state = "sequence_batching" in config or decoupled or "ensemble_scheduling" in config
    return not has_state and config.get("backend") != "python"

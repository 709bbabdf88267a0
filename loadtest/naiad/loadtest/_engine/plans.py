"""A load test as text, for the processes that send it: the dataclasses of :mod:`naiad.loadtest.plan` as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from naiad.loadtest import plan
from naiad.loadtest.plan import LoadTest
from naiad.loadtest.slo import Slo

__all__ = ["decode_test", "encode_test"]

_KIND: Final = "$"
_CLASSES: Final = {name: getattr(plan, name) for name in plan.__all__ if isinstance(getattr(plan, name), type)} | {
    "Slo": Slo
}


def encode_test(test: LoadTest) -> str:
    """Return one line of JSON. It holds the headers of the connection: it is for no eyes but an engine's."""
    return json.dumps(_encoded(test), separators=(",", ":"))


def decode_test(text: str) -> LoadTest:
    """Read what :func:`encode_test` wrote.

    Raises:
        InvalidPlan: a field has a value that it cannot have.
    """
    found = _decoded(json.loads(text))
    assert isinstance(found, LoadTest)
    return found


def _encoded(value: Any) -> Any:
    if isinstance(value, Path):
        return {_KIND: "Path", "path": str(value.absolute())}
    if isinstance(value, tuple):
        return [_encoded(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _encoded(item) for name, item in value.items()}
    if is_dataclass(value):
        return {_KIND: type(value).__name__} | {
            field.name: _encoded(getattr(value, field.name)) for field in fields(value) if field.init
        }
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(item) for item in value)
    if not isinstance(value, dict):
        return value
    found = {name: _decoded(item) for name, item in value.items()}
    kind = found.pop(_KIND, None)
    if kind is None:
        return found
    return Path(found["path"]) if kind == "Path" else _CLASSES[kind](**found)

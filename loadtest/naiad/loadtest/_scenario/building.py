"""From checked settings to the plan of a load test."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from naiad.loadtest._scenario.lines import Path as KeyPath
from naiad.loadtest._scenario.settings import Settings
from naiad.loadtest.errors import InvalidPlan, InvalidScenario
from naiad.loadtest.plan import (
    Connection,
    Data,
    Files,
    Golden,
    Load,
    LoadTest,
    Rate,
    Sequence,
    Synthetic,
    Trace,
    Traffic,
    Users,
)

__all__ = ["build_test"]

_LOADS: Final = {
    "users": (Users, {"users": "users", "spawn-rate": "spawn_rate"}),
    "rate": (Rate, {"rate": "per_s", "arrivals": "arrivals", "max-in-flight": "max_in_flight"}),
    "trace": (Trace, {"trace": "path", "speed": "speed", "max-in-flight": "max_in_flight"}),
}
_RUN: Final = {
    "duration": "duration_s",
    "warmup": "warmup_s",
    "max-warmup": "max_warmup_s",
    "precision": "precision",
    "max-duration": "max_duration_s",
    "engines": "engines",
    "transport": "transport",
    "connections": "connections",
    "realtime": "realtime",
    "seed": "seed",
}
_SYNTHETIC: Final = {
    "shapes": "shapes",
    "ranges": "ranges",
    "string-lengths": "string_lengths",
    "num-samples": "num_samples",
}
_MODEL: Final = {
    "model": "model",
    "version": "version",
    "weight": "weight",
    "batch": "batch",
    "check": "check",
    "shared-memory": "shared_memory",
    "stream": "stream",
    "timeout": "timeout_s",
}


def build_test(settings: Settings) -> LoadTest:
    """Return the load test that ``settings`` describe; headers are read from environment and files now.

    Raises:
        InvalidScenario: values do not fit together, or a file or variable that is named does not exist.
    """
    settings.check()
    values = settings.values
    load = values.get("load", {})
    parts: dict[str, Any] = {
        "connection": _connection(settings),
        "traffic": tuple(_traffic(settings, number) for number in range(len(values["models"]))),
        "load": _load(settings, load),
    }
    with _placed(settings, ("load",)):
        return LoadTest(
            **parts,
            **_renamed(load, _RUN),
            slos=values.get("slos", ()),
            price_per_hour=values.get("report", {}).get("price-per-hour"),
            name=values.get("name", ""),
        )


def _load(settings: Settings, values: Mapping[str, Any]) -> Load:
    kind = next((name for name in _LOADS if name in values), "users")
    if kind == "trace":
        _check_exists(settings, ("load", "trace"), values["trace"])
    made, names = _LOADS[kind]
    with _placed(settings, ("load",)):
        load: Load = made(**_renamed(values, names))
        return load


def _connection(settings: Settings) -> Connection:
    values = settings.values.get("server", {})
    for name in ("ca", "certificate", "key"):
        if name in values:
            _check_exists(settings, ("server", name), values[name])
    headers = {
        name: _secret(settings, ("server", "headers", name), source)
        for name, source in values.get("headers", {}).items()
    }
    with _placed(settings, ("server",)):
        return Connection(
            headers=headers, **{name.replace("-", "_"): value for name, value in values.items() if name != "headers"}
        )


def _secret(settings: Settings, key: KeyPath, source: Mapping[str, str]) -> str:
    """Read the value of a header from where it is kept; it never appears in a message."""
    if "env" in source:
        value = os.environ.get(source["env"], "")
        missing = f"the environment variable {source['env']} is not set: export it first"
    else:
        folder = settings.path.parent if settings.path is not None else Path()
        try:
            value = (folder / source["file"]).read_text().strip()
            missing = f"the file {source['file']} is empty"
        except (OSError, UnicodeDecodeError) as exc:
            value, missing = "", f"the file {source['file']} cannot be read: {getattr(exc, 'strerror', exc)}"
    if not value:
        raise settings.error(key, missing)
    return value


def _traffic(settings: Settings, number: int) -> Traffic:
    values = settings.values["models"][number]
    place: KeyPath = ("models", number)
    parts = _renamed(values, _MODEL)
    own = "data" in values
    parts["data"] = _data(
        settings, values["data"] if own else settings.values.get("data", {}), (*place, "data") if own else ("data",)
    )
    if "sequence" in values:
        with _placed(settings, (*place, "sequence")):
            parts["sequence"] = Sequence(**_renamed(values["sequence"], {"length": "length", "pause": "pause_s"}))
    with _placed(settings, place):
        return Traffic(**parts)


def _data(settings: Settings, values: Mapping[str, Any], place: KeyPath) -> Data:
    for kind in ("golden", "path"):
        if kind not in values:
            continue
        _check_exists(settings, (*place, kind), values[kind])
        unused = [name for name in _SYNTHETIC if name in values]
        if unused:
            raise settings.error((*place, unused[0]), f"expected it for random data only, found it beside {kind}")
        return Golden(path=values[kind]) if kind == "golden" else Files(path=values[kind], input=values.get("input"))
    with _placed(settings, place):
        return Synthetic(**_renamed(values, _SYNTHETIC))


def _check_exists(settings: Settings, key: KeyPath, path: Path) -> None:
    if not path.exists():
        raise settings.error(key, f"expected a file, found nothing at {path}")


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {field: values[name] for name, field in names.items() if name in values}


@contextmanager
def _placed(settings: Settings, table: KeyPath) -> Iterator[None]:
    """Give errors of the plan the line of the key that they are about."""
    try:
        yield
    except InvalidScenario:
        raise
    except InvalidPlan as exc:
        raise settings.place_of(exc, table) from exc

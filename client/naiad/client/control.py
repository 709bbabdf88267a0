"""What can be changed about a running server: which requests it traces, and what it logs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from naiad.client.errors import InvalidInput, InvalidResponse

__all__ = ["LogChanges", "LogSettings", "TraceChanges", "TraceLevel", "TraceSettings"]

TraceLevel = Literal["TIMESTAMPS", "TENSORS"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceSettings:
    """Which requests a server traces, of all models or of one."""

    levels: tuple[str, ...]
    """``"TIMESTAMPS"``, ``"TENSORS"`` (values too) or both; empty: nothing is traced."""
    rate: int
    """One request in so many is traced, beside those whose caller traces them."""
    count: int
    """How many more are traced; -1: without end."""
    log_frequency: int
    """After so many traces the next file is begun; 0: there is one, written at the end."""
    file: str
    """Given at the server's start only."""
    mode: str
    """``"triton"`` or ``"opentelemetry"``, given at the server's start only."""
    others: Mapping[str, tuple[str, ...]]
    """What else the server says, such as its exporter's options, by Triton's names."""

    @classmethod
    def from_message(cls, message: Any) -> TraceSettings:
        """Read a TraceSettingResponse."""
        values = {name: tuple(map(str, setting.value)) for name, setting in message.settings.items()}
        return cls(
            levels=tuple(level for level in values.pop("trace_level", ()) if level != "OFF"),
            rate=_whole(values, "trace_rate", "0"),
            count=_whole(values, "trace_count", "-1"),
            log_frequency=_whole(values, "log_frequency", "0"),
            file=_only(values, "trace_file", ""),
            mode=_only(values, "trace_mode", ""),
            others=values,
        )


class TraceChanges(TypedDict, total=False):
    """New trace settings; ``None`` goes back to the server's, for all models to those of its start."""

    levels: Collection[TraceLevel] | None
    rate: int | None
    count: int | None
    log_frequency: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSettings:
    """What a server writes to its log."""

    info: bool
    warning: bool
    error: bool
    verbose_level: int
    """0: nothing beside the above."""
    format: str
    """``"default"`` or ``"ISO8601"``."""
    file: str
    """Empty: standard error. Given at the server's start only."""

    @classmethod
    def from_message(cls, message: Any) -> LogSettings:
        """Read a LogSettingsResponse."""
        settings = message.settings  # a map that has an empty value for every name
        return cls(
            info=settings["log_info"].bool_param,
            warning=settings["log_warning"].bool_param,
            error=settings["log_error"].bool_param,
            verbose_level=settings["log_verbose_level"].uint32_param,
            format=settings["log_format"].string_param,
            file=settings["log_file"].string_param,
        )


class LogChanges(TypedDict, total=False):
    """New log settings."""

    info: bool
    warning: bool
    error: bool
    verbose_level: int
    format: Literal["default", "ISO8601"]


_TRACE_NUMBERS: Final = {"rate": ("trace_rate", 0), "count": ("trace_count", -1), "log_frequency": ("log_frequency", 0)}
_LEVELS: Final = frozenset({"TIMESTAMPS", "TENSORS"})
_FORMATS: Final = ("default", "ISO8601")


def trace_request(model: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a TraceSettingRequest. Triton ignores names and levels that it does not know; this does not.

    Raises:
        InvalidInput: a value is none that the setting can have.
        TypeError: there is no such setting.
    """
    settings = {}
    for name, value in changes.items():
        wire_name, values = _trace_change(name, value)
        settings[wire_name] = {"value": values}
    return {"model_name": model or "", "settings": settings}


def _trace_change(name: str, value: Any) -> tuple[str, list[str]]:
    if name == "levels":
        return "trace_level", [] if value is None else _levels(value)
    if name not in _TRACE_NUMBERS:
        raise TypeError(
            f"there is no trace setting '{name}' that can be changed: only levels, {', '.join(_TRACE_NUMBERS)}"
        )
    wire_name, least = _TRACE_NUMBERS[name]
    if value is None:
        return wire_name, []
    return wire_name, [str(_number(name, value, least))]


def _levels(levels: Collection[str]) -> list[str]:
    if isinstance(levels, str) or not _LEVELS.issuperset(levels):
        raise InvalidInput(f"levels is a list of TIMESTAMPS, TENSORS or both, empty for no traces, found {levels!r}")
    return sorted(levels) or ["OFF"]


def log_request(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a LogSettingsRequest.

    Raises:
        InvalidInput: a value is none that the setting can have.
        TypeError: there is no such setting.
    """
    return {"settings": {f"log_{name}": _log_change(name, value) for name, value in changes.items()}}


def _log_change(name: str, value: Any) -> dict[str, Any]:
    if name in {"info", "warning", "error"}:
        if not isinstance(value, bool):
            raise InvalidInput(f"{name} is True or False, found {value!r}")
        return {"bool_param": value}
    if name == "verbose_level":
        return {"uint32_param": _number(name, value, 0)}
    if name == "format":
        if value not in _FORMATS:
            raise InvalidInput(f"format is one of {', '.join(_FORMATS)}, found {value!r}")
        return {"string_param": value}
    raise TypeError(
        f"there is no log setting '{name}' that can be changed: only info, warning, error, verbose_level, format"
    )


def _number(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**32:
        raise InvalidInput(f"{name} is a whole number of {least} or more, found {value!r}")
    return value


def _whole(values: dict[str, tuple[str, ...]], name: str, default: str) -> int:
    text = _only(values, name, default)
    try:
        return int(text)
    except ValueError as exc:
        raise InvalidResponse(f"expected a whole number as the server's {name}, found {text!r}") from exc


def _only(values: dict[str, tuple[str, ...]], name: str, default: str) -> str:
    return next(iter(values.pop(name, ())), default)

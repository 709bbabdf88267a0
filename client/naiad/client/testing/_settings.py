"""Trace and log settings: kept and given back as Triton does, and without effect."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

from naiad.client.testing._status import Refusal, invalid

_TRACE: Final = {
    "trace_file": "",
    "trace_level": "OFF",
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}
_NUMBERS: Final = ("trace_rate", "trace_count", "log_frequency")
_LEVELS: Final = ("TIMESTAMPS", "TENSORS")
_LOG: Final[dict[str, bool | int | str]] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
FIELDS: Final[dict[type, str]] = {bool: "bool_param", int: "uint32_param", str: "string_param"}
"""Where the protocol has a log setting of a type."""
_WORDS: Final[dict[type, str]] = {bool: "boolean", int: "int32", str: "string"}


class TraceSettings:
    """Those of the server, and of models where they are others; as of a server that was given no trace file."""

    def __init__(self) -> None:
        self._server = dict(_TRACE)
        self._models: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def change(self, model: str, changes: Mapping[str, list[str]]) -> dict[str, str]:
        """Make all changes, or none; return the settings of the model, or of the server.

        Raises:
            Refusal: one of them is none.
        """
        with self._lock:
            own = dict(self._models.get(model, {}) if model else self._server)
            for key, values in changes.items():
                _set_trace(own, key, values)
            if model:
                self._models[model] = own
            else:
                self._server = own
            return {**self._server, **own}


def _set_trace(settings: dict[str, str], key: str, values: list[str]) -> None:
    if key == "trace_file":
        raise Refusal("trace file location can not be updated through network protocol", "UNIMPLEMENTED")
    if key == "trace_level" and values:
        _set_level(values)
    if key not in (*_NUMBERS, "trace_level"):
        return  # Triton takes no notice of the mode, nor of names that it does not know
    settings[key] = _number(key, values) if values and key in _NUMBERS else _TRACE[key]


def _set_level(values: list[str]) -> None:
    if "OFF" in values and len(values) > 1:
        raise invalid("Expect only one trace level 'OFF' is specified")
    if any(value in _LEVELS for value in values):
        raise invalid("Attempting to set invalid trace setting :trace file name is not given")


def _number(key: str, values: list[str]) -> str:
    if len(values) > 1:
        raise invalid(f"expect only 1 value for '{key}'")
    try:
        number = int(values[0])
    except ValueError:
        raise invalid(f"Unable to parse '{key}', got: {values[0]}") from None
    if key != "trace_count":
        return str(number % 2**32)
    if number < -1:
        raise invalid(f"Unable to parse '{key}'. Expecting value >= -1, got: {number}")
    return str(number)


class LogSettings:
    """Those of the server."""

    def __init__(self) -> None:
        self._values = dict(_LOG)
        self._lock = threading.Lock()

    def change(self, changes: Mapping[str, Any]) -> dict[str, bool | int | str]:
        """Make all changes, or none; return the settings.

        Raises:
            Refusal: one of them is none.
        """
        known = {key: setting for key, setting in changes.items() if key in _LOG}
        for key, setting in known.items():
            _check_log(key, setting)
        with self._lock:
            self._values |= {key: getattr(setting, FIELDS[type(_LOG[key])]) for key, setting in known.items()}
            return dict(self._values)


def _check_log(key: str, setting: Any) -> None:
    if key == "log_file":
        raise Refusal("log file location can not be updated through network protocol", "UNIMPLEMENTED")
    kind = type(_LOG[key])
    if setting.WhichOneof("parameter_choice") != FIELDS[kind]:
        raise invalid(f"expect {_WORDS[kind]} for '{key}'")
    if key == "log_format" and setting.string_param not in ("default", "ISO8601"):
        raise invalid(f"invalid argument for log_format, got: {setting.string_param}")

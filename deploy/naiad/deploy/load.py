"""Reads the description of a service from a TOML file; the dataclasses of `service.py` are the table of its keys."""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from naiad.deploy._checks import within, wrong
from naiad.deploy._lines import line_of
from naiad.deploy.errors import InvalidService
from naiad.deploy.service import Service

__all__ = ["load_service", "parse_service"]

_MAX_BYTES: Final = 1 << 20
_POSITION: Final = re.compile(r" \(at line (\d+), column (\d+)\)")
_KINDS: Final[Mapping[type, str]] = {
    str: "a text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def load_service(path: str | Path) -> Service:
    """Read the description at ``path``.

    Raises:
        InvalidService: it cannot be read, is no TOML, has an unknown or wrong key, or its parts do not fit each other;
            names file, line and key.
    """
    return parse_service(_read_text(Path(path)), path=str(path))


def parse_service(text: str, *, path: str = "service.toml") -> Service:
    """Read the description from ``text``; ``path`` is what messages call it.

    Raises:
        InvalidService: as :func:`load_service`.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        match = _POSITION.search(str(exc))
        line = int(match[1]) if match else text.count("\n") + 1
        raise InvalidService(f"expected TOML: {_POSITION.sub('', str(exc))}", path=path, line=line) from exc
    try:
        service: Service = _table(document, Service)
    except InvalidService as exc:
        line = line_of(text, _as_written(document, exc.key))
        raise InvalidService(exc.reason, key=exc.key, path=path, line=line) from exc
    return service


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        do = ": `naiad deploy init` writes one" if isinstance(exc, FileNotFoundError) else ""
        reason = f"expected the description of a service, which cannot be read: {exc.strerror or exc}{do}"
        raise InvalidService(reason, path=str(path)) from exc
    if len(content) > _MAX_BYTES:
        raise InvalidService("expected at most 1 MiB, found a larger file", path=str(path))
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise InvalidService("expected text in UTF-8, found other bytes", path=str(path), line=line) from exc


def _table(raw: Any, kind: Any) -> Any:
    """Return the dataclass ``kind`` from a table of the file."""
    if not isinstance(raw, dict):
        raise wrong("a table", raw)
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for written, value in raw.items():
        name = written.replace("-", "_")
        if name not in hints:
            raise _unknown(written, hints)
        if name in values:
            raise wrong("it once", written, written, do="it is there with a hyphen and with an underscore")
        with within(name):
            values[name] = _value(value, hints[name])
    for field in fields(kind):
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            found = ", ".join(values) or "nothing"
            raise InvalidService(f"expected the key {field.name}, found only {found}: add {field.name} = …")
    return kind(**values)


def _value(raw: Any, hint: Any) -> Any:
    if is_dataclass(hint):
        return _table(raw, hint)
    if get_origin(hint) is tuple:
        return _array(raw, get_args(hint)[0])
    if get_origin(hint) is Literal:
        return _choice(raw, hint)
    if get_origin(hint) in (types.UnionType, Union):
        return _either(raw, [option for option in get_args(hint) if option is not type(None)])
    return _scalar(raw, hint)


def _either(raw: Any, options: list[Any]) -> Any:
    """Return ``raw`` as the first of the options that takes it, with the error of all of them otherwise."""
    if len(options) == 1:
        return _value(raw, options[0])
    reasons = []
    for option in options:
        try:
            return _value(raw, option)
        except InvalidService as exc:
            reasons.append(exc.reason.removeprefix("expected ").partition(", found ")[0])
    raise wrong(" or ".join(reasons), raw)


def _array(raw: Any, each: Any) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise wrong("an array of tables" if is_dataclass(each) else 'an array, as ["a", "b"]', raw)
    found = []
    for number, item in enumerate(raw):
        with within(number):
            found.append(_value(item, each))
    return tuple(found)


def _choice(raw: Any, hint: Any) -> Any:
    choices = get_args(hint)
    if raw not in choices:
        near = get_close_matches(raw, choices, n=1, cutoff=0.6) if isinstance(raw, str) else []
        do = f"did you mean {near[0]}?" if near else ""
        raise wrong(" or ".join(f'"{choice}"' for choice in choices), raw, do=do)
    return raw


def _scalar(raw: Any, kind: type) -> Any:
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, kind) or (isinstance(raw, bool) and kind is not bool):
        raise wrong(_KINDS[kind], raw)
    return raw


def _unknown(written: str, hints: Mapping[str, Any]) -> InvalidService:
    near = get_close_matches(written.replace("-", "_").lower(), hints, n=1, cutoff=0.6)
    do = f"did you mean {near[0]}?" if near else "take it out"
    return InvalidService(f"expected one of {', '.join(hints)}, found {written!r}: {do}", key=(written,))


def _as_written(document: Any, key: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return ``key`` with hyphens where the file has them."""
    found: tuple[str | int, ...] = ()
    for step in key:
        if isinstance(document, dict) and step not in document:
            step = next((name for name in document if name.replace("-", "_") == step), step)
        found = (*found, step)
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return found
    return found

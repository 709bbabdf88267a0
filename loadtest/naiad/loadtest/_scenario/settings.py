"""What a scenario says, and where: the values of a file and of the options that override it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Self

from naiad.loadtest._scenario.keys import SCENARIO, Key, Table, Tables
from naiad.loadtest._scenario.lines import Path as KeyPath
from naiad.loadtest._scenario.lines import key_lines
from naiad.loadtest.errors import InvalidPlan, InvalidScenario

__all__ = ["Settings"]

_POSITION: Final = re.compile(r" \(at line (\d+), column (\d+)\)")
_MAX_BYTES: Final = 1 << 20
_KINDS: Final = {"load": ("users", "rate", "trace"), "data": ("golden", "path")}
"""Keys of a table that exclude each other: an option takes the place of what the file says."""
_ONLY_WITH: Final = {"spawn-rate": "users", "arrivals": "rate", "speed": "trace", "input": "path"}
_SYNTHETIC: Final = ("shapes", "ranges", "string-lengths", "num-samples")


@dataclass(kw_only=True)
class Settings:
    """Checked values, nested as in the file, with hyphens in the keys; relative paths lead from ``folder``."""

    values: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    text: str = ""
    _lines: dict[KeyPath, int] = field(default_factory=dict)
    _options: dict[KeyPath, str] = field(default_factory=dict)

    @classmethod
    def of_model(cls, model: str) -> Self:
        """Return the settings of a load on one model, as the command line begins with."""
        return cls(values={"models": [{"model": model}]})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            InvalidScenario: it cannot be read, is no TOML, or a key of it is unknown or wrong.
        """
        text = _read_text(path)
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            raise _no_toml(path, text, str(exc)) from exc
        found = cls(path=path, text=text, _lines=key_lines(text))
        found.values = found._table(document, SCENARIO, (), ())
        found.check()
        if not found.values.get("models"):
            raise InvalidScenario(f'{path}: expected [[models]] with model = "…", found none', path=str(path))
        return found

    def override(self, option: str, key: KeyPath, value: Any) -> None:
        """Put the value of an option in the place of what was there; ``"*"`` in ``key`` stands for every model.

        Raises:
            InvalidScenario: the value is none for this key.
        """
        for place in self._places(key):
            *above, last = place
            assert isinstance(last, str)
            spec = _spec_of(place)
            read = self._read(value, spec, option=option)
            table: Any = self.values
            for step in above:
                table = table.setdefault(step, {}) if isinstance(table, dict) else table[step]
            _make_room(table, above, last)
            old = table.get(last)
            table[last] = {**old, **read} if isinstance(old, dict) and isinstance(read, dict) else read
            self._options[place] = option

    def variant(self, name: str) -> Settings:
        """Return these settings with the table ``[baseline]`` or ``[candidate]`` laid over them."""
        changes: Mapping[str, Any] = self.values.get(name, {})
        values = deepcopy(self.values)
        for key in ("url", "headers"):
            if key in changes:
                values.setdefault("server", {})[key] = changes[key]
        for key in ("model", "version"):
            for model in values["models"] if key in changes else ():
                model[key] = changes[key]
        if "model" in changes and len(values["models"]) > 1:
            raise self.error((name, "model"), f"expected it with one model only, found {len(values['models'])}")
        return replace(self, values=values)

    def _places(self, key: KeyPath) -> Iterator[KeyPath]:
        if "*" not in key:
            yield key
            return
        at = key.index("*")
        models = self.values["models"]
        for number, model in enumerate(models):
            if key[at + 1] == "data" and "data" not in model:
                model["data"] = deepcopy(self.values.get("data", {}))
            yield (*key[:at], number, *key[at + 1 :])

    def _table(self, raw: Any, spec: Table, written: KeyPath, key: KeyPath) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise self._wrong(written, f"expected a table, found {raw!r}")
        values: dict[str, Any] = {}
        for name, value in raw.items():
            plain, here = name.replace("_", "-"), (*written, name)
            known = spec.keys.get(plain)
            if known is None:
                raise self._wrong(here, _unknown(name, spec))
            if plain in values:
                raise self._wrong(here, "expected it once, found it with a hyphen and with an underscore")
            place = (*key, plain)
            self._lines.setdefault(place, self._lines.get(here, 0))
            values[plain] = self._value(value, known, here, place)
        for name in spec.least:
            if name not in values:
                raise self._wrong(written, f"expected the key {name!r}, found only {', '.join(values) or 'nothing'}")
        return values

    def _value(self, raw: Any, spec: Key | Table | Tables, written: KeyPath, key: KeyPath) -> Any:
        if isinstance(spec, Table):
            return self._table(raw, spec, written, key)
        if isinstance(spec, Tables):
            if not isinstance(raw, list):
                raise self._wrong(
                    written, f"expected [[{written[-1]}]], an array of tables, found {type(raw).__name__}"
                )
            return [self._table(item, spec.each, (*written, at), (*key, at)) for at, item in enumerate(raw)]
        return self._read(raw, spec, written=written)

    def _read(self, raw: Any, spec: Key, *, written: KeyPath = (), option: str = "") -> Any:
        try:
            return self._rooted(spec.read(raw)) if not option else spec.read(raw)
        except ValueError as exc:
            if option:
                raise InvalidScenario(f"{option}: {exc}", key=option) from exc
            step = getattr(exc, "step", None)
            raise self._wrong(written if step is None else (*written, step), str(exc)) from exc

    def _rooted(self, value: Any) -> Any:
        """Return paths as they lead from the file, and everything else as it is."""
        return self.path.parent / value if isinstance(value, Path) and self.path is not None else value

    def check(self) -> None:
        """Refuse keys that exclude each other, or that mean nothing without another one."""
        tables: dict[KeyPath, Any] = {("load",): self.values.get("load", {}), ("data",): self.values.get("data", {})}
        for number, model in enumerate(self.values.get("models", ())):
            tables["models", number, "data"] = model.get("data", {})
        for place, table in tables.items():
            given = [name for name in _KINDS[str(place[-1])] if name in table]
            if len(given) > 1:
                message = f"expected one of {' and '.join(given)}, found both: they exclude each other"
                raise self.error((*place, given[1]), message)
            for name, owner in _ONLY_WITH.items():
                if name in table and owner not in table and (place[-1] == "data" or given):
                    raise self.error(
                        (*place, name), f"expected it beside {owner}, found {', '.join(given) or 'it alone'}"
                    )

    def error(self, key: KeyPath, message: str) -> InvalidScenario:
        """Return the error that names where ``key`` was given: its option, or its line in the file."""
        option = self._options.get(key)
        if option is not None:
            return InvalidScenario(f"{option}: {message}", key=option)
        if self.path is None:
            return InvalidScenario(message, key=_dotted(key))
        return self._wrong(key, message)

    def place_of(self, error: InvalidPlan, table: KeyPath) -> InvalidScenario:
        """Return ``error`` of a value in ``table`` with the place of the key that its message speaks of."""
        values: Any = self.values
        for step in table:
            values = values[step] if isinstance(step, int) else values.get(step, {})
        named = [name for name in values if name.replace("-", "_") in str(error) or name in str(error)]
        found = max(named, key=len, default=None)
        return self.error((*table, found) if found else table, str(error))

    def _wrong(self, written: KeyPath, message: str) -> InvalidScenario:
        line = next(
            (self._lines[written[:end]] for end in range(len(written), 0, -1) if written[:end] in self._lines), 1
        )
        dotted = _dotted(written)
        where = f"{self.path}:{line}: {dotted}: " if dotted else f"{self.path}:{line}: "
        return InvalidScenario(where + message, path=str(self.path), line=line, key=dotted)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise InvalidScenario(f"the scenario {path} cannot be read: {exc.strerror or exc}", path=str(path)) from exc
    if len(content) > _MAX_BYTES:
        raise InvalidScenario(f"expected a scenario of at most 1 MiB, found a larger file: {path}", path=str(path))
    try:
        return content.decode().removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as exc:
        raise InvalidScenario(f"{path}: expected text in UTF-8, found other bytes", path=str(path)) from exc


def _no_toml(path: Path, text: str, reason: str) -> InvalidScenario:
    match = _POSITION.search(reason)
    line, column = (int(match[1]), f":{match[2]}") if match else (text.count("\n") + 1, "")
    message = f"{path}:{line}{column}: expected TOML: {_POSITION.sub('', reason)}"
    return InvalidScenario(message, path=str(path), line=line)


def _make_room(table: dict[str, Any], above: list[str | int], name: str) -> None:
    """Take away what cannot stand beside ``name`` in this table."""
    kinds = _KINDS.get(str(above[-1]), ()) if above else ()
    if name in kinds:
        gone = {*kinds, *(key for key, owner in _ONLY_WITH.items() if owner != name)} - {name}
        gone |= set(_SYNTHETIC) if above[-1] == "data" else set()
        for key in gone:
            table.pop(key, None)


def _spec_of(place: KeyPath) -> Key:
    spec: Key | Table | Tables = SCENARIO
    for step in place:
        if isinstance(spec, Tables):
            spec = spec.each
        elif isinstance(spec, Table):
            spec = spec.keys[str(step)]
    assert isinstance(spec, Key)
    return spec


def _unknown(name: str, spec: Table) -> str:
    near = get_close_matches(name.replace("_", "-").lower(), spec.keys, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"expected one of {', '.join(spec.keys)}, found {name!r}{hint}"


def _dotted(path: KeyPath) -> str:
    text = ""
    for step in path:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if text else step
    return text

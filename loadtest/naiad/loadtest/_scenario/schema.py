"""The JSON schema of scenario files, for editors that complete and check TOML."""

from __future__ import annotations

from typing import Any

from naiad.loadtest._scenario.keys import SCENARIO, Key, Table, Tables

__all__ = ["scenario_schema"]


def scenario_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a scenario file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A load test scenario of Naiad",
        **_schema(SCENARIO),
        "required": ["models"],
    }


def _schema(spec: Key | Table | Tables) -> dict[str, Any]:
    if isinstance(spec, Key):
        return {"description": spec.help, **spec.schema}
    if isinstance(spec, Tables):
        return {"type": "array", "minItems": 1, "items": _schema(spec.each)}
    return {
        "type": "object",
        "description": spec.help,
        "properties": {name: _schema(inner) for name, inner in spec.keys.items()},
        "patternProperties": {  # underscores stand for hyphens
            f"^{name.replace('-', '_')}$": _schema(inner) for name, inner in spec.keys.items() if "-" in name
        },
        "additionalProperties": False,
        **({"required": list(spec.least)} if spec.least else {}),
    }

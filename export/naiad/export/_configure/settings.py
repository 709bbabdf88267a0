"""Setting any field of a ModelConfig by its dotted name, as in `dynamic_batching.max_queue_delay_microseconds=500`."""

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from naiad.export.errors import InvalidExport

_DERIVED = {"name", "platform", "backend", "runtime", "version_policy", "max_batch_size", "input", "output"}


def parse_setting(assignment: str) -> tuple[str, object]:
    """Split `path=value`; the value is JSON where it is valid JSON, else text.

    Raises:
        InvalidExport: There is no `=` or nothing before it.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise InvalidExport(f"{assignment!r} is not a setting; expected name=value")
    try:
        return path, json.loads(text)
    except ValueError:
        return path, text


def apply(config: Any, settings: Mapping[str, object]) -> None:
    """Set each dotted field of a ModelConfig; a list replaces what was there, `parameters.KEY` takes one value.

    Raises:
        InvalidExport: There is no such field, the value does not fit, or the export derives the field itself.
    """
    for path, value in settings.items():
        first = path.partition(".")[0]
        if first in _DERIVED:
            raise InvalidExport(f"{first!r} is derived from the model and cannot be set; leave {path!r} out")
        _apply_one(config, path, value)


def _apply_one(config: Any, path: str, value: object) -> None:
    *parents, last = path.split(".") if not path.startswith("parameters.") else ["parameters", path.partition(".")[2]]
    if parents == ["parameters"]:
        config.parameters[last].string_value = value if isinstance(value, str) else json.dumps(value)
        return
    message, seen = config, []
    for name in parents:
        seen.append(name)
        field = message.DESCRIPTOR.fields_by_name.get(name)
        if field is None or field.message_type is None or field.is_repeated:
            raise InvalidExport(f"there is no single message {'.'.join(seen)!r} in a model configuration; see {path!r}")
        message = getattr(message, name)
        message.SetInParent()
    if last not in message.DESCRIPTOR.fields_by_name:
        known = ", ".join(field.name for field in message.DESCRIPTOR.fields)
        raise InvalidExport(f"there is no field {path!r} in a model configuration; expected one of {known}")
    message.ClearField(last)
    try:
        json_format.ParseDict({last: value}, message)
    except json_format.ParseError as exc:
        raise InvalidExport(f"{value!r} does not fit the field {path!r}: {exc}") from exc

"""Setting any field of a ModelConfig by its dotted name, as in `dynamic_batching.max_queue_delay_microseconds=500`.

A part of a name is a field, a place in a list (`instance_group.0.count`; one beyond the end adds an element) or a key
of a map (`parameters.owner`, `dynamic_batching.priority_queue_policy.1.max_queue_size`). A value takes the place of
what was there, lists, maps and messages included; null removes the field.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from naiad.export.errors import InvalidExport

_DERIVED = {
    "name": "the model's name is given by the export",
    "platform": "it follows from the format",
    "backend": "it follows from the format",
    "runtime": "it follows from the format",
    "version_policy": "promote and rollback set it",
    "max_batch_size": "give max_batch_size to the export, which verifies the batches up to it",
    "input": "it is read from the model",
    "output": "it is read from the model; labels have an argument of their own",
    "default_model_filename": "the export writes the file",
}
_PARAMETER = "parameters"
_DEPTH = 5
_LARGEST_GAP = 64
"""How many elements a name may ask for beyond the end of a list when it is only checked."""


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


def check(settings: Mapping[str, object]) -> None:
    """Refuse a setting that fits no configuration, before a model is built.

    Raises:
        InvalidExport: As `apply`; a place beyond the end of a list is not known yet and passes.
    """
    for path, value in settings.items():
        _apply_one(model_config_pb2.ModelConfig(), path, value, grow=True)


def apply(config: Any, settings: Mapping[str, object]) -> None:
    """Set each dotted field of a ModelConfig.

    Raises:
        InvalidExport: There is no such field, the value does not fit, or the export derives the field itself.
    """
    for path, value in settings.items():
        _apply_one(config, path, value, grow=False)


def _apply_one(config: Any, path: str, value: object, *, grow: bool) -> None:
    first, _, rest = path.partition(".")
    if first in _DERIVED:
        raise InvalidExport(f"{path!r} cannot be set: {_DERIVED[first]}; leave it out")
    if first == _PARAMETER and rest:  # a parameter's own name may have dots
        if value is None:
            config.parameters.pop(rest, None)
        else:
            config.parameters[rest].string_value = value if isinstance(value, str) else json.dumps(value)
        return
    _set(config, path, path.split("."), value, grow=grow)


def _set(message: Any, path: str, parts: list[str], value: object, *, grow: bool) -> None:
    """Set what `parts` name below `message`; `path` is the whole name, for errors."""
    name, *rest = parts
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise _unknown(path, name, message.DESCRIPTOR)
    if not rest:
        _assign(message, field, value, path)
    elif _is_map(field):
        _set_entry(message, field, path, rest, value, grow=grow)
    elif field.is_repeated:
        _set_element(message, field, path, rest, value, grow=grow)
    elif field.message_type is None:
        raise InvalidExport(f"{name!r} in {path!r} is a single value and has no fields")
    else:
        child = getattr(message, name)
        child.SetInParent()
        _set(child, path, rest, value, grow=grow)


def _set_entry(message: Any, field: Any, path: str, rest: list[str], value: object, *, grow: bool) -> None:
    entries, kind = getattr(message, field.name), field.message_type.fields_by_name["value"]
    key: Any = rest[0] if kind.message_type else ".".join(rest)  # a text's key may have dots
    if field.message_type.fields_by_name["key"].cpp_type != field.CPPTYPE_STRING:
        if not key.isdigit():
            raise InvalidExport(f"{key!r} in {path!r} is not a number, which the keys of {field.name} are")
        key = int(key)
    if value is None and (kind.message_type is None or len(rest) == 1):
        entries.pop(key, None)
    elif kind.message_type is None:
        _parse(message, {field.name: {str(key): value}}, path, value)
    elif len(rest) == 1:
        entries[key].Clear()
        _parse(message, {field.name: {str(key): value}}, path, value)
    else:
        _set(entries[key], path, rest[1:], value, grow=grow)


def _set_element(message: Any, field: Any, path: str, rest: list[str], value: object, *, grow: bool) -> None:
    elements, (place, *fields) = getattr(message, field.name), rest
    if not place.isdigit():
        raise InvalidExport(
            f"{field.name!r} in {path!r} is a list; expected a place in it, as in {field.name}.0, found {place!r}"
        )
    index = int(place)
    if index > len(elements) + (_LARGEST_GAP if grow else 0):
        raise InvalidExport(f"{field.name!r} has {len(elements)} elements; {path!r} would leave a gap")
    if field.message_type is None:
        values = list(elements)
        values[index : index + 1] = [value] if value is not None else []
        _assign(message, field, values, path)
    elif value is None and not fields:
        del elements[index : index + 1]
    else:
        while len(elements) <= index:
            elements.add()
        if fields:
            _set(elements[index], path, fields, value, grow=grow)
        else:
            elements[index].Clear()
            _parse(elements[index], value, path, value)


def _assign(message: Any, field: Any, value: object, path: str) -> None:
    message.ClearField(field.name)
    if value is not None:
        if field.message_type is not None and not field.is_repeated:
            getattr(message, field.name).SetInParent()
        _parse(message, {field.name: value}, path, value)


def _parse(message: Any, fields: Any, path: str, value: object) -> None:
    try:
        json_format.ParseDict(fields, message)
    except (json_format.ParseError, TypeError, ValueError, AttributeError) as exc:
        raise InvalidExport(f"{value!r} does not fit the field {path!r}: {_reason(exc, message, path)}") from exc


def _reason(exc: Exception, message: Any, path: str) -> str:
    """Return what protobuf says, and the words of an enumeration where one was expected."""
    field = message.DESCRIPTOR.fields_by_name.get(path.rpartition(".")[2])
    if field is not None and field.enum_type is not None:
        return f"expected one of {', '.join(item.name for item in field.enum_type.values)}"
    return str(exc).replace("Failed to parse ", "").strip()


def _unknown(path: str, name: str, descriptor: Any) -> InvalidExport:
    known = [field.name for field in descriptor.fields]
    near = _nearest(path, name, known)
    hint = f"did you mean {near!r}?" if near else f"expected one of {', '.join(known)}"
    return InvalidExport(f"there is no field {path!r} in a model configuration; {hint}")


def _nearest(path: str, name: str, known: list[str]) -> str | None:
    """Return the field of this message with a near name, else one elsewhere with this name, else a remoter one."""
    prefix = path.split(".")[: path.split(".").index(name)]
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.75):
        return ".".join([*prefix, close[0]])
    everywhere = list(_paths(model_config_pb2.ModelConfig.DESCRIPTOR, (), ()))
    leaf = path.rpartition(".")[2]
    if same := [item for item in everywhere if item.rpartition(".")[2] == leaf]:
        return same[0]
    if not prefix:
        return next(iter(difflib.get_close_matches(path, everywhere, n=1, cutoff=0.8)), None)
    remoter = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return ".".join([*prefix, remoter[0]]) if remoter else None


def _paths(descriptor: Any, prefix: tuple[str, ...], seen: tuple[str, ...]) -> Iterator[str]:
    for field in descriptor.fields:
        if prefix == () and field.name in _DERIVED:
            continue
        yield ".".join((*prefix, field.name))
        child = field.message_type
        if child is not None and len(prefix) < _DEPTH and child.full_name not in seen:
            if _is_map(field):
                child = child.fields_by_name["value"].message_type
                place: tuple[str, ...] = ("KEY",)
            else:
                place = ("0",) if field.is_repeated else ()
            if child is not None:
                yield from _paths(child, (*prefix, field.name, *place), (*seen, child.full_name))


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry

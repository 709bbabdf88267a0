"""Data in JSON: an object on each line, or one document as perf_analyzer takes it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.client import ClientError, TensorMetadata
from naiad.loadtest._data.codec import decode_strings, numpy_dtype, typed
from naiad.loadtest._data.fitting import Found, Reading, Where, reshaped
from naiad.loadtest._data.samples import Rows, evenly

__all__ = ["read_document", "read_lines"]

_NOT_TENSORS: Final = frozenset({"model"})  # what perf_analyzer allows beside them


def read_lines(reading: Reading, path: Path, most: int | None) -> list[list[Rows]]:
    """Read an object from each line: inputs by name; or ``inputs`` and ``outputs`` as KServe's requests have them."""
    where = Where(path)
    try:
        with path.open("rb") as file:
            numbers = [number for number, line in enumerate(file, 1) if line.strip()]
        wanted = {numbers[index] for index in evenly(len(numbers), len(numbers) if most is None else most)}
        with path.open("rb") as file:
            lines = [(number, line) for number, line in enumerate(file, 1) if number in wanted]
    except OSError as exc:
        raise reading.wrong(where, f"could not be read: {exc}") from exc
    if not lines:
        raise reading.wrong(where, "expected a JSON object on each line, found none")
    rows = [
        reading.rows(_found(reading, _parsed(reading, line, Where(path, number)), Where(path, number)))
        for number, line in lines
    ]
    reading.num_found += len(numbers) - len(lines)
    return [rows]


def read_document(reading: Reading, path: Path, most: int | None) -> list[list[Rows]]:
    """Read a document: a list of objects as :func:`read_lines` has them, one alone, or what perf_analyzer takes.

    The result has one list for each sequence that the document holds.
    """
    where = Where(path)
    try:
        document = _parsed(reading, path.read_bytes(), where)
    except OSError as exc:
        raise reading.wrong(where, f"could not be read: {exc}") from exc
    data = document.get("data") if isinstance(document, dict) and "data" not in reading.signature.inputs else None
    if isinstance(data, list) and data:
        return list(_perf_analyzer(reading, document, where, most))
    if isinstance(document, list) and not _is_value(document):
        picked = evenly(len(document), len(document) if most is None else most)
        reading.num_found += len(document) - len(picked)
        places = [(document[index], Where(path, None, f"[{index}]")) for index in picked]
        return [[reading.rows(_found(reading, item, place)) for item, place in places]]
    return [[reading.rows(_found(reading, document, where))]]


def _perf_analyzer(
    reading: Reading, document: Mapping[str, Any], where: Where, most: int | None
) -> Iterator[list[Rows]]:
    data = document["data"]
    expected = _list(reading, document.get("validation_data", []), where, "validation_data")
    nested = isinstance(data[0], list)
    picked = evenly(len(data), len(data) if most is None else most)
    reading.num_found += len(data) - len(picked)
    for at in picked:
        if isinstance(data[at], list) is not nested:
            raise reading.wrong(where, "expected objects or lists of them (sequences) in data, found both")
        answers = expected[at] if at < len(expected) else [] if nested else {}
        if not nested:
            yield [_step(reading, data[at], answers, Where(where.path, None, f"data[{at}]"))]
            continue
        answers = _list(reading, answers, where, f"validation_data[{at}]")
        yield [
            _step(
                reading,
                step,
                answers[number] if number < len(answers) else {},
                Where(where.path, None, f"data[{at}][{number}]"),
            )
            for number, step in enumerate(_list(reading, data[at], where, f"data[{at}]", least=1))
        ]


def _step(reading: Reading, step: Any, answer: Any, where: Where) -> Rows:
    if not isinstance(step, dict):
        raise reading.wrong(where, f"expected an object with the inputs by name, found {_kind(step)}")
    return reading.rows(_named(reading, step, answer, where))


def _list(reading: Reading, value: Any, where: Where, name: str, *, least: int = 0) -> list[Any]:
    if not isinstance(value, list) or len(value) < least:
        raise reading.wrong(
            where, f"expected a list in {name}, found {_kind(value) if value != [] else 'an empty one'}"
        )
    return value


def _parsed(reading: Reading, text: bytes, where: Where) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise reading.wrong(where, f"expected JSON, could not read it: {exc}") from exc


def _found(reading: Reading, item: Any, where: Where) -> Found:
    """Read an object of whichever form; a value alone is for the model's one input."""
    if not isinstance(item, dict):
        return Found(inputs={reading.sole_input(where).name: item}, where=where)
    inputs, outputs = item.get("inputs"), item.get("outputs") or {}
    if isinstance(inputs, dict) and "inputs" not in reading.signature.inputs:
        return _named(reading, inputs, outputs, where)
    if isinstance(inputs, list) and inputs and all(isinstance(tensor, dict) and "name" in tensor for tensor in inputs):
        takes, gives = reading.signature.inputs, reading.signature.outputs
        said = _list(reading, outputs or [], where, "outputs")
        if not all(isinstance(tensor, dict) and "name" in tensor for tensor in said):
            raise reading.wrong(where, "expected objects with the names of tensors in outputs, found others")
        return Found(
            inputs=dict(_kserve(reading, tensor, takes, where) for tensor in inputs),
            outputs=dict(_kserve(reading, tensor, gives, where) for tensor in said if "data" in tensor),
            where=where,
        )
    return _named(reading, item, {}, where)


def _named(reading: Reading, inputs: Mapping[str, Any], outputs: Any, where: Where) -> Found:
    if not isinstance(outputs, dict):
        raise reading.wrong(where, f"expected an object with the outputs by name, found {_kind(outputs)}")
    takes, gives = reading.signature.inputs, reading.signature.outputs
    return Found(
        inputs={
            name: _value(reading, takes[name], value, where) if name in takes else value
            for name, value in inputs.items()
            if name not in _NOT_TENSORS or name in takes
        },
        outputs={
            name: _value(reading, gives[name], value, where) if name in gives else value
            for name, value in outputs.items()
        },
        where=where,
    )


def _value(reading: Reading, tensor: TensorMetadata, value: Any, where: Where) -> Any:
    """Read a tensor: nested or flat lists, a value alone, or ``content`` or ``b64`` with an optional ``shape``."""
    row, shape = reading.signature.row_shape(tensor), None
    if isinstance(value, dict):
        shape = value.get("shape")
        value = value if "b64" in value else value.get("content")
        if isinstance(value, dict):
            array = _decoded(reading, tensor, value.get("b64"), where)
            return array if shape is None else _shaped(reading, tensor, array, shape, where)
    try:
        array = typed(value, tensor.datatype)
    except ClientError as exc:
        raise reading.wrong(where, f"{tensor}: {exc}") from exc
    return reshaped(array, row) if shape is None else _shaped(reading, tensor, array, shape, where)


def _kserve(
    reading: Reading, item: Mapping[str, Any], tensors: Mapping[str, TensorMetadata], where: Where
) -> tuple[str, Any]:
    name, tensor = str(item["name"]), tensors.get(str(item["name"]))
    if tensor is None or "data" not in item:
        return name, item.get("data")  # the name is refused where all names are looked at
    if item.get("datatype", tensor.datatype) != tensor.datatype:
        raise reading.wrong(where, f"expected {tensor}, found the datatype {item['datatype']}")
    try:
        array = typed(item["data"], tensor.datatype)
    except ClientError as exc:
        raise reading.wrong(where, f"{tensor}: {exc}") from exc
    shape = item.get("shape")
    return name, array if shape is None else _shaped(reading, tensor, array, shape, where)


def _decoded(reading: Reading, tensor: TensorMetadata, text: Any, where: Where) -> NDArray[Any]:
    """Read a tensor's bytes; for strings, those with their lengths before them, or else one string."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as exc:
        raise reading.wrong(where, f"{tensor}: expected base64 text, found {_kind(text)}: {exc}") from exc
    dtype, row = numpy_dtype(tensor.datatype), reading.signature.row_shape(tensor)
    assert dtype is not None
    if dtype.hasobject:
        number = int(np.prod([max(size, 1) for size in row]))
        try:
            strings = decode_strings(content, number)
        except ClientError:
            strings = np.empty(1, np.object_)
            strings[0] = content
        return reshaped(strings, row)
    if len(content) % dtype.itemsize:
        raise reading.wrong(where, f"{tensor}: expected whole elements of {dtype.itemsize} bytes, found {len(content)}")
    return reshaped(np.frombuffer(content, dtype), row)


def _shaped(reading: Reading, tensor: TensorMetadata, array: NDArray[Any], shape: Any, where: Where) -> NDArray[Any]:
    try:
        return array.reshape([int(size) for size in shape])
    except (TypeError, ValueError) as exc:
        raise reading.wrong(where, f"{tensor}: expected {array.size} elements in the shape, found {shape}") from exc


def _is_value(document: list[Any]) -> bool:
    """Whether a list is one tensor, and not a list of rows."""
    return not any(isinstance(item, dict) for item in document)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else type(value).__name__

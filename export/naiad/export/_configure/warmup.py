"""Warm-up requests from real samples, in files that Triton reads from `<model>/warmup/`.

Triton builds a warm-up of batch b from b requests of one row each, all with the same data, so a file holds one row.
A batch size of 0 makes it skip the warm-up. One that fails makes the load fail, and the directory belongs to all
versions of a model: it is written with the first one, and every later graph must take what lies there.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2

from naiad.export._configure.tensors import data_type
from naiad.export._runtime.session import session
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples

DIRECTORY = "warmup"
_LARGEST_BYTES = 4_000_000
"""Of all files together; a model whose rows are larger is warmed up with zeros."""

Row = dict[str, np.ndarray[Any, Any]]


def rows(samples: Samples, answers: Sequence[Answer]) -> list[Row]:
    """Return real inputs of batch 1: those of the first sample, and the largest ones where shapes differ."""
    cases = [answer.case for answer in answers if answer.case.required]
    singles = [case.feeds() for case in cases if not samples.batch or case.sizes[samples.batch] == 1]
    if not singles:
        return []
    largest = max(singles, key=_num_elements)
    return [singles[0]] if _num_elements(largest) == _num_elements(singles[0]) else [singles[0], largest]


def add(
    config: Any, samples: Samples, candidates: Sequence[Row], batches: Iterable[int], graph: Path
) -> dict[str, bytes]:
    """Add warm-up requests at `batches` to a configuration, and return the files they read, by name.

    The largest row is added at batch 1 only: it is there for the shapes, not for the memory.
    """
    sizes = list(dict.fromkeys(batches)) if samples.batch else [1]
    files: dict[str, bytes] = {}
    small = sum(_num_bytes(row) for row in candidates) <= _LARGEST_BYTES
    if not small and not (candidates and _takes_zeros(graph, candidates[0])):
        return files
    for index, row in enumerate(candidates):
        names = {name: _file_name(index, place, name) for place, name in enumerate(row)} if small else {}
        files |= {file: encode(row[name]) for name, file in names.items()}
        for batch in sizes if index == 0 else [1]:
            kind = ("sample" if index == 0 else "largest_sample") if small else "zeros"
            config.model_warmup.append(_request(f"{kind}_{batch}", batch, row, names, batched=bool(samples.batch)))
    return files


def write(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write the files into `warmup/` below the directory that becomes the model's."""
    if files:
        (directory / DIRECTORY).mkdir(parents=True)
    for name, data in files.items():
        (directory / DIRECTORY / name).write_bytes(data)


def encode(array: np.ndarray[Any, Any]) -> bytes:
    """Return the bytes of a tensor as Triton reads them: a text is its length in four bytes and its UTF-8."""
    if array.dtype.kind not in "OUS":
        return array.tobytes()
    texts = [text if isinstance(text, bytes) else str(text).encode() for text in array.ravel().tolist()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def decode(request: Any, read: Callable[[str], bytes], *, batched: bool) -> Row | None:
    """Return the arrays of one warm-up request; None for random values, or a type that numpy lacks."""
    arrays = {name: _decoded(tensor, read, batched=batched) for name, tensor in request.inputs.items()}
    known = {name: array for name, array in arrays.items() if array is not None}
    return known if len(known) == len(arrays) else None


def _request(name: str, batch: int, row: Row, files: Mapping[str, str], *, batched: bool) -> Any:
    request = model_config_pb2.ModelWarmup(name=name, batch_size=batch, count=1)
    for tensor, array in row.items():
        entry = request.inputs[tensor]
        entry.data_type = data_type(array.dtype)
        entry.dims.extend(list(array.shape[1:] if batched else array.shape) or [1])
        if tensor in files:
            entry.input_data_file = files[tensor]
        else:
            entry.zero_data = True
    return request


def _decoded(tensor: Any, read: Callable[[str], bytes], *, batched: bool) -> np.ndarray[Any, Any] | None:
    shape = [1, *tensor.dims] if batched else list(tensor.dims)
    kind = tensor.WhichOneof("input_data_type")
    name = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_").lower().replace("fp", "float")
    if kind == "random_data" or name in ("bf16", "invalid"):
        return None
    if name == "string":
        texts = _texts(read(tensor.input_data_file)) if kind == "input_data_file" else [""] * int(np.prod(shape))
        return np.array(texts, dtype=object).reshape(shape)
    if kind != "input_data_file":
        return np.zeros(shape, name)
    return np.frombuffer(read(tensor.input_data_file), name, count=int(np.prod(shape))).reshape(shape)


def _texts(data: bytes) -> list[str]:
    texts, start = [], 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        texts.append(data[start + 4 : end].decode())
        start = end
    return texts


def _takes_zeros(graph: Path, row: Row) -> bool:
    zeros = {
        name: np.full(array.shape, "", object) if array.dtype.kind in "OUS" else np.zeros_like(array)
        for name, array in row.items()
    }
    try:
        session(graph).run(None, zeros)
    except Exception:  # noqa: BLE001 - a model may refuse zeros in any way; it is then not warmed up
        return False
    return True


def _file_name(index: int, place: int, tensor: str) -> str:
    return f"{index}_{place}_{re.sub(r'[^A-Za-z0-9_]+', '_', tensor)}"


def _num_elements(row: Row) -> int:
    return sum(array.size for array in row.values())


def _num_bytes(row: Row) -> int:
    return sum(len(encode(array)) if array.dtype.kind in "OUS" else array.nbytes for array in row.values())

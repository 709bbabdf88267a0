"""The samples that a version was verified with, and the outputs it gave: its ``golden.npz``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naiad.client import TensorMetadata
from naiad.loadtest._data.codec import numpy_dtype
from naiad.loadtest._data.samples import Rows, Samples, requests_of, sequences_of, thinned
from naiad.loadtest._data.signature import Signature
from naiad.loadtest.errors import InvalidData

__all__ = ["golden_samples", "read_archive"]

Case = dict[str, dict[str, NDArray[Any]]]  # {"input": {tensor: values}, "output": {…}}


def golden_samples(path: Path, signature: Signature, *, batch: int, sequences: bool) -> Samples:
    """Return the golden samples in requests of ``batch`` rows; with ``sequences``, each case is one.

    Raises:
        InvalidData: the file is none, or of another model.
    """
    pools = [_rows(case, path, signature) for case in cases_of(read_archive(path), path)]
    if sequences:
        samples, steps = sequences_of([[pool] for pool in pools], signature)
        return Samples(samples=samples, steps=steps)
    return Samples(samples=thinned(requests_of(pools, batch, signature)))


def read_archive(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of an ``.npz`` file.

    Raises:
        InvalidData: it is none, or holds Python objects.
    """
    try:
        with path.open("rb") as file:  # NumPy leaves a broken archive open
            return dict(np.lib.npyio.NpzFile(file).items())
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise InvalidData(
            f"expected arrays saved by NumPy at {path}, could not read it: {exc}", path=str(path)
        ) from exc


def cases_of(arrays: dict[str, NDArray[Any]], path: Path) -> list[Case]:
    """Return the arrays ``input/<case>/<tensor>`` and ``output/<case>/<tensor>`` by their cases.

    Raises:
        InvalidData: there is no input among them.
    """
    cases: dict[str, Case] = {}
    for key, array in arrays.items():
        kind, _, rest = key.partition("/")
        number, _, tensor = rest.partition("/")
        if kind in {"input", "output"} and tensor:
            cases.setdefault(number, {"input": {}, "output": {}})[kind][tensor] = array
    found = [case for _, case in sorted(cases.items()) if case["input"]]
    if not found:
        raise InvalidData(f"expected arrays named input/<case>/<tensor> in {path}, found none", path=str(path))
    return found


def _rows(case: Case, path: Path, signature: Signature) -> Rows:
    """Give a case the model's data types; refuse what the model would refuse."""
    takes = signature.inputs
    missing = takes.keys() - case["input"].keys() - signature.optional
    extra = case["input"].keys() - takes.keys()
    if missing or extra:
        raise InvalidData(
            f"expected samples of the inputs {signature.takes}, found "
            f"{', '.join(sorted(case['input']))} in {path}: these golden samples are of another model",
            model=signature.name,
            path=str(path),
        )
    gives = signature.outputs
    inputs = {name: _as(takes[name], array, path) for name, array in case["input"].items()}
    outputs = {name: _as(gives[name], array, path) for name, array in case["output"].items() if name in gives}
    if signature.batching:
        return Rows(inputs=inputs, outputs=outputs)
    return Rows(inputs=_one_row(inputs), outputs=_one_row(outputs))


def _one_row(tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: array[np.newaxis] for name, array in tensors.items()}


def _as(tensor: TensorMetadata, array: NDArray[Any], path: Path) -> NDArray[Any]:
    dims_fit = len(array.shape) == len(tensor.shape) and all(
        want in (-1, size) for want, size in zip(tensor.shape, array.shape, strict=True)
    )
    dtype = numpy_dtype(tensor.datatype)
    if tensor.datatype == "BF16" and array.dtype.kind in "Vu" and array.dtype.itemsize == 2 and dtype is not None:
        array = array.view(dtype)  # .npz has no bfloat16: it stores the bits
    strings = tensor.datatype == "BYTES" and array.dtype.kind in "SU"
    if not dims_fit or not (strings or array.dtype == dtype):
        raise InvalidData(
            f"expected {tensor}, found {array.dtype} {list(array.shape)} in {path}: "
            "these golden samples do not fit the model",
            path=str(path),
        )
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return array.astype(np.object_) if strings else array

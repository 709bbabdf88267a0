"""Data in NumPy's files, and in text files with a string on each line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.loadtest._data.fitting import Found, Reading, Where
from naiad.loadtest._data.golden import cases_of, read_archive
from naiad.loadtest._data.samples import Rows, evenly

__all__ = ["read_npy", "read_npy_columns", "read_npz", "read_text"]

_OUTPUT: Final = "output/"
_INPUT: Final = "input/"


def read_npy(reading: Reading, path: Path, most: int | None) -> list[list[Rows]]:
    """Read an array of the model's one input: a row, or many; only the rows that are used are read."""
    where = Where(path)
    return [[reading.rows(Found(inputs={reading.sole_input(where).name: _open(reading, path)}, where=where), most)]]


def read_npy_columns(reading: Reading, paths: list[Path], most: int | None) -> list[list[Rows]]:
    """Read one array for each input, whose name is that of its file."""
    inputs = {path.stem: _open(reading, path) for path in paths}
    return [[reading.rows(Found(inputs=inputs, where=Where(paths[0].parent)), most)]]


def read_npz(reading: Reading, path: Path, most: int | None) -> list[list[Rows]]:
    """Read arrays by the names of the inputs, ``output/<name>`` what to expect; or the cases of a ``golden.npz``."""
    arrays, where = read_archive(path), Where(path)
    inputs, outputs = reading.signature.inputs, reading.signature.outputs
    found_in = {key.removeprefix(_INPUT): array for key, array in arrays.items() if key.removeprefix(_INPUT) in inputs}
    found_out = {
        key.removeprefix(_OUTPUT): array
        for key, array in arrays.items()
        if key.startswith(_OUTPUT) and key.removeprefix(_OUTPUT) in outputs
    }
    if len(found_in) + len(found_out) == len(arrays) and found_in:
        return [[reading.rows(Found(inputs=found_in, outputs=found_out, where=where), most)]]
    if any(key.startswith(_INPUT) and "/" in key.removeprefix(_INPUT) for key in arrays):
        cases = cases_of(arrays, path)
        picked = evenly(len(cases), len(cases) if most is None else most)
        reading.num_found += len(cases) - len(picked)
        return [
            [
                reading.rows(
                    Found(
                        inputs=cases[index]["input"],
                        outputs={name: array for name, array in cases[index]["output"].items() if name in outputs},
                        where=where,
                    )
                )
            ]
            for index in picked
        ]
    raise reading.wrong(
        where,
        f"expected arrays with the names of the inputs {reading.signature.takes} (what to expect: output/<name>), "
        f"found {', '.join(arrays) or 'none'}",
    )


def read_text(reading: Reading, path: Path, most: int | None) -> list[list[Rows]]:
    """Read a string from each line, for the model's one input."""
    where = Where(path)
    tensor = reading.sole_input(where)
    if tensor.datatype != "BYTES":
        raise reading.wrong(where, f"expected an input of strings (BYTES) for lines of text, found {tensor}")
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise reading.wrong(where, f"could not be read: {exc}") from exc
    row = reading.signature.row_shape(tensor)
    if any(size not in (1, -1) for size in row):
        raise reading.wrong(where, f"expected an input of one string for lines of text, found {tensor}")
    strings = np.empty((len(lines), *(1 for _ in row)), np.object_)
    strings.reshape(-1)[:] = lines
    return [[reading.rows(Found(inputs={tensor.name: strings}, where=where), most)]]


def _open(reading: Reading, path: Path) -> NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as exc:
        raise reading.wrong(Where(path), f"expected an array saved by NumPy, could not read it: {exc}") from exc

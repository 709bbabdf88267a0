"""Data of one's own: a file, or a directory of files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Final

from naiad.loadtest._data.arrays import read_npy, read_npy_columns, read_npz, read_text
from naiad.loadtest._data.fitting import Reading
from naiad.loadtest._data.images import read_image
from naiad.loadtest._data.json_data import read_document, read_lines
from naiad.loadtest._data.samples import (
    MAX_BYTES,
    MAX_SAMPLES,
    Rows,
    Samples,
    evenly,
    requests_of,
    sequences_of,
    size_of,
    thinned,
)
from naiad.loadtest._data.signature import Signature
from naiad.loadtest.errors import InvalidData
from naiad.loadtest.plan import Files

__all__ = ["file_samples"]

Reader = Callable[[Reading, Path, int | None], list[list[Rows]]]
"""Reads at most so many rows, evenly picked; returns a list of rows for each sequence in the file."""

_IMAGES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_READERS: Final[dict[str, Reader]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".txt": read_text,
    ".jsonl": read_lines,
    ".ndjson": read_lines,
    ".json": read_document,
    **dict.fromkeys(_IMAGES, read_image),
}
_TAKEN: Final = f".npy, .npz, .jsonl, .ndjson, .json, .txt or an image ({', '.join(_IMAGES)})"
_LIMIT: Final = f"there are {MAX_SAMPLES:,} different requests at most, of {MAX_BYTES >> 20} MiB together"


def file_samples(data: Files, signature: Signature, *, batch: int, sequences: bool) -> Samples:
    """Return the samples of the files, in requests of ``batch`` rows; there are as many as :data:`MAX_BYTES` hold.

    With ``sequences``, the rows of one file are the steps of one, and so are the images of one directory.

    Raises:
        InvalidData: there are none, or they do not fit the model.
    """
    paths, notes = _paths(data.path)
    reading = Reading(signature=signature, input=data.input)
    if _are_columns(paths, reading):
        found, used = read_npy_columns(reading, paths, None), paths
    else:
        found, used = _read(paths, reading, batch, sequences=sequences)
    if len(used) < len(paths):
        notes.append(f"{len(used)} of {len(paths)} files are sent, evenly picked: {_LIMIT}")
    num_used = sum(len(rows) for pools in found for rows in pools)
    if num_used < reading.num_found:
        notes.append(f"{num_used} of {reading.num_found} rows are sent, evenly picked: {_LIMIT}")
    if reading.num_resized:
        notes.append(f"{reading.num_resized} of {num_used} images were resized to what the model takes")
    samples = _in_sequences(found, signature) if sequences else _in_batches(found, signature, batch)
    samples.notes = [*notes, *samples.notes]
    return samples


def _in_batches(found: list[list[Rows]], signature: Signature, batch: int) -> Samples:
    requests = requests_of([rows for pools in found for rows in pools], batch, signature)
    kept = thinned(requests)
    if len(kept) == len(requests):
        return Samples(samples=kept)
    return Samples(samples=kept, notes=[f"{len(kept)} of {len(requests)} requests are sent, evenly picked: {_LIMIT}"])


def _in_sequences(found: list[list[Rows]], signature: Signature) -> Samples:
    """Keep whole sequences where there are too many, and the beginning of one that is too long alone."""
    notes = []
    total = sum(size_of(rows) for pools in found for rows in pools)
    picked = evenly(len(found), max(1, len(found) * MAX_BYTES // max(total, MAX_BYTES)))
    if len(picked) < len(found):
        notes.append(f"{len(picked)} of {len(found)} sequences are sent, evenly picked: {_LIMIT}")
    samples, steps = sequences_of([found[index] for index in picked], signature)
    most = max(1, len(samples) * MAX_BYTES // max(sum(map(size_of, samples)), MAX_BYTES))
    if len(steps) == 1 and most < len(samples):
        notes.append(f"the first {most} of {len(samples)} steps of the sequence are sent: {_LIMIT}")
        samples, steps = samples[:most], [steps[0][:most]]
    return Samples(samples=samples, steps=steps, notes=notes)


def _read(paths: list[Path], reading: Reading, batch: int, *, sequences: bool) -> tuple[list[list[Rows]], list[Path]]:
    """Read as much as there is room for, judged by the first file; return it, and the files that it is from."""
    reader = _READERS[paths[0].suffix.lower()]
    probe = Reading(signature=reading.signature, input=reading.input)
    first = [rows for pools in reader(probe, paths[0], None if sequences else 1) for rows in pools]
    num_rows, num_bytes = sum(map(len, first)), sum(map(size_of, first))
    most_rows = max(batch, min(MAX_BYTES * num_rows // max(num_bytes, 1), MAX_SAMPLES * batch))
    if sequences:
        used = [paths[index] for index in evenly(len(paths), max(1, most_rows // num_rows))]
        found = [pools for path in used for pools in reader(reading, path, None)]
        return (_by_directory(found, used) if reader is read_image else found), used
    used = [paths[index] for index in evenly(len(paths), most_rows)]
    most_of_one = -(-most_rows // len(used))
    return [pools for path in used for pools in reader(reading, path, most_of_one)], used


def _by_directory(found: list[list[Rows]], paths: list[Path]) -> list[list[Rows]]:
    groups = groupby(zip(paths, found, strict=True), key=lambda item: item[0].parent)
    return [[rows for _, pools in group for rows in pools] for _, group in groups]


def _paths(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files to read, all of one kind, and notes on what was left out."""
    if not path.exists():
        raise InvalidData(f"expected a file or a directory at {path}, found nothing", path=str(path))
    if not path.is_dir():
        if path.suffix.lower() not in _READERS:
            raise InvalidData(f"expected a file of samples ({_TAKEN}), found {path}", path=str(path))
        return [path], []
    files = _files_below(path)
    kinds = Counter(_kind(file) for file in files)
    counts = [(count, kind) for kind, count in kinds.items() if kind is not None]
    if not counts:
        found = ", ".join(sorted({file.suffix or file.name for file in files})) or "none"
        raise InvalidData(f"expected files of samples ({_TAKEN}) in {path}, found {found}", path=str(path))
    most, kind = max(counts, key=lambda item: item[0])
    if [count for count, _ in counts].count(most) > 1:
        names = " and ".join(sorted(f"{count} of {name}" for count, name in counts))
        raise InvalidData(f"expected files of one kind in {path}, found {names}: name those to send", path=str(path))
    chosen = [file for file in files if _kind(file) == kind]
    others = sorted({file.suffix or file.name for file in files if _kind(file) != kind})
    notes = [f"files of other kinds are left out: {len(files) - len(chosen)} ({', '.join(others)})"] if others else []
    return chosen, notes


def _files_below(directory: Path) -> list[Path]:
    """Return all files, hidden ones excepted, those of one folder after another, by name."""
    found = list[Path]()
    for folder, folders, names in os.walk(directory):  # sorting paths themselves takes ten times as long
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _kind(path: Path) -> str | None:
    suffix = path.suffix.lower()
    return None if suffix not in _READERS else "images" if suffix in _IMAGES else suffix


def _are_columns(paths: list[Path], reading: Reading) -> bool:
    """Whether there is one ``.npy`` for each input of a model with several, under its name."""
    stems, inputs = {path.stem for path in paths}, reading.signature.inputs
    needed = inputs.keys() - reading.signature.optional
    return (
        reading.input is None
        and all(path.suffix.lower() == ".npy" for path in paths)
        and len(inputs) > 1
        and len(stems) == len(paths)
        and needed <= stems <= inputs.keys()
    )

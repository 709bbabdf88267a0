"""`golden.npz`: request and response pairs from the verification, to be replayed against any server.

Arrays are named `input/<case>/<tensor>` and `output/<case>/<tensor>`; cases count from 0. The outputs are PyTorch's.
"""

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from naiad.export.errors import InvalidModel

if TYPE_CHECKING:
    from naiad.export._source.reference import Answer
    from naiad.export._source.samples import Samples

Arrays = dict[str, np.ndarray[Any, Any]]

FILE = "golden.npz"
_CASE_BYTES = 4_000_000
_TOTAL_BYTES = 16_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One request with the answer PyTorch gave; text is bytes in arrays of objects."""

    case: int
    inputs: Arrays = field(default_factory=dict)
    outputs: Arrays = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """The size of the first dimension, 1 where there is none."""
        array = next(iter(self.inputs.values()), None)
        return array.shape[0] if array is not None and array.ndim else 1


def read(path: Path, datatypes: Mapping[str, str]) -> tuple[Pair, ...]:
    """Return the pairs of a file; `datatypes` has Triton's names by tensor, for what NumPy's files cannot name.

    Raises:
        InvalidModel: It is missing, broken, or has no pairs.
    """
    pairs: dict[int, Pair] = {}
    try:
        with path.open("rb") as file:  # NumPy leaves a broken archive open
            for key, array in np.lib.npyio.NpzFile(file).items():
                kind, case, name = key.split("/", 2)
                pair = pairs.setdefault(int(case), Pair(case=int(case)))
                side = {"input": pair.inputs, "output": pair.outputs}[kind]
                side[name] = _typed(array, datatypes.get(name, ""))
    except FileNotFoundError as exc:
        raise InvalidModel(f"{path} is missing, so there is no request to replay; export the model again") from exc
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise InvalidModel(f"{path} is not a file of golden pairs: {exc}; compare the version with `verify`") from exc
    found = tuple(pairs[case] for case in sorted(pairs) if pairs[case].inputs)
    if not found:
        raise InvalidModel(f"{path} has no arrays named input/<case>/<tensor>; export the model again")
    return found


def write(path: Path, samples: "Samples", answers: "Sequence[Answer]") -> int:
    """Write one small case for each batch size that was verified, and return how many; the first is always there."""
    return write_pairs(path, _by_batch(samples, answers))


def write_pairs(path: Path, pairs: Iterable[tuple[Arrays, Arrays]]) -> int:
    """Write inputs with the outputs they must give, as many as are small, and return how many."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    count = total = 0
    for inputs, outputs in pairs:
        if not all(map(_keeps, (*inputs.values(), *outputs.values()))):
            continue
        case = {f"input/{count}/{name}": _plain(array) for name, array in inputs.items()}
        case |= {f"output/{count}/{name}": _plain(array) for name, array in outputs.items()}
        size = sum(array.nbytes for array in case.values())
        if count and (size > _CASE_BYTES or total + size > _TOTAL_BYTES):
            continue
        arrays |= case
        count, total = count + 1, total + size
    with path.open("xb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return count


def _typed(array: np.ndarray[Any, Any], datatype: str) -> np.ndarray[Any, Any]:
    if array.dtype.kind == "V" and datatype == "BF16":
        return array.view(ml_dtypes.bfloat16)
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return array.astype(object) if array.dtype.kind == "S" else array


def _plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return text as fixed-width characters and bytes as fixed-width bytes: objects would need a pickle."""
    if array.dtype != object:
        return array
    return array.astype(np.bytes_ if any(isinstance(item, bytes) for item in array.flat) else np.str_)


def _keeps(array: np.ndarray[Any, Any]) -> bool:
    """Whether a file keeps the array as it is: fixed-width text loses zeros at its end."""
    return array.dtype != object or not any(item[-1:] in ("\0", b"\0") for item in array.flat)


def _by_batch(samples: "Samples", answers: "Sequence[Answer]") -> Iterator[tuple[Arrays, Arrays]]:
    seen = set()
    for answer in answers:
        batch = tuple(answer.case.sizes.items())
        if batch not in seen and answer.case.required:
            seen.add(batch)
            yield answer.case.feeds(), answer.outputs

"""Samples in a file: `.npz`, arrays by input name."""

import os
import zipfile
from pathlib import Path

import numpy as np

from naiad.export._source.samples import Inputs
from naiad.export.errors import InvalidExport


def load_samples(path: str | os.PathLike[str]) -> list[Inputs]:
    """Read samples from an `.npz` file: arrays by input name are one sample, `0/x`, `1/x`, … are one each.

    The `golden.npz` of a published version can be read too: its inputs are taken.

    Raises:
        InvalidExport: It cannot be read, or has objects that need a pickle.
    """
    file = Path(path)
    try:
        saved = np.load(file, allow_pickle=False)
        if isinstance(saved, np.ndarray):
            raise InvalidExport(f"{file} is one array without a name; save samples with numpy.savez('samples', x=…)")
        with saved:
            arrays = {name: saved[name] for name in saved.files if not name.startswith("output/")}
    except InvalidExport:
        raise
    except OSError as exc:
        raise InvalidExport(f"cannot read the samples {file}: {exc.strerror or exc}") from exc
    except (ValueError, zipfile.BadZipFile, EOFError) as exc:
        raise InvalidExport(
            f"{file} cannot be read as samples: {exc}; expected arrays of numbers or text that numpy.savez() wrote"
        ) from exc
    samples: dict[str, Inputs] = {}
    for name, array in arrays.items():
        number, slash, tensor = name.removeprefix("input/").partition("/")
        numbered = bool(slash) and number.isdigit()
        samples.setdefault(number if numbered else "", {})[tensor if numbered else name] = array
    if not samples:
        raise InvalidExport(f"{file} has no arrays; expected one for each input, by name")
    return list(samples.values())

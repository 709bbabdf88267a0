"""Triton's data types and NumPy's, both ways.

Source: the table "Datatypes" of Triton's model configuration documentation. Triton has no name for 8-bit floats: a
model that computes with them declares UINT8, so the bits of an ``ml_dtypes.float8_*`` array travel as UINT8, unchanged.
"""

from __future__ import annotations

from typing import Any, Final

import ml_dtypes
import numpy as np

_BY_NAME: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BYTES": np.dtype(np.object_),
}
_FLOAT8: Final = tuple(
    np.dtype(getattr(ml_dtypes, f"float8_{layout}"))
    for layout in ("e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
)
_BY_DTYPE: Final = {dtype: name for name, dtype in _BY_NAME.items()} | dict.fromkeys(_FLOAT8, "UINT8")
_STRING_KINDS: Final = frozenset("OSUT")  # object, bytes, str, StringDType


def numpy_dtype(datatype: str) -> np.dtype[Any] | None:
    """Return the NumPy type that holds ``datatype`` ("FP32", …), ``None`` for one that NumPy cannot hold."""
    return _BY_NAME.get(datatype)


def triton_datatype(dtype: np.dtype[Any]) -> str | None:
    """Return Triton's name of ``dtype`` in either byte order, ``None`` where it has none (complex, dates, …)."""
    found = _BY_DTYPE.get(dtype)
    if found is None and dtype.kind in _STRING_KINDS:
        return "BYTES"
    return found if found is not None else _BY_DTYPE.get(dtype.newbyteorder("<"))

"""Strings, which Triton hands over as ``bytes`` and ONNX Runtime takes as ``str``."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def strings_for_runtime(strings: NDArray[Any]) -> NDArray[Any]:
    """Bytes as ONNX Runtime takes them.

    It wants ``str``, and would take the repr of ``bytes``. What is not UTF-8 goes as fixed-width bytes, one
    longer than the longest: ONNX Runtime reads up to a null byte, and past the end where there is none.
    """
    flat = strings.reshape(-1).tolist()
    try:
        decoded = np.empty(len(flat), dtype=np.object_)
        decoded[:] = [text.decode() for text in flat]
        return decoded.reshape(strings.shape)
    except UnicodeDecodeError:
        width = max(map(len, flat)) + 1
        return np.array(flat, dtype=f"S{width}").reshape(strings.shape)

"""A model called as any program without a client library calls it: plain JSON over HTTP, by KServe v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

__all__ = ["infer_by_rest"]

_TIMEOUT_S: Final = 30.0


def infer_by_rest(
    http_url: str, model: str, inputs: Mapping[str, np.ndarray[Any, Any]], *, headers: Mapping[str, str] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Return a model's outputs by name; ``inputs`` are numbers, and ``headers`` may hold a key.

    Raises:
        httpx.HTTPStatusError: the server refused the request; its body says why.
        httpx.TransportError: nobody answered.
    """
    import httpx

    body = {"inputs": [_tensor(name, array) for name, array in inputs.items()]}
    response = httpx.post(
        f"{http_url.rstrip('/')}/v2/models/{model}/infer", json=body, headers=dict(headers or {}), timeout=_TIMEOUT_S
    )
    answer = response.raise_for_status().json()
    return {tensor["name"]: _array(tensor) for tensor in answer["outputs"]}


def _tensor(name: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": _DATATYPES[array.dtype.kind] + str(array.dtype.itemsize * 8),
        "data": array.ravel().tolist(),
    }


def _array(tensor: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    kind = tensor["datatype"].rstrip("0123456789")
    dtype = f"{_KINDS[kind]}{int(tensor['datatype'].removeprefix(kind)) // 8}"
    return np.array(tensor["data"], dtype).reshape(tensor["shape"])


_DATATYPES: Final = {"f": "FP", "i": "INT", "u": "UINT"}
_KINDS: Final = {name: kind for kind, name in _DATATYPES.items()}

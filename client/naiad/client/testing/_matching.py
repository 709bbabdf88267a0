"""When two requests ask the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from naiad.client._protocol.datatypes import numpy_dtype
from naiad.client.testing._service import request_types

_INFER = ("ModelInfer", "ModelStreamInfer")
_NOT_COMPARED = ("timeout",)  # parameters that change from one call to the next


def parsed(method: str, data: bytes) -> Any:
    """Return the message of a request, ``None`` if it is none."""
    try:
        return request_types()[method].FromString(data)
    except DecodeError:
        return None


def named(method: str, data: bytes) -> tuple[str, str]:
    """Return the model and the version that a request names, empty where it names none."""
    message = parsed(method, data)
    model = getattr(message, "model_name", "") or getattr(message, "name", "")
    return model, getattr(message, "model_version", "") or getattr(message, "version", "")


def fingerprint(method: str, data: bytes) -> bytes:
    """Return what is equal for requests that ask the same: their ids and time-outs do not count."""
    message = parsed(method, data)
    if message is None:
        return hashlib.sha256(data).digest()
    if method in _INFER:
        message.id = ""
        for name in _NOT_COMPARED:
            message.parameters.pop(name, None)
    return hashlib.sha256(message.SerializeToString(deterministic=True)).digest()


def with_id(method: str, response: bytes, request: bytes) -> bytes:
    """Return a recorded response with the id of the request that it answers now."""
    if method not in _INFER:
        return response
    wanted = parsed(method, request).id
    from tritonclient.grpc import service_pb2

    if method == "ModelStreamInfer":
        outer = service_pb2.ModelStreamInferResponse.FromString(response)
        message = outer.infer_response
    else:
        outer = message = service_pb2.ModelInferResponse.FromString(response)
    if message.id == wanted:
        return response
    message.id = wanted
    return bytes(outer.SerializeToString())


def differences(asked: Any, recorded: Any) -> list[str]:
    """Say in words how two inference requests differ."""
    found = []
    if asked.model_version != recorded.model_version:
        found.append(f"version {recorded.model_version or 'not given'}, not {asked.model_version or 'not given'}")
    ours, theirs = _inputs(asked), _inputs(recorded)
    found += [f"no input '{name}'" for name in ours if name not in theirs]
    found += [f"an input '{name}' too" for name in theirs if name not in ours]
    for name in ours:
        if name in theirs:
            found += _input_differs(name, ours[name], theirs[name])
    if [output.name for output in asked.outputs] != [output.name for output in recorded.outputs]:
        found.append(f"other outputs ({', '.join(output.name for output in recorded.outputs) or 'all'})")
    keys = {*asked.parameters, *recorded.parameters} - {*_NOT_COMPARED}
    changed = sorted(key for key in keys if _parameter(asked, key) != _parameter(recorded, key))
    found += [f"parameter '{key}'" for key in changed]
    return found


def _parameter(message: Any, key: str) -> Any:
    return dict(message.parameters).get(key)


def _inputs(message: Any) -> dict[str, tuple[str, list[int], bytes]]:
    raws: Iterator[bytes] = iter(message.raw_input_contents)
    return {
        tensor.name: (tensor.datatype, list(tensor.shape), next(raws, tensor.contents.SerializeToString()))
        for tensor in message.inputs
    }


def _input_differs(name: str, asked: tuple[str, list[int], bytes], recorded: tuple[str, list[int], bytes]) -> list[str]:
    if asked[:2] != recorded[:2]:
        return [f"input '{name}' is {recorded[0]} {recorded[1]}, not {asked[0]} {asked[1]}"]
    if asked[2] == recorded[2]:
        return []
    dtype = numpy_dtype(asked[0])
    if dtype is None or dtype.hasobject or len(asked[2]) != len(recorded[2]):
        return [f"input '{name}' has other values"]
    ours, theirs = (np.frombuffer(data, dtype) for data in (asked[2], recorded[2]))
    other = np.flatnonzero(np.frombuffer(asked[2], np.uint8) != np.frombuffer(recorded[2], np.uint8)) // dtype.itemsize
    first = int(other[0])
    number = len(np.unique(other))
    return [f"input '{name}' has {number} other values, the first at {first}: {theirs[first]}, not {ours[first]}"]

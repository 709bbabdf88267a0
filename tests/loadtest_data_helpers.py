"""Signatures of models, and files with samples for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from naiad.client import ModelMetadata, TensorMetadata
from naiad.loadtest import Traffic
from naiad.loadtest._data.payloads import make_samples
from naiad.loadtest._data.samples import Samples
from naiad.loadtest._data.signature import Signature
from naiad.loadtest.plan import Data, Files


def tensor(text: str) -> TensorMetadata:
    """``"x FP32 [-1, 8]"`` as metadata."""
    name, datatype, dims = text.split(" ", 2)
    return TensorMetadata(name=name, datatype=datatype, shape=tuple(json.loads(dims)))


def signature(*inputs: str, outputs: tuple[str, ...] = (), max_batch_size: int = 8, **fields: Any) -> Signature:
    """A model ``m`` with these tensors, batch dimension included."""
    metadata = ModelMetadata(
        name="m",
        versions=("1",),
        platform="onnx",
        inputs=tuple(map(tensor, inputs)),
        outputs=tuple(map(tensor, outputs)),
    )
    return Signature(metadata=metadata, max_batch_size=max_batch_size, **fields)


def samples_of(data: Data | Path, model: Signature, *, seed: int = 0, **traffic: Any) -> Samples:
    """The samples of requests with ``data``; a path stands for files."""
    given = Files(path=data) if isinstance(data, Path) else data
    return make_samples(Traffic(model="m", data=given, **traffic), model, seed)


def values(samples: Samples, name: str = "x") -> list[Any]:
    """The values of one input of all samples."""
    return [sample.inputs[name].tolist() for sample in samples.samples]


def save(path: Path, *arrays: Any, **named: Any) -> Path:
    """Save one array as ``.npy``, or several by name as ``.npz``."""
    if arrays:
        np.save(path, arrays[0], allow_pickle=True)
    else:
        with path.open("wb") as file:
            np.savez(file, allow_pickle=True, **named)
    return path


def write_lines(path: Path, *items: Any) -> Path:
    """Write JSON lines; text is written as it is."""
    path.write_text("".join(f"{item if isinstance(item, str) else json.dumps(item)}\n" for item in items))
    return path

"""Code that calls a published model, with the model's own names."""

import keyword
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_NUMPY = {
    "FP16": "np.float16",
    "FP32": "np.float32",
    "FP64": "np.float64",
    "BOOL": "np.bool_",
    **{f"{kind}{bits}": f"np.{kind.lower()}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)},
}
_EXAMPLE_SIZE = 8


def python(model: str, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> str:
    """Return a program that sends one request and prints every answer."""
    pairs = [(str(tensor["name"]), _array(tensor)) for tensor in inputs]
    if all(name.isidentifier() and not keyword.iskeyword(name) for name, _ in pairs):
        arguments = [f"{name}={value}" for name, value in pairs]
    else:
        arguments = ["**{", *(f"    {name!r}: {value}," for name, value in pairs), "}"]
    call = "\n".join(f"        {line}{'' if line.endswith(('{', ',')) else ','}" for line in arguments)
    shown = "\n".join(f"    print(answer[{str(tensor['name'])!r}])" for tensor in outputs)
    return (
        "import numpy as np\n\nfrom naiad.client import Client\n\n"
        'with Client("grpc://localhost:8001") as triton:\n'
        f"    model = triton.model({model!r})\n    answer = model(\n{call}\n    )\n{shown}\n"
    )


def command(model: str, inputs: Sequence[Mapping[str, Any]]) -> str:
    """Return a command line that does the same with arrays from files."""
    pairs = [str(tensor["name"]) for tensor in inputs]
    given = " ".join("--input " + shlex.quote(f"{name}=@{_file(name)}.npy") for name in pairs)
    return f"naiad infer {shlex.quote(model)} {given}"


def _array(tensor: Mapping[str, Any]) -> str:
    sizes = [_size(axis, dim) for axis, dim in enumerate(tensor["shape"])]
    shape = f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"
    dtype = _NUMPY.get(str(tensor["dtype"]))
    return f"np.zeros({shape}, {dtype})" if dtype else f'np.full({shape}, "text", object)'


def _size(axis: int, dim: int | str) -> int:
    if isinstance(dim, int) and dim >= 0:
        return dim
    return 1 if axis == 0 else _EXAMPLE_SIZE


def _file(name: str) -> str:
    return "".join(char if char.isalnum() or char in "_-." else "_" for char in name) or "input"

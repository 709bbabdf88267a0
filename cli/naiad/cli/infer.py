"""``naiad infer``: one call, printed or saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naiad.cli._console import err, out, print_json
from naiad.cli._running import URL_HELP, running_url

if TYPE_CHECKING:
    from naiad.client import Client, Result


def infer(
    model: Annotated[str, typer.Argument(help="The model's name on the server.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="NAME=VALUE",
            help="A JSON value or text; @file.npy or @file.json for what is in it, @ and any other file for its bytes. "
            "Repeatable. Without any, the model's inputs are named.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output", "-o", metavar="NAME", help="Ask for this output only. Repeatable.")
    ] = None,
    url: Annotated[str | None, typer.Option(help=URL_HELP)] = None,
    version: Annotated[str | None, typer.Option(help="A version; the newest that is served by default.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the outputs to this .npz file instead of printing.")] = None,
    timeout: Annotated[float, typer.Option(help="Deadline in seconds.")] = 30.0,
    json: Annotated[bool, typer.Option("--json", help="Print the outputs as JSON.")] = False,
    timing: Annotated[bool, typer.Option("--timing", help="Say on stderr where the time went.")] = False,
) -> None:
    """Send one request and print the answer.

    The inputs are checked against the model's metadata first; JSON values take the model's data type.

    Examples:

        naiad infer digits --input image=@digit.npy

        naiad infer adder -i a=[[1,2]] -i b=[[3,4]] -o sum --json

        naiad infer reader -i picture=@cat.jpg --save answer.npz
    """
    from naiad.client import Client

    values = dict(map(_parse, inputs or ()))
    with Client(url or running_url(), timeout=timeout) as triton:
        result = _call(triton, model, version, values, outputs)
    if save is not None:
        _save(save, result)
    elif json:
        print_json({name: _plain(array) for name, array in result.items()})
    else:
        _print(result)
    if timing:
        _print_timing(result)


def _call(triton: Client, model: str, version: str | None, values: dict[str, Any], outputs: list[str] | None) -> Result:
    handle = triton.model(model, version)
    for tensor in handle.metadata.inputs:
        if tensor.datatype == "BYTES" and isinstance(values.get(tensor.name), (bytes, str)):
            values[tensor.name] = _single(values[tensor.name], len(tensor.shape))
    return handle.infer(values, outputs=outputs or None)


def _single(content: bytes | str, rank: int) -> Any:
    """Return one string as the tensor of as many dimensions that holds nothing else."""
    import numpy as np

    array = np.empty((1,) * rank, object)
    array.fill(content)
    return array


def _parse(text: str) -> tuple[str, Any]:
    import json

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"expected NAME=VALUE or NAME=@file, found {text!r}", param_hint="--input")
    if value.startswith("@"):
        return name, _load(Path(value[1:]))
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value  # plain text is a string


def _load(path: Path) -> Any:
    import json

    import numpy as np

    wanted = f"a {path.suffix} file" if path.suffix in {".npy", ".json"} else "a file"
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()
    except (OSError, ValueError) as exc:
        raise typer.BadParameter(f"expected {wanted} at {path}, found {exc}", param_hint="--input") from exc


def _save(path: Path, result: Result) -> None:
    """Write an .npz beside its place and rename it in, so that a full disk leaves no half of one."""
    arrays = {name: _storable(name, array) for name, array in result.items()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        _write(partial, arrays)
        partial.replace(path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise typer.BadParameter(f"expected a place that can be written to, found {exc}", param_hint="--save") from exc
    number = f"{len(arrays)} output{'s' * (len(arrays) != 1)}"
    out.print(f"{number} of {result.model_name}/{result.model_version} → {path}", markup=False)


def _write(path: Path, arrays: dict[str, Any]) -> None:
    import zipfile

    import numpy as np

    with zipfile.ZipFile(path, "w") as archive:  # not np.savez, which has arguments of its own named like outputs
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array)


def _storable(name: str, array: Any) -> Any:
    """Return an array of a type that an .npz file holds without pickling."""
    if array.dtype != object:
        return _widened(array)
    if any(string.endswith(b"\0") for string in array.flat):
        raise typer.BadParameter(
            f"output '{name}' has strings that end with a zero byte, which an .npz file cannot hold: use --json",
            param_hint="--save",
        )
    return array.astype("S")


def _widened(array: Any) -> Any:
    """Return bfloat16 and the types of 8 bits, which neither JSON nor NumPy's files know, as float32."""
    return array.astype("float32") if array.dtype.kind == "V" else array


def _print(result: Result) -> None:
    out.print(f"{result.model_name}/{result.model_version}", markup=False)
    for name, array in result.items():
        out.print(f"{name} {array.dtype} {list(array.shape)}", markup=False)
        out.print(str(array), markup=False)


def _print_timing(result: Result) -> None:
    timing = result.timing
    attempts = "" if timing.num_attempts == 1 else f", {timing.num_attempts} attempts"
    err.print(
        f"{timing.total_s * 1e3:.2f} ms: {timing.rpc_s * 1e3:.2f} in network and server, "
        f"{timing.encode_s * 1e3:.2f} encoding, {timing.decode_s * 1e3:.2f} decoding, "
        f"{timing.waiting_s * 1e3:.2f} waiting{attempts}; {timing.endpoint}",
        markup=False,
    )


def _plain(array: Any) -> Any:
    return _text(array.tolist()) if array.dtype == object else _widened(array).tolist()


def _text(value: Any) -> Any:
    return list(map(_text, value)) if isinstance(value, list) else value.decode(errors="replace")

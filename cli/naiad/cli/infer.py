"""``naiad infer``: one call, printed or saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naiad.cli._console import out, print_json
from naiad.cli._running import URL_HELP, running_url

if TYPE_CHECKING:
    from naiad.client import Client, Result


def infer(
    model: Annotated[str, typer.Argument(help="The model's name on the server.")],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input", "-i", metavar="NAME=VALUE", help="A JSON value, or @file.npy for an array. Repeatable."
        ),
    ],
    url: Annotated[str | None, typer.Option(help=URL_HELP)] = None,
    version: Annotated[str | None, typer.Option(help="A version; the newest that is served by default.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the outputs to this .npz file instead of printing.")] = None,
    timeout: Annotated[float, typer.Option(help="Deadline in seconds.")] = 30.0,
    json: Annotated[bool, typer.Option("--json", help="Print the outputs as JSON.")] = False,
) -> None:
    """Send one request and print the answer.

    Examples:

        naiad infer digits --input x=@digit.npy

        naiad infer adder -i a=[[1,2]] -i b=[[3,4]] --json
    """
    from naiad.client import Client

    with Client(url or running_url(), timeout=timeout) as triton:
        result = _call(triton, model, version, dict(map(_parse, inputs)))
    if save is not None:
        _save(save, result)
    elif json:
        print_json({name: _plain(array) for name, array in result.items()})
    else:
        _print(result)


def _call(triton: Client, model: str, version: str | None, inputs: dict[str, Any]) -> Result:
    return triton.model(model, version).infer(inputs)


def _parse(text: str) -> tuple[str, Any]:
    import json

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"expected NAME=VALUE or NAME=@file.npy, found {text!r}", param_hint="--input")
    if value.startswith("@"):
        return name, _load(Path(value[1:]))
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value  # plain text is a string


def _load(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as exc:
        raise typer.BadParameter(f"expected a .npy file at {path}, found {exc}", param_hint="--input") from exc


def _save(path: Path, result: Result) -> None:
    """Write an .npz beside its place and rename it in, so that a full disk leaves no half of one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        _write(partial, result)
        partial.replace(path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise typer.BadParameter(f"expected a place that can be written to, found {exc}", param_hint="--save") from exc
    out.print(f"{len(result)} outputs of {result.model_name}/{result.model_version} → {path}", markup=False)


def _write(path: Path, result: Result) -> None:
    import zipfile

    import numpy as np

    with zipfile.ZipFile(path, "w") as archive:  # not np.savez, which has arguments of its own named like outputs
        for name, array in result.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array.astype("S") if array.dtype == object else array)


def _print(result: Result) -> None:
    out.print(f"{result.model_name}/{result.model_version}", markup=False)
    for name, array in result.items():
        out.print(f"{name} {array.dtype} {list(array.shape)}", markup=False)
        out.print(str(array), markup=False)


def _plain(array: Any) -> Any:
    if array.dtype == object:
        return _text(array.tolist())
    return array.astype("float32").tolist() if array.dtype.name == "bfloat16" else array.tolist()


def _text(value: Any) -> Any:
    return list(map(_text, value)) if isinstance(value, list) else value.decode(errors="replace")

"""What the commands of `naiad models` share: their options, the repository they open, words for lists of versions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from naiad.export import Repository

DEFAULT = "model_repository"
RepositoryOption = Annotated[
    str, typer.Option("--repository", "-r", help="The model repository: a directory, or s3://bucket/prefix.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ModelArgument = Annotated[str, typer.Argument(help="The model's name.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it goes into the journal.")]


def open_repository(path: str, require_key: Path | None = None) -> Repository:
    """Return the repository at `path`; importing its room loads neither torch nor onnx."""
    from naiad.export import Repository

    return Repository(path, require_signature=require_key)


def join(numbers: Any) -> str:
    """Return `1, 2, 3`, or `none`."""
    return ", ".join(map(str, numbers)) or "none"


def finite(value: Any) -> Any:
    """Return plain values for JSON, which knows neither infinity nor NaN, with None in their place."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

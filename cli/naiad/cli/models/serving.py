"""`naiad models promote` and `rollback`: which versions are served."""

from __future__ import annotations

from typing import Annotated

import typer

from naiad.cli._console import out, print_json
from naiad.cli.models._common import DEFAULT, JsonOption, ModelArgument, RepositoryOption, join, open_repository


def promote(
    model: ModelArgument,
    versions: Annotated[list[int], typer.Argument(help="The versions to serve from now on.")],
    repository: RepositoryOption = DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Serve exactly these versions; their files are verified first.

    A server started by `naiad serve` follows at once; no request is lost.

    Examples:
        naiad models promote digits 2

        naiad models promote digits 1 2
    """
    repo = open_repository(repository)
    before = repo.served(model)
    _report_change(model, before, repo.promote(model, *versions), as_json=as_json)


def rollback(model: ModelArgument, repository: RepositoryOption = DEFAULT, as_json: JsonOption = False) -> None:
    """Serve again what was served before the last promotion.

    Examples:
        naiad models rollback digits
    """
    repo = open_repository(repository)
    before = repo.served(model)
    _report_change(model, before, repo.rollback(model), as_json=as_json)


def _report_change(model: str, before: tuple[int, ...], after: tuple[int, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({"model": model, "before": before, "served": after})
    else:
        out.print(f"{model} serves {join(after)} (before: {join(before)})", markup=False)

"""`naiad models verify`: whether versions are what was published."""

from __future__ import annotations

from typing import Annotated

import typer

from naiad.cli._console import out, print_json
from naiad.cli.models._common import DEFAULT, JsonOption, ModelArgument, RepositoryOption, open_repository


def verify(
    model: ModelArgument,
    version: Annotated[int | None, typer.Argument(help="A version; all if not given.")] = None,
    repository: RepositoryOption = DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Compare the files of a version with the hashes in its manifest; exit code 1 if one differs.

    Examples:
        naiad models verify digits

        naiad models verify digits 2 --json
    """
    repo = open_repository(repository)
    results = [repo.verify(model, number) for number in (repo.versions(model) if version is None else (version,))]
    if as_json:
        print_json(
            [
                {"model": model, "version": result.version, "ok": result.ok, "problems": result.problems}
                for result in results
            ]
        )
    for result in [] if as_json else results:
        words = f"ok, {result.num_files} files" if result.ok else "; ".join(result.problems)
        out.print(f"{model} version {result.version}: {words}", markup=False)
    if not all(result.ok for result in results):
        raise typer.Exit(1)

"""`naiad models lint`: what a Triton server would say of the repository, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from naiad.cli._console import err, out, print_json
from naiad.cli.models._common import DEFAULT, JsonOption, RepositoryOption, open_repository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from naiad.export import LintFinding

_STYLES = {"error": "bold red", "warning": "yellow"}


def lint(
    models: Annotated[list[str] | None, typer.Argument(help="The models' names; all directories if not given.")] = None,
    repository: RepositoryOption = DEFAULT,
    target: Annotated[
        str | None, typer.Option(metavar="RELEASE", help="The Triton release that serves them; 26.07 by default.")
    ] = None,
    auto_complete: Annotated[
        bool,
        typer.Option(
            "--auto-complete",
            help="The server completes configurations, as NVIDIA's containers do unless told not to.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check models by Triton's load rules; exit code 1 if one would not load, or would be served wrongly.

    Every finding says what follows, what was found and what to do. Warnings do not fail.

    Examples:
        naiad models lint

        naiad models lint digits -r /srv/models --target 24.10

        naiad models lint --auto-complete --json
    """
    repo = open_repository(repository)
    with err.status("lint …"):
        findings = repo.lint(*(models or ()), target=target, auto_complete=auto_complete)
    if as_json:
        print_json([found.to_dict() for found in findings])
    else:
        _show(findings, len(models or repo.models()))
    if any(found.severity == "error" for found in findings):
        raise typer.Exit(1)


def _show(findings: Sequence[LintFinding], num_models: int) -> None:
    for found in findings:
        out.print(Text.assemble((found.severity, _STYLES[found.severity]), f" ({found.effect}) {found}"))
    errors = sum(found.severity == "error" for found in findings)
    linted = f"{num_models} model{'' if num_models == 1 else 's'}"
    out.print(f"{linted}: {errors} errors, {len(findings) - errors} warnings", markup=False)

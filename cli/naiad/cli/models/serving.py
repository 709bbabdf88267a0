"""`naiad models promote` and `rollback`: which versions are served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naiad.cli._console import out, print_json
from naiad.cli.models._common import (
    DEFAULT,
    JsonOption,
    ModelArgument,
    ReasonOption,
    RepositoryOption,
    join,
    open_repository,
)

if TYPE_CHECKING:
    from naiad.export import Preview

_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what clients would notice, and change nothing.")]
_RequireKey = Annotated[
    Path | None,
    typer.Option(
        "--require-key",
        envvar="NAIAD_REQUIRE_KEY",
        help="A public key: refuse to serve what it has not signed.",
    ),
]


def promote(
    model: ModelArgument,
    versions: Annotated[list[int], typer.Argument(help="The versions to serve from now on.")],
    repository: RepositoryOption = DEFAULT,
    dry_run: _DryRun = False,
    reason: ReasonOption = "",
    require_key: _RequireKey = None,
    as_json: JsonOption = False,
) -> None:
    """Serve exactly these versions; their files are verified first.

    A server started by `naiad serve` follows at once; no request is lost.

    Examples:

        naiad models promote digits 2

        naiad models promote digits 2 3 --dry-run

        naiad models promote digits 2 --reason "version 3 confuses 4 and 9" --require-key release.pub
    """
    repo = open_repository(repository, require_key)
    preview = repo.preview(model, *versions)
    if not dry_run:
        repo.promote(model, *versions, reason=reason)
    _report(preview, dry_run=dry_run, as_json=as_json)


def rollback(
    model: ModelArgument,
    repository: RepositoryOption = DEFAULT,
    dry_run: _DryRun = False,
    reason: ReasonOption = "",
    require_key: _RequireKey = None,
    as_json: JsonOption = False,
) -> None:
    """Serve again what was served before the last promotion.

    Examples:

        naiad models rollback digits --dry-run

        naiad models rollback digits --reason "p99 doubled"
    """
    repo = open_repository(repository, require_key)
    preview = repo.preview(model)
    if not dry_run:
        repo.rollback(model, reason=reason)
    _report(preview, dry_run=dry_run, as_json=as_json)


def _report(preview: Preview, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "model": preview.model,
                "before": preview.before,
                "served": preview.before if dry_run else preview.after,
                "would_serve": preview.after,
                "notices": preview.notices,
            }
        )
        return
    verb = "would serve" if dry_run else "serves"
    out.print(f"{preview.model} {verb} {join(preview.after)} (before: {join(preview.before)})", markup=False)
    for notice in preview.notices:
        out.print(f"  {notice}", markup=False)

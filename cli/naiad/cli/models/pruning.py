"""`naiad models prune`: old versions removed."""

from __future__ import annotations

from typing import Annotated

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
from naiad.cli.models._words import size


def prune(
    model: ModelArgument,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions stay in any case.")],
    repository: RepositoryOption = DEFAULT,
    force: Annotated[bool, typer.Option("--force", help="Remove also what the next rollback would serve.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Remove the oldest versions; never one that is served, and no number is given again.

    What the next rollback would serve stays too, unless --force is given.

    Examples:

        naiad models prune digits --keep 3 --dry-run

        naiad models prune digits --keep 3 --reason "disk is full"
    """
    pruned = open_repository(repository).prune(model, keep=keep, force=force, dry_run=dry_run, reason=reason)
    if as_json:
        print_json(
            {
                "model": model,
                "removed": [] if dry_run else pruned.removed,
                "would_remove": pruned.removed,
                "kept": pruned.kept,
                "freed_bytes": pruned.freed_bytes,
            }
        )
        return
    verb = "would remove" if dry_run else "removed"
    freed = f", {size(pruned.freed_bytes)}" if pruned.removed else ""
    out.print(f"{model}: {verb} {join(pruned.removed)}{freed}", markup=False)
    for number, why in pruned.kept.items():
        out.print(f"  version {number} stays: {why}", markup=False)

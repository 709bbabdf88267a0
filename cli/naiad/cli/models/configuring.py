"""`naiad models configure`: how a model is run, changed without a new version, and the way back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naiad.cli._console import out, print_json
from naiad.cli.models._common import (
    DEFAULT,
    JsonOption,
    ModelArgument,
    ReasonOption,
    RepositoryOption,
    open_repository,
)

if TYPE_CHECKING:
    from naiad.export import Configured


def configure(
    model: ModelArgument,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of config.pbtxt; null removes it. Repeatable."),
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take back the last change, by hand or by `naiad tune`.")
    ] = False,
    repository: RepositoryOption = DEFAULT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Change batching, instances or threads of a model in place; every served version is run that way from then on.

    The linter looks at it first. A server started by `naiad serve` follows at once; no request is lost.

    Examples:

        naiad models configure digits --set dynamic_batching.max_queue_delay_microseconds=500

        naiad models configure digits --set parameters.intra_op_thread_count=2 --reason "bigger machine" --dry-run

        naiad models configure digits --undo
    """
    if undo == bool(settings):
        raise typer.BadParameter("expected --set FIELD=VALUE (at least one), or --undo", param_hint="--set")
    repo = open_repository(repository)
    if undo:
        found = repo.unconfigure(model, reason=reason, dry_run=dry_run)
    else:
        found = repo.configure(model, dict(map(_setting, settings or ())), reason=reason, dry_run=dry_run)
    _report(found, dry_run=dry_run, as_json=as_json)


def _setting(text: str) -> tuple[str, object]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise typer.BadParameter(f"expected FIELD=VALUE, found {text!r}", param_hint="--set")
    try:
        return path, json.loads(value)
    except ValueError:
        return path, value


def _report(found: Configured, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        values: dict[str, Any] = {"model": found.model, "replaced": found.replaced, "settings": found.settings}
        print_json({**values, "dry_run": dry_run})
        return
    for name, value in found.settings.items():
        was = json.dumps(found.replaced[name], ensure_ascii=False)
        out.print(f"{name}: {was} → {json.dumps(value, ensure_ascii=False)}", markup=False)
    done = "would change" if dry_run else "changed"
    out.print(f"{found.model}: {done if found.changed else 'nothing to change'}", markup=False)

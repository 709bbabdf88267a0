"""`naiad models log`: who did what, when, and whether that record is whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from naiad.cli._console import err, out, print_json
from naiad.cli.models._common import DEFAULT, JsonOption, RepositoryOption, join, open_repository
from naiad.cli.models._words import time

if TYPE_CHECKING:
    from naiad.export import Audit, Repository

_SHORTEST_HEAD = 12


def log(
    model: Annotated[str | None, typer.Argument(help="Only this model's entries.")] = None,
    repository: RepositoryOption = DEFAULT,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Only the last entries; 0 for all.")] = 20,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the hashes of all entries; exit code 1 if one does not fit.")
    ] = False,
    head: Annotated[
        str | None, typer.Option(metavar="HASH", help="The last hash of an earlier --verify: shows a cut-off end too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was published, promoted, rolled back, signed and pruned, by whom, and why; the newest last.

    Examples:

        naiad models log digits

        naiad models log --verify

        naiad models log --verify --head 58f6958e83179f58 --json
    """
    if head is not None and len(head) < _SHORTEST_HEAD:
        raise typer.BadParameter(
            f"expected at least {_SHORTEST_HEAD} digits of a hash, found {head!r}", param_hint="--head"
        )
    repo = open_repository(repository)
    audit = repo.audit(head=head or "") if verify or head else None
    entries = [asdict(entry) for entry in _entries(repo, model)]
    entries = entries[-limit:] if limit else entries
    if as_json:
        print_json({"entries": entries, "audit": asdict(audit) | {"ok": audit.ok} if audit else None})
    else:
        _show(entries)
        if audit:
            _show_audit(audit)
    if audit and not audit.ok:
        raise typer.Exit(1)


def _entries(repo: Repository, model: str | None) -> Any:
    if model is None:
        repo.models()  # says what is wrong where there is no repository
    return repo.history(model)


def _show(entries: list[dict[str, Any]]) -> None:
    explained = any(entry["reason"] for entry in entries)
    table = Table("time (UTC)", "who", "what", "served", *(["why"] if explained else []))
    for entry in entries:
        where = f"@{entry['host']}" if entry["host"] else ""
        changed = entry["before"] != entry["after"]
        served = f"{join(entry['before'])} → {join(entry['after'])}" if changed else join(entry["after"])
        row = [time(entry["time"]), f"{entry['user']}{where}", _act(entry), served]
        table.add_row(*map(Text, [*row, entry["reason"]] if explained else row))
    out.print(table)


def _act(entry: dict[str, Any]) -> str:
    model, version = entry["model"], entry["version"]
    match entry["action"]:
        case "publish":
            return f"publish {model} {version}"
        case "sign":
            return f"sign {model} {version} with {entry['key']}"
        case "prune":
            return f"prune {model} {join(entry['removed'])}"
        case action:
            return f"{action} {model}"


def _show_audit(audit: Audit) -> None:
    for note in audit.notes:
        err.print(f"note: {note}", markup=False)
    for problem in audit.problems:
        out.print(f"wrong: {problem}", markup=False)
    if audit.ok:
        out.print(f"{audit.num_entries} entries, none changed; the last hash is {audit.head}", markup=False)

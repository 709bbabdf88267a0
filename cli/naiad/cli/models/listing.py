"""`naiad models list` and `show`: what the repository holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from naiad.cli._console import out, print_json
from naiad.cli.models._common import DEFAULT, JsonOption, ModelArgument, RepositoryOption, join, open_repository
from naiad.cli.models._details import rows
from naiad.cli.models._words import age, size

if TYPE_CHECKING:
    from naiad.export import ModelOverview, Repository, VersionOverview


def list_(
    model: Annotated[str | None, typer.Argument(help="Only this model, with each of its versions.")] = None,
    repository: RepositoryOption = DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """List the models: which versions there are, which are served, how large, how old, in which precision, signed.

    Examples:

        naiad models list

        naiad models list digits

        naiad models list -r /srv/models --json
    """
    repo = open_repository(repository)
    found = [repo.overview(name) for name in (repo.models() if model is None else (model,))]
    if as_json:
        print_json([_as_dict(each) for each in found])
    elif not found:
        hint = f"publish one with: naiad export RECIPE -r {repo.location}"
        out.print(f"no models in {repo.location} yet; {hint}", markup=False)
    else:
        out.print(_models(found) if model is None else _versions(found[0]))


def show(
    model: ModelArgument,
    version: Annotated[int | None, typer.Argument(help="A version; by default the newest that is served.")] = None,
    repository: RepositoryOption = DEFAULT,
    html: Annotated[
        bool, typer.Option("--html", help="Print where its report for a browser is; that of a bucket is written here.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one version: inputs, outputs, files, parity, latency, signatures and how it was made.

    Examples:

        naiad models show digits

        naiad models show digits 2 --json

        xdg-open "$(naiad models show digits --html)"
    """
    repo = open_repository(repository)
    overview = repo.overview(model)
    newest = overview.served or overview.versions
    number = version if version is not None else newest[-1].number if newest else 0
    if html:
        out.print(_page(repo, model, number), markup=False)
        return
    details = _details(repo, overview, number)
    if as_json:
        print_json(details)
        return
    table = Table(show_header=False, title=f"{model} version {number}", title_justify="left")
    for label, text in rows(details):
        table.add_row(label, Text(text))
    out.print(table)


def _page(repo: Repository, model: str, number: int) -> Path:
    """Return the file with the report of a version, written here where the repository has none on this machine."""
    page = repo.report_page(model, number)
    local = Path(f"{repo.location}/{model}/{number}/export-report.html")
    if local.is_file():
        return local
    here = Path(f"{model}-{number}-export-report.html").absolute()
    here.write_text(page, encoding="utf-8")
    return here


def _models(found: list[ModelOverview]) -> Table:
    table = Table("model", "served", "precision", "made", "versions", Column("size", justify="right"), "signed")
    for each in found:
        newest = (each.served or each.versions)[-1:]
        row = (
            each.model,
            each.problem or join(version.number for version in each.served),
            *_made(newest),
            join(version.number for version in each.versions),
            size(each.size_bytes),
            _signed(newest),
        )
        table.add_row(*map(Text, row))
    return table


def _versions(found: ModelOverview) -> Table:
    table = Table(f"{found.model} version", "", "precision", "made", Column("size", justify="right"), "signed by")
    for version in reversed(found.versions):
        mark = "served" if version.served else "next rollback" if version.is_rollback else version.problem
        row = (str(version.number), mark, *_made([version]), size(version.size_bytes), ", ".join(version.signed_by))
        table.add_row(*map(Text, row))
    return table


def _made(versions: Any) -> tuple[str, str]:
    version: VersionOverview | None = next(iter(versions), None)
    return (version.precision or "", age(version.created)) if version else ("", "")


def _signed(versions: Any) -> str:
    return "yes" if versions and all(version.signed_by for version in versions) else ""


def _as_dict(found: ModelOverview) -> dict[str, Any]:
    values = {
        "model": found.model,
        "versions": [version.number for version in found.versions],
        "served": [version.number for version in found.served],
        "size_bytes": found.size_bytes,
        "details": [asdict(version) for version in found.versions],
    }
    return values | ({"error": found.problem} if found.problem else {})


def _details(repo: Repository, overview: ModelOverview, number: int) -> dict[str, Any]:
    version = repo.version(overview.model, number)
    at_a_glance = next(each for each in overview.versions if each.number == number)
    return {
        "model": overview.model,
        "version": number,
        "path": version.location,
        "versions": [each.number for each in overview.versions],
        "served": [each.number for each in overview.served],
        "size_bytes": at_a_glance.size_bytes,
        "signed_by": at_a_glance.signed_by,
        "manifest": repo.manifest(overview.model, number),
        "history": [_entry(entry) for entry in repo.history(overview.model)],
    }


def _entry(entry: Any) -> dict[str, Any]:
    return {
        "time": entry.time,
        "user": entry.user,
        "action": entry.action,
        "version": entry.version,
        "served": entry.after,
        "reason": entry.reason,
    }

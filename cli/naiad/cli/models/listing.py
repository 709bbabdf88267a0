"""`naiad models list` and `show`: what the repository holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from naiad.cli._console import out, print_json
from naiad.cli.models._common import DEFAULT, JsonOption, ModelArgument, RepositoryOption, join, open_repository

if TYPE_CHECKING:
    from collections.abc import Iterator

    from naiad.export import Repository


def list_(repository: RepositoryOption = DEFAULT, as_json: JsonOption = False) -> None:
    """List the models with their versions and those that are served.

    Examples:
        naiad models list

        naiad models list -r /srv/models --json
    """
    repo = open_repository(repository)
    rows = [_row(repo, name) for name in repo.models()]
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print(
            f"no models in {repo.location} yet; publish one with: naiad export RECIPE -r {repo.location}", markup=False
        )
        return
    table = Table("model", "versions", "served")
    for row in rows:
        table.add_row(str(row["model"]), join(row["versions"]), Text(str(row.get("error", join(row["served"])))))
    out.print(table)


def show(
    model: ModelArgument,
    version: Annotated[int | None, typer.Argument(help="A version; by default the newest that is served.")] = None,
    repository: RepositoryOption = DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Show one version: inputs, outputs, parity, latency and how it was made.

    Examples:
        naiad models show digits

        naiad models show digits 2 --json
    """
    repo = open_repository(repository)
    served = repo.served(model)
    number = version if version is not None else (served or repo.versions(model) or (0,))[-1]
    details = _details(repo, model, number)
    if as_json:
        print_json(details)
    else:
        _show(details)


def _row(repo: Repository, model: str) -> dict[str, Any]:
    from naiad.export import InvalidModel

    row = {"model": model, "versions": repo.versions(model), "served": ()}
    try:
        return row | {"served": repo.served(model)}
    except InvalidModel as exc:  # the other models are of interest all the same
        return row | {"error": str(exc)}


def _details(repo: Repository, model: str, number: int) -> dict[str, Any]:
    version = repo.version(model, number)
    history = [
        {
            "time": entry.time,
            "user": entry.user,
            "action": entry.action,
            "version": entry.version,
            "served": entry.after,
        }
        for entry in repo.history(model)
    ]
    return {
        "model": model,
        "version": number,
        "path": version.location,
        "versions": repo.versions(model),
        "served": repo.served(model),
        "manifest": repo.manifest(model, number),
        "history": history,
    }


def _show(details: dict[str, Any]) -> None:
    table = Table(show_header=False, title=f"{details['model']} version {details['version']}", title_justify="left")
    for label, text in _rows(details):
        table.add_row(label, Text(text))
    out.print(table)


def _rows(details: dict[str, Any]) -> Iterator[tuple[str, str]]:
    manifest = details["manifest"]
    report = manifest.get("report", {})
    yield "path", details["path"]
    yield "versions", f"{join(details['versions'])}; served: {join(details['served'])}"
    for kind in ("inputs", "outputs"):
        for tensor in manifest.get(kind, []):
            yield kind.removesuffix("s"), f"{tensor['name']}: {tensor['dtype']} [{join(tensor['shape'])}]"
    if "max_batch_size" in manifest:
        yield "largest batch", str(manifest["max_batch_size"])
    for parity in report.get("parity", []):
        yield f"parity of {parity['output']}", f"largest error {parity['max_abs_error']:.2g}"
    for latency in report.get("latency", []):
        label = f"latency of batch {latency['batch']}" if latency["batch"] else "latency"
        yield label, f"{latency['median_ms']:.3g} ms on one thread"
    for finding in report.get("findings", []):
        yield finding["check"], finding["message"]
    yield "made", f"{manifest.get('created', 'by hand')} {manifest.get('command', '')}"
    for entry in details["history"]:
        what = f"version {entry['version']}, " if entry["version"] is not None else ""
        yield entry["action"], f"{what}serves {join(entry['served'])}, {entry['time']}, {entry['user']}"

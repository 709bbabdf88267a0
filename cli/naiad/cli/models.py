"""`naiad models`: what the repository holds, what is served, and changing that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from naiad.cli._console import out, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from naiad.export import Repository

app = typer.Typer(help="List, inspect, verify, promote and roll back the models of a repository.", no_args_is_help=True)

_Repository = Annotated[Path, typer.Option("--repository", "-r", help="The model repository.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_Model = Annotated[str, typer.Argument(help="The model's name.")]
_DEFAULT = Path("model_repository")


@app.command("list")
def list_(repository: _Repository = _DEFAULT, as_json: _Json = False) -> None:
    """List the models with their versions and those that are served.

    Examples:
        naiad models list

        naiad models list -r /srv/models --json
    """
    repo = _open(repository)
    rows = [_row(repo, name) for name in repo.models()]
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print(f"no models in {repo.path} yet; publish one with: naiad export RECIPE -r {repo.path}", markup=False)
        return
    table = Table("model", "versions", "served")
    for row in rows:
        table.add_row(str(row["model"]), _join(row["versions"]), Text(str(row.get("error", _join(row["served"])))))
    out.print(table)


@app.command()
def show(
    model: _Model,
    version: Annotated[int | None, typer.Argument(help="A version; by default the newest that is served.")] = None,
    repository: _Repository = _DEFAULT,
    as_json: _Json = False,
) -> None:
    """Show one version: inputs, outputs, parity, latency and how it was made.

    Examples:
        naiad models show digits

        naiad models show digits 2 --json
    """
    repo = _open(repository)
    served = repo.served(model)
    number = version if version is not None else (served or repo.versions(model) or (0,))[-1]
    details = _details(repo, model, number)
    if as_json:
        print_json(details)
    else:
        _show(details)


@app.command()
def promote(
    model: _Model,
    versions: Annotated[list[int], typer.Argument(help="The versions to serve from now on.")],
    repository: _Repository = _DEFAULT,
    as_json: _Json = False,
) -> None:
    """Serve exactly these versions; their files are verified first.

    A server started by `naiad serve` follows at once; no request is lost.

    Examples:
        naiad models promote digits 2

        naiad models promote digits 1 2
    """
    repo = _open(repository)
    before = repo.served(model)
    _report_change(model, before, repo.promote(model, *versions), as_json=as_json)


@app.command()
def rollback(model: _Model, repository: _Repository = _DEFAULT, as_json: _Json = False) -> None:
    """Serve again what was served before the last promotion.

    Examples:
        naiad models rollback digits
    """
    repo = _open(repository)
    before = repo.served(model)
    _report_change(model, before, repo.rollback(model), as_json=as_json)


@app.command()
def verify(
    model: _Model,
    version: Annotated[int | None, typer.Argument(help="A version; all if not given.")] = None,
    repository: _Repository = _DEFAULT,
    as_json: _Json = False,
) -> None:
    """Compare the files of a version with the hashes in its manifest; exit code 1 if one differs.

    Examples:
        naiad models verify digits

        naiad models verify digits 2 --json
    """
    repo = _open(repository)
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


def _row(repo: Repository, model: str) -> dict[str, Any]:
    from naiad.export import InvalidModel

    row = {"model": model, "versions": repo.versions(model), "served": ()}
    try:
        return row | {"served": repo.served(model)}
    except InvalidModel as exc:  # the other models are of interest all the same
        return row | {"error": str(exc)}


def _open(path: Path) -> Repository:
    from naiad.export import Repository

    return Repository(path)


def _report_change(model: str, before: tuple[int, ...], after: tuple[int, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({"model": model, "before": before, "served": after})
    else:
        out.print(f"{model} serves {_join(after)} (before: {_join(before)})", markup=False)


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
        "path": str(version.path),
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
    yield "versions", f"{_join(details['versions'])}; served: {_join(details['served'])}"
    for kind in ("inputs", "outputs"):
        for tensor in manifest.get(kind, []):
            yield kind.removesuffix("s"), f"{tensor['name']}: {tensor['dtype']} [{_join(tensor['shape'])}]"
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
        yield entry["action"], f"{what}serves {_join(entry['served'])}, {entry['time']}, {entry['user']}"


def _join(numbers: Any) -> str:
    return ", ".join(map(str, numbers)) or "none"

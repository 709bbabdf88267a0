"""`naiad deploy init`, `check` and `render`: from a description to files."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from naiad.cli._console import err, out, print_json
from naiad.cli.deploy._common import SERVICE, JsonOption, ServiceArgument, root_of

if TYPE_CHECKING:
    from naiad.deploy import Rights, Service
    from naiad.deploy.render import Difference

ValidateOption = Annotated[
    bool, typer.Option("--validate/--no-validate", help="Have the real Envoy read the gateway's files.")
]


def init(
    directory: Annotated[
        Path, typer.Argument(help="The project; the description goes to deploy/service.toml in it.")
    ] = Path(),
) -> None:
    """Write a description to start from, with a comment at every key. A description that is there stays.

    Examples:

        naiad deploy init

        naiad deploy init my-service
    """
    from importlib.resources import files

    from naiad.deploy import OutputNotWritable

    path = directory / SERVICE
    text = files("naiad.deploy").joinpath("example.toml").read_text()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise typer.BadParameter(f"{path} is there already: edit it, or name another directory") from None
    except OSError as exc:
        raise OutputNotWritable(f"expected to write {path}: {exc.strerror or exc}") from exc
    out.print(f"wrote {path}", markup=False)
    err.print("next: edit it, then: naiad deploy check; naiad deploy render; naiad deploy secrets", markup=False)


def check(service: ServiceArgument = SERVICE, validate: ValidateOption = True, as_json: JsonOption = False) -> None:
    """Say what is wrong with a description, and have the real Envoy try what the gateway would be given.

    Exit codes: 0 it is right, 1 Envoy refuses it, 2 the description is wrong.

    Examples:

        naiad deploy check

        naiad deploy check staging/service.toml --no-validate --json
    """
    from naiad.deploy import load_service
    from naiad.deploy.advice import advice

    described = load_service(service)
    if validate:
        _try(described)
    notes = advice(described)
    if as_json:
        print_json({"service": asdict(described), "advice": notes, "validated": validate})
        return
    out.print(_callers(described))
    for note in notes:
        err.print("[yellow]note:[/] ", end="")
        err.print(note, markup=False)
    tried = "; Envoy takes the gateway's configuration" if validate else ""
    out.print(f"{service} is right{tried}", markup=False)


def render(
    service: ServiceArgument = SERVICE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where to; by default, the directory that deploy/ lies in."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 if the files do not say what they should.")
    ] = False,
    validate: ValidateOption = True,
    as_json: JsonOption = False,
) -> None:
    """Write the files of the gateway, the monitoring and Compose; only those that change, each in one step.

    Exit codes: 0 done, 1 Envoy refuses them, they cannot be written, or --check found a difference, 2 the description
    is wrong.

    Examples:

        naiad deploy render

        naiad deploy render staging/service.toml --output staging

        naiad deploy render --check            # in a build: the committed files are those of the description
    """
    from naiad.deploy import load_service
    from naiad.deploy.render import compare, write

    described = load_service(service)
    root = output if output is not None else root_of(service)
    if validate:
        _try(described)
    difference = compare(described, root) if check else write(described, root)
    if as_json:
        print_json({**asdict(difference), "root": str(root.absolute()), "written": not check})
    else:
        _print_difference(difference, Path(os.path.relpath(root)), check=check)
    if check and difference:
        if not as_json:
            err.print(f"run: naiad deploy render {service}", markup=False)
        raise typer.Exit(1)


def _try(service: Service) -> None:
    from naiad.deploy import ToolMissing
    from naiad.deploy.compose import compose_place
    from naiad.deploy.trial import try_gateway

    try:
        with err.status("Envoy tries the gateway's configuration"):
            try_gateway(service, compose_place(service))
    except ToolMissing as exc:
        exc.add_note("--no-validate does without")
        raise


def _print_difference(difference: Difference, root: Path, *, check: bool) -> None:
    words = (
        (difference.missing, "missing" if check else "wrote"),
        (difference.stale, "stale" if check else "changed"),
        (difference.left_over, "left over" if check else "removed"),
    )
    for paths, word in words:
        for path in paths:
            out.print(f"{word:<9} {root / path}", markup=False)
    if not difference:
        out.print("every file says what it should", markup=False)


def _callers(service: Service) -> Table:
    table = Table("caller", "infer", "observe", "admin", "requests/s", "request MiB", title="who may do what")
    for identity in service.identities:
        rate = "" if identity.requests_per_s is None else f"{identity.requests_per_s:g}"
        largest = identity.request_mb or service.limits.request_mb
        table.add_row(identity.name, *_rights(identity.rights), rate, f"{largest:g}")
    if service.anonymous is not None:
        table.add_row("(anybody)", *_rights(service.anonymous), "", f"{service.limits.request_mb:g}")
    return table


def _rights(rights: Rights) -> tuple[str, str, str]:
    return ", ".join(rights.infer), ", ".join(rights.observe), "yes" if rights.admin else ""

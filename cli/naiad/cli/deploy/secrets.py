"""`naiad deploy secrets`: everything secret that a service needs, where it is missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from naiad.cli._console import err, out, print_json
from naiad.cli.deploy._common import (
    AUTHORITY,
    SECRETS,
    SERVICE,
    AuthorityOption,
    JsonOption,
    SecretsOption,
    ServiceArgument,
)

_STYLES = {"there": "dim", "made": "green", "placeholder": "yellow"}


def secrets(
    service: ServiceArgument = SERVICE,
    secrets: SecretsOption = SECRETS,
    authority: AuthorityOption = AUTHORITY,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="A DNS name or IP address of the gateway, beside this machine's.")
    ] = None,
    owner: Annotated[
        int | None,
        typer.Option(
            "--owner", metavar="UID", help="Run by root: the user that containers run as.", show_default="1000"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the keys and certificates that a service needs and does not have. What is there is never overwritten.

    Certificates come from an authority that is made here: good for development, and for nothing else.

    Examples:

        naiad deploy secrets

        naiad deploy secrets --name triton.example.com --name 10.0.0.7
    """
    from naiad.deploy import load_service
    from naiad.deploy.secrets import CONTAINER_USER, make_secrets

    described = load_service(service)
    user = CONTAINER_USER if owner is None else owner
    root = os.geteuid() == 0
    made = make_secrets(described, secrets, authority=authority, names=name or (), owner=user if root else None)
    if as_json:
        print_json([{"path": str(each.path), "state": each.state, "note": each.note} for each in made])
        return
    table = Table(Column("file", overflow="fold", no_wrap=True), "", "")
    for each in made:
        table.add_row(str(each.path), Text(each.state, style=_STYLES[each.state]), each.note)
    out.print(table)
    _print_user(secrets)


def _print_user(secrets: Path) -> None:
    """Say so where the containers' usual user cannot read what was made."""
    from naiad.deploy.secrets import CONTAINER_USER

    owner = secrets.stat()
    if owner.st_uid == 0:
        user = f"{CONTAINER_USER}:{CONTAINER_USER}"
        do = f"the containers run as another user than root, who cannot read these files: chown -R {user} {secrets}"
    elif owner.st_uid != CONTAINER_USER:
        do = (
            "the containers have to run as the owner of these files; before `docker compose up`: "
            f"export NAIAD_UID={owner.st_uid} NAIAD_GID={owner.st_gid}"
        )
    else:
        return
    err.print(do, markup=False)

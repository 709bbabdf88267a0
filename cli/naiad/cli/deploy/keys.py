"""`naiad deploy key`: who the gateway lets in."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from naiad.cli._console import err, out, print_json
from naiad.cli.deploy._common import SECRETS, SERVICE, JsonOption, SecretsOption, ServiceOption

if TYPE_CHECKING:
    from naiad.deploy import Key, KeyFile

IdentityArgument = Annotated[str, typer.Argument(help="An identity of the description.")]


def add(
    identity: IdentityArgument,
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=3650, help="How long it is valid; by default, for ever.")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="What it is for; stands in the file beside it.")] = "",
    service: ServiceOption = SERVICE,
    secrets: SecretsOption = SECRETS,
    as_json: JsonOption = False,
) -> None:
    """Make a key for an identity and print it: it is kept nowhere, and never shown again.

    The gateway takes it within two seconds. An identity has at most two valid keys: to rotate, add one, give it to all
    callers, then revoke the other.

    Examples:

        naiad deploy key add vision

        naiad deploy key add performance-ci --days 90 --note "nightly"

        KEY=$(naiad deploy key add vision)
    """
    from naiad.deploy.keys import hash_key

    _check_identity(identity, service)
    expires = None if days is None else datetime.now(UTC).date() + timedelta(days=days)
    file = _file(secrets)
    key = file.add(identity, expires=expires, note=note)
    key_id = hash_key(key)[:12]
    if as_json:
        print_json({"identity": identity, "key": key, "id": key_id, "expires": expires})
        return
    out.print(key, markup=False)
    err.print(f"key {key_id} of {identity}{_until(expires)}; this is the only time that it is shown", markup=False)
    err.print(f"callers send it as the header `authorization: Bearer KEY`; revoke it with: "
              f"naiad deploy key revoke {identity} {key_id}", markup=False)  # fmt: skip


def list_(
    identity: Annotated[str | None, typer.Argument(help="Only this identity's.")] = None,
    secrets: SecretsOption = SECRETS,
    as_json: JsonOption = False,
) -> None:
    """List the keys: whose, since when, until when. The keys themselves are kept nowhere.

    Examples:

        naiad deploy key list

        naiad deploy key list vision --json
    """
    keys = [key for key in _file(secrets).keys() if identity in (None, key.identity)]  # noqa: SIM118
    if as_json:
        print_json([_as_dict(key) for key in keys])
    elif not keys:
        out.print("no keys; make one with: naiad deploy key add IDENTITY", markup=False)
    else:
        table = Table("identity", "id", "created", "ends", "note")
        for key in keys:
            ends = str(key.expires or "") if key.is_valid() else f"[red]ended {key.expires}[/]"
            table.add_row(key.identity, key.id, str(key.created), ends, key.note)
        out.print(table)


def revoke(
    identity: IdentityArgument,
    which: Annotated[str, typer.Argument(metavar="ID|all", help="The key's id, as `list` shows it; or all.")],
    secrets: SecretsOption = SECRETS,
    as_json: JsonOption = False,
) -> None:
    """Take a key out of use; the gateway refuses it within two seconds.

    Examples:

        naiad deploy key revoke vision 3f9a2c41d07b

        naiad deploy key revoke vision all
    """
    gone = _file(secrets).revoke(identity, which)
    if as_json:
        print_json([_as_dict(key) for key in gone])
        return
    for key in gone:
        out.print(f"revoked {key.id} of {key.identity}, made on {key.created}", markup=False)


def _file(secrets: Path) -> KeyFile:
    from naiad.deploy import KeyFile

    return KeyFile(secrets / "api-keys")


def _check_identity(identity: str, path: Path) -> None:
    """Refuse a key for nobody: the gateway would know it, and grant it nothing."""
    from naiad.deploy import load_service

    names = [each.name for each in load_service(path).identities]
    if identity not in names:
        raise typer.BadParameter(
            f"{path} has no identity {identity}, only {', '.join(names) or 'none at all'}: write [[identities]] with "
            f'name = "{identity}" there first, and render it'
        )


def _until(expires: date | None) -> str:
    return "" if expires is None else f", valid until {expires} begins (UTC)"


def _as_dict(key: Key) -> dict[str, Any]:
    return {
        "identity": key.identity,
        "id": key.id,
        "created": key.created,
        "expires": key.expires,
        "valid": key.is_valid(),
        "note": key.note,
    }

"""`naiad deploy certificate`: the gateway's own, and those of callers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from naiad.cli._console import err, out, print_json
from naiad.cli.deploy._common import AUTHORITY, SECRETS, AuthorityOption, JsonOption, SecretsOption

if TYPE_CHECKING:
    from naiad.deploy.certificates import Certificate

DaysOption = Annotated[float, typer.Option("--days", min=0.01, max=3650, help="How long it is valid.")]


def show(
    secrets: SecretsOption = SECRETS,
    min_days: Annotated[
        float, typer.Option("--min-days", help="Exit code 1 if a certificate ends sooner.", show_default="0")
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Show for how long the gateway's certificate, and the authorities of its callers, are still valid.

    Examples:

        naiad deploy certificate show

        naiad deploy certificate show --min-days 14      # in a nightly job
    """
    from naiad.deploy import InvalidCertificate
    from naiad.deploy.certificates import days_left

    found = {path.name: days_left(path) for name in ("tls.crt", "clients.crt") if (path := secrets / name).exists()}
    if not found:
        raise InvalidCertificate(f"expected certificates in {secrets}, found none: `naiad deploy secrets` makes them")
    if as_json:
        print_json({"days_left": found})
    else:
        table = Table("file", "days left")
        for name, days in found.items():
            table.add_row(name, f"{days:.1f}" if days > min_days else f"[red]{days:.1f}[/]")
        out.print(table)
    if min(found.values()) <= min_days:
        raise typer.Exit(1)


def renew(
    days: DaysOption = 90.0,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="A further DNS name or IP address of the gateway.")
    ] = None,
    secrets: SecretsOption = SECRETS,
    authority: AuthorityOption = AUTHORITY,
    as_json: JsonOption = False,
) -> None:
    """Put a new certificate of the authority for development in place; a running gateway serves it at once.

    No request fails for it: connections that stand go on with the old one.

    Examples:

        naiad deploy certificate renew

        naiad deploy certificate renew --name triton.example.com
    """
    from naiad.deploy.secrets import renew_certificate

    new = renew_certificate(secrets, authority=authority, names=name or (), days=days)
    _print_installed(new, secrets, as_json=as_json)


def install(
    certificate: Annotated[Path, typer.Argument(help="PEM: the gateway's certificate, then those between.")],
    key: Annotated[Path, typer.Argument(help="PEM: its private key, without a password.")],
    secrets: SecretsOption = SECRETS,
    as_json: JsonOption = False,
) -> None:
    """Put a certificate that came from elsewhere in place, with its key, in one step; a gateway serves it at once.

    Examples:

        naiad deploy certificate install fullchain.pem privkey.pem
    """
    from naiad.deploy.certificates import Certificate, days_left, install_server_certificate
    from naiad.deploy.errors import InvalidCertificate

    new = Certificate.read(certificate, key)
    if days_left(certificate) <= 0:
        raise InvalidCertificate(f"expected a certificate that is valid, {certificate} ended on {new.ends:%Y-%m-%d}")
    install_server_certificate(secrets, new)
    _print_installed(new, secrets, as_json=as_json)


def issue(
    name: Annotated[list[str], typer.Argument(help="Names in `certificates` of the identity: URIs or DNS names.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where client.crt and client.key go.")],
    days: DaysOption = 90.0,
    authority: AuthorityOption = AUTHORITY,
    as_json: JsonOption = False,
) -> None:
    """Issue a certificate to a caller, from the authority for development. Files that are there stay.

    Examples:

        naiad deploy certificate issue spiffe://example.com/vision --output vision
    """
    from naiad.deploy.certificates import make_client_certificate, write_certificate
    from naiad.deploy.secrets import open_authority

    signer, _ = open_authority(authority, make=False)
    new = make_client_certificate(signer, name, days=days)
    paths = write_certificate(output, "client", new)
    if as_json:
        print_json({"names": new.names, "ends": new.ends, "certificate": str(paths[0]), "key": str(paths[1])})
        return
    out.print(f"wrote {paths[0]} and {paths[1]}, valid until {new.ends:%Y-%m-%d %H:%M} UTC", markup=False)
    err.print(f"the gateway's own is verified with {authority / 'authority.crt'}", markup=False)


def _print_installed(new: Certificate, secrets: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"names": new.names, "ends": new.ends, "fingerprint": new.fingerprint})
    else:
        names = ", ".join(new.names)
        out.print(f"{secrets / 'tls.crt'} is now of {names}, valid until {new.ends:%Y-%m-%d %H:%M} UTC", markup=False)

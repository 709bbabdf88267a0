"""`naiad models keygen` and `sign`: who vouches for a version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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


def keygen(
    name: Annotated[
        Path, typer.Argument(help="The private key's file; the public one's has .pub in place of its suffix.")
    ] = Path("naiad.pem"),
    as_json: JsonOption = False,
) -> None:
    """Make a pair of Ed25519 keys: a private one that signs, readable by you alone, and a public one that verifies.

    The environment variable NAIAD_KEY_PASSWORD gives the private key a password, here and in `sign`.

    Examples:

        naiad models keygen release.pem
    """
    from naiad.export import generate_keys

    public = name.with_suffix(".pub")
    key_id = generate_keys(name, public)
    if as_json:
        print_json({"key_id": key_id, "private": str(name), "public": str(public)})
        return
    out.print(f"key {key_id}", markup=False)
    out.print(f"  private: {name} (keep it secret: naiad models sign MODEL VERSION --key {name})", markup=False)
    out.print(f"  public:  {public} (give it away: naiad models verify MODEL --key {public})", markup=False)


def sign(
    model: ModelArgument,
    version: Annotated[int, typer.Argument(help="The version to sign.")],
    key: Annotated[Path, typer.Option("--key", help="The private key, as `keygen` makes it.")],
    repository: RepositoryOption = DEFAULT,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Sign a version: its manifest, and through it every file of it; signatures of other keys stay.

    Examples:

        naiad models sign digits 3 --key release.pem

        naiad models sign digits 3 --key review.pem --reason "reviewed"
    """
    key_id = open_repository(repository).sign(model, version, key, reason=reason)
    if as_json:
        print_json({"model": model, "version": version, "key_id": key_id})
    else:
        out.print(f"{model} version {version} is signed by the key {key_id}", markup=False)

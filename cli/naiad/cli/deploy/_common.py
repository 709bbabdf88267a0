"""What the commands of `naiad deploy` share: their options, and the description that they read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

SERVICE: Final = Path("deploy/service.toml")
SECRETS: Final = Path("deploy/secrets")
AUTHORITY: Final = Path("deploy/authority")

ServiceArgument = Annotated[Path, typer.Argument(help="The service's description.", show_default=str(SERVICE))]
ServiceOption = Annotated[Path, typer.Option("--service", metavar="FILE", help="The service's description.")]
SecretsOption = Annotated[
    Path,
    typer.Option("--secrets", metavar="DIR", envvar="NAIAD_SECRETS", help="The directory of keys and certificates."),
]
AuthorityOption = Annotated[
    Path, typer.Option("--authority", metavar="DIR", help="The directory of the authority for development.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def root_of(service: Path) -> Path:
    """Return the project's root: what `deploy/service.toml` lies in, and otherwise the file's own directory."""
    directory = service.absolute().parent
    return directory.parent if directory.name == "deploy" else directory

"""`naiad models verify`: whether versions are what was published, who signed them, and whether servers answer so."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naiad.cli._console import err, out, print_json
from naiad.cli.models._common import DEFAULT, JsonOption, RepositoryOption, finite, open_repository

if TYPE_CHECKING:
    from naiad.export import Integrity, Repository, ServedVersion


def verify(
    model: Annotated[str | None, typer.Argument(help="The model's name; all models if not given.")] = None,
    version: Annotated[int | None, typer.Argument(help="A version; all if not given.")] = None,
    repository: RepositoryOption = DEFAULT,
    key: Annotated[
        Path | None, typer.Option("--key", help="A public key that must have signed them, as `keygen` makes it.")
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            metavar="URL",
            help="Replay the golden requests of the versions that should be served on this Triton. Repeatable.",
        ),
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            "--tolerance",
            metavar="[OUTPUT:]rtol=…,atol=…,cosine=…",
            help="How far a server's answers may be from PyTorch's; as at the export by default.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each request to a server.")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Compare versions with their manifests, a key's signature, and the answers of running servers.

    Exit code 1 if anything is wrong. With --server and no version, the versions that should be served are asked for.

    Examples:

        naiad models verify

        naiad models verify digits 2 --key release.pub --json

        naiad models verify digits --server grpc://gpu1:8001,gpu2:8001
    """
    repo = open_repository(repository)
    models = (model,) if model is not None else repo.models()
    integrities: list[Integrity] = []
    answered: list[ServedVersion] = []
    with err.status("verify …") as status:
        for name in models:
            status.update(f"verify {name} …")
            numbers = repo.versions(name) if version is None else (version,)
            integrities += [repo.verify(name, number, key=key) for number in numbers]
            for url in server or ():
                status.update(f"replay {name} on {url} …")
                answered += _replay(repo, name, url, version, tolerance or [], timeout)
    if as_json:
        print_json(finite([_as_dict(integrity, answered) for integrity in integrities]))
    else:
        _show(integrities, answered)
    if not (all(each.ok for each in integrities) and all(each.ok for each in answered)):
        raise typer.Exit(1)


def _replay(
    repo: Repository, model: str, url: str, version: int | None, tolerance: list[str], timeout_s: float
) -> tuple[ServedVersion, ...]:
    from naiad.export import parse_tolerance

    return repo.verify_served(
        model,
        url,
        *(() if version is None else (version,)),
        tolerance=parse_tolerance(tolerance) if tolerance else None,
        timeout_s=timeout_s,
    )


def _of(integrity: Integrity, answered: list[ServedVersion]) -> list[ServedVersion]:
    return [each for each in answered if (each.model, each.version) == (integrity.model, integrity.version)]


def _as_dict(integrity: Integrity, answered: list[ServedVersion]) -> dict[str, Any]:
    own = _of(integrity, answered)
    return {
        "model": integrity.model,
        "version": integrity.version,
        "ok": integrity.ok and all(each.ok for each in own),
        "problems": integrity.findings,
        "num_files": integrity.num_files,
        "signature": asdict(integrity.signature) if integrity.signature else None,
        "servers": [asdict(each) | {"ok": each.ok} for each in own],
    }


def _show(integrities: list[Integrity], answered: list[ServedVersion]) -> None:
    for integrity in integrities:
        signed = f", signed by {integrity.signature.key_id}" if integrity.signature else ""
        words = f"ok, {integrity.num_files} files{signed}" if integrity.ok else "; ".join(integrity.findings)
        out.print(f"{integrity.model} version {integrity.version}: {words}", markup=False)
        for each in _of(integrity, answered):
            out.print(f"  {each.server}: {_answer(each)}", markup=False)


def _answer(served: ServedVersion) -> str:
    if not served.ok:
        return "; ".join(served.problems)
    worst = max(served.outputs, key=lambda output: output.max_rel_error, default=None)
    apart = f", at most {worst.max_rel_error:.2g} of the largest value from PyTorch" if worst else ""
    return f"ok, {served.num_pairs} golden requests{apart}"

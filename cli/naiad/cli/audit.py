"""``naiad audit``: what is unsafe about a deployment, and how to fix it."""

from __future__ import annotations

import os
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.text import Text

from naiad.cli._console import err, out, print_json
from naiad.cli._running import admin_secret, running_url

if TYPE_CHECKING:
    from naiad.deploy.audit import Finding

FailOn = Literal["critical", "high", "medium", "low", "never"]
_KEY_VARIABLE: Final = "NAIAD_API_KEY"
_STYLES: Final = {
    "critical": "bold white on red",
    "high": "bold red",
    "medium": "yellow",
    "low": "cyan",
    "unknown": "dim",
    "ok": "green",
}
_MAX_WIDTH: Final = 110
_MIN_WIDTH: Final = 40
_SIGNS: Final = {"unknown": "?", "ok": "✓"}


def audit(
    server: Annotated[
        str | None,
        typer.Option(
            help="A gateway or a Triton: grpc://, grpcs://, http:// or https:// with host and port. By default, unless "
            "files are given, the `naiad serve` that runs here.",
            metavar="URL",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with an API key, or Triton's admin secret; or the variable {_KEY_VARIABLE}."),
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="The authority that signed the server's certificate (PEM).")] = None,
    cert: Annotated[Path | None, typer.Option(help="A client certificate (PEM), with --key.")] = None,
    key: Annotated[Path | None, typer.Option(help="The key of the client certificate (PEM).")] = None,
    server_name: Annotated[str | None, typer.Option(help="The name that the certificate should have.")] = None,
    compose: Annotated[
        list[Path] | None, typer.Option(help="A docker-compose.yml to look at, too. Repeatable: laid over each other.")
    ] = None,
    service: Annotated[Path | None, typer.Option(help="The service's description, as deploy/service.toml.")] = None,
    secrets: Annotated[
        Path | None, typer.Option(help="The directory of its secrets; `secrets` beside the description by default.")
    ] = None,
    port: Annotated[
        list[int] | None,
        typer.Option(help="A port of the host that should be closed, besides 8000, 8001, 8002 and 9901. Repeatable."),
    ] = None,
    pid: Annotated[
        list[int] | None, typer.Option(help="A tritonserver here that is not found by itself. Repeatable.")
    ] = None,
    large_request_mb: Annotated[
        float, typer.Option(help="Size in MiB of a request that should be refused; 0 sends none.", min=0, max=1024)
    ] = 65.0,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer.", min=0.1)] = 5.0,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 if something is as bad as this, or worse.")] = "high",
    show_all: Annotated[bool, typer.Option("--all", "-a", help="Show in full what is well, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
    sarif: Annotated[Path | None, typer.Option(help="Write what is wrong to this file, for code scanning.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write all checks to this file, for a CI server.")] = None,
) -> None:
    """Say what is unsafe about a deployment, and how to fix it. Nothing is changed.

    Looks from outside (version, model control, management APIs, TLS and its certificate, identity, ports, metrics,
    limits), at the processes where they run on this machine, and at the files that are given.

    Examples:

        naiad audit --server grpcs://gateway:8443 --ca deploy/secrets/ca.crt --api-key-file key

        naiad audit --compose docker-compose.yml --service deploy/service.toml

        naiad audit --server http://localhost:8000 --fail-on medium --junit audit.xml
    """
    from naiad.deploy import audit as room

    _check_files(ca, cert, key)
    url = server if server is not None or compose or service or pid else running_url()
    with _progress() as progress:
        findings = room.audit(
            url,
            secret=_secret(api_key_file, url),
            root_certificates=ca,
            certificate_chain=cert,
            private_key=key,
            server_name=server_name,
            ports=(*room.USUAL_PORTS, *(port or ())),
            timeout_s=timeout,
            large_request_mb=large_request_mb,
            pids=pid or (),
            compose=compose or (),
            service=service,
            secrets=secrets or (service.parent / "secrets" if service else None),
            progress=progress,
        )
    limit = None if fail_on == "never" else room.Severity(fail_on)
    if sarif is not None:
        _write(sarif, room.to_sarif(findings), "--sarif")
    if junit is not None:
        _write(junit, room.to_junit(findings, limit or room.Severity.CRITICAL), "--junit")
    if as_json:
        print_json(room.to_json(findings))
    else:
        _show(findings, show_all=show_all)
    if limit is not None and room.worst(findings).at_least(limit):
        raise typer.Exit(1)


def _secret(path: Path | None, url: str | None) -> str | None:
    if path is None:
        local = admin_secret(url) if url and "@" not in url else None
        return os.environ.get(_KEY_VARIABLE) or local
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter(f"expected a file with a key, found {exc}", param_hint="--api-key-file") from exc
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise typer.BadParameter(f"expected one key in {path}, found something else", param_hint="--api-key-file")
    return text


def _check_files(ca: Path | None, cert: Path | None, key: Path | None) -> None:
    for path, option in ((ca, "--ca"), (cert, "--cert"), (key, "--key")):
        if path is not None and not path.is_file():
            raise typer.BadParameter(f"expected a PEM file, found none at {path}", param_hint=option)
    if (cert is None) != (key is None):
        raise typer.BadParameter("a client certificate needs both, found only one of them", param_hint="--cert, --key")


def _write(path: Path, text: str, option: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text)
        partial.replace(path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise typer.BadParameter(f"expected a place that can be written to, found {exc}", param_hint=option) from exc


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Say what is being looked at, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with err.status("looking") as status:
        yield lambda what: status.update(f"looking at {what}")


def _show(findings: Sequence[Finding], *, show_all: bool) -> None:
    quiet = {"ok", "unknown"}
    for finding in findings:
        if show_all or finding.severity not in quiet:
            _print(finding)
    unseen = [finding for finding in findings if finding.severity == "unknown"]
    if unseen and not show_all:
        out.print(f"[dim]not checked: {', '.join(dict.fromkeys(finding.id for finding in unseen))} (--all says why)[/]")
    counts = Counter(str(finding.severity) for finding in findings)
    parts = [f"[{style}]{counts[severity]} {severity}[/]" for severity, style in _STYLES.items() if counts[severity]]
    out.print(" · ".join(parts) or "nothing was looked at")


def _print(finding: Finding) -> None:
    severity = str(finding.severity)
    line = Text(f" {_SIGNS.get(severity, severity.upper())} ", style=_STYLES[severity])
    line.append(f" {finding.id}", style="bold not dim")
    line.append(f"  {finding.where}", style="dim")
    out.print(line)
    for label, text in (("", finding.found), ("why", finding.why), ("fix", finding.fix), ("see", finding.source)):
        if text:
            out.print(_detail(label, text))
    if severity not in {"ok", "unknown"}:
        out.print()


def _detail(label: str, text: str) -> Text:
    """One paragraph, indented below its finding; addresses are never broken."""
    width = min(out.width, _MAX_WIDTH) if out.is_terminal else _MAX_WIDTH
    indent = " " * (4 + (5 if label else 0))
    first = f"    {label:5}" if label else indent
    lines = textwrap.wrap(text, max(width, _MIN_WIDTH), initial_indent=first, subsequent_indent=indent,
                          break_long_words=False, break_on_hyphens=False)  # fmt: skip
    shown = Text("\n".join(lines), style="dim" if label == "see" else "")
    shown.stylize("bold", 0, len(first))
    return shown

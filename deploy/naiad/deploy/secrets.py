"""The secrets directory: what a service needs there, and making what is missing.

Nothing is ever overwritten. What can only come from elsewhere (an issuer's keys, where alerts go) is made empty, in the
form that its reader accepts, and named, so that the service starts and nobody believes it complete.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from naiad.deploy._issuing import make_placeholder_jwks
from naiad.deploy._secret_files import locked, make_directory, write_secret
from naiad.deploy.certificates import (
    Certificate,
    finish_installation,
    install_server_certificate,
    is_issued_by,
    make_authority,
    make_revocations,
    make_server_certificate,
)
from naiad.deploy.errors import InvalidCertificate
from naiad.deploy.keys import KEYS_HEADER
from naiad.deploy.service import Service

__all__ = [
    "AUTHORITY",
    "CONTAINER_USER",
    "SECRETS",
    "Secret",
    "make_secrets",
    "open_authority",
    "renew_certificate",
    "server_names",
]

SECRETS: Final = "deploy/secrets"
AUTHORITY: Final = "deploy/authority"
"""Beside the secrets and not among them: whoever has its key can be anybody, and no container needs it."""
CONTAINER_USER: Final = 1000
"""The user that the containers run as, unless NAIAD_UID says another."""

State = Literal["there", "made", "placeholder"]
_DEVELOPMENT: Final = "for development only: in production, have your own authority issue it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """One file that a service needs, and what became of it."""

    path: Path
    state: State
    """`placeholder`: made, and to be replaced before it does anything."""
    note: str = ""


def make_secrets(
    service: Service,
    directory: str | Path = SECRETS,
    *,
    authority: str | Path = AUTHORITY,
    names: Sequence[str] = (),
    owner: int | None = None,
) -> tuple[Secret, ...]:
    """Make what ``service`` needs and does not have yet; files that are there stay as they are.

    Args:
        service: Which secrets there have to be depends on it.
        directory: Where they lie; made if it is missing, for its owner alone.
        authority: Where the authority for development lies; made if a certificate of it is needed.
        names: DNS names and IP addresses of the gateway, beside those of this machine.
        owner: The user that reads them, if the directory is made here and by root; others own it themselves.

    Raises:
        OutputNotWritable: a directory or file cannot be made.
        InvalidCertificate: the authority that is there cannot be read, or a name is none.
    """
    directory, authority = Path(directory), Path(authority)
    _make_ignored(directory, owner)
    files = _Files(directory)
    _make_certificates(service, files, authority, names)
    with locked(directory):
        files.make("api-keys", KEYS_HEADER.encode(), "add keys with `naiad deploy key add IDENTITY`")
        files.make("triton-admin-key", _random(), "between the gateway and Triton; nobody else needs it")
        files.make("grafana-admin-password", _random(), "of Grafana's user admin")
        for issuer in service.issuers:
            path = f"jwks/{issuer.name}.json"
            files.make(
                path, make_placeholder_jwks(), f"put the public keys (JWKS) of {issuer.issuer} there", placeholder=True
            )
        files.make("alert-webhook", _WEBHOOK, "put the URL that alerts are posted to there", placeholder=True)
        if any("://" in (pool.repository or "") for pool in service.pools):
            what = "put the storage's credentials there, in the form of Triton's TRITON_CLOUD_CREDENTIAL_PATH"
            files.make("cloud-credentials", b"{}\n", what, placeholder=True)
    return tuple(files.found)


def open_authority(directory: str | Path, *, make: bool = True) -> tuple[Certificate, bool]:
    """Return the authority for development, and whether it was made now.

    Raises:
        InvalidCertificate: there is none and ``make`` is false, or what is there cannot be read.
        OutputNotWritable: it cannot be made.
    """
    directory = Path(directory)
    certificate, key = directory / "authority.crt", directory / "authority.key"
    if not certificate.exists() and not make:
        raise InvalidCertificate(
            f"expected the authority for development in {directory}, found none: certificates that came from elsewhere "
            "are renewed there, and put in place with `naiad deploy certificate install`"
        )
    _make_ignored(directory, None)
    with locked(directory):
        if certificate.exists():
            return Certificate.read(certificate, key), False
        made = make_authority()
        write_secret(key, made.key_pem)
        write_secret(certificate, made.certificate_pem, mode=0o644)
    return made, True


def renew_certificate(
    directory: str | Path = SECRETS,
    *,
    authority: str | Path = AUTHORITY,
    names: Sequence[str] = (),
    days: float = 90,
) -> Certificate:
    """Put a new certificate of the authority for development in the place of the gateway's; callers notice nothing.

    It has the names of the one before, and ``names``.

    Raises:
        InvalidCertificate: the certificate came from elsewhere, or cannot be read.
        OutputNotWritable: it cannot be put in place; the old one is served on.
    """
    directory = Path(directory)
    signer, _ = open_authority(authority, make=False)
    old = Certificate.read(directory / "tls.crt", directory / "tls.key")
    if not is_issued_by(old, signer):
        raise InvalidCertificate(
            f"expected {directory / 'tls.crt'} to be of the authority in {authority}, found another one's: "
            "have that one renew it, and put it in place with `naiad deploy certificate install`"
        )
    new = make_server_certificate(signer, tuple(dict.fromkeys((*old.names, *names))), days=days)
    install_server_certificate(directory, new)
    return new


def server_names(names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return ``names`` and those that a gateway has on its own machine and among its containers."""
    here = (socket.gethostname(), "localhost", "gateway", "127.0.0.1", "::1")
    return tuple(dict.fromkeys((*names, *(name for name in here if name.isascii()))))


_WEBHOOK: Final = b"http://127.0.0.1:9/alerts-go-nowhere-yet\n"


class _Files:
    """Makes files below a directory unless they are there, and remembers both."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.found: list[Secret] = []

    def make(self, name: str, content: bytes, note: str, *, placeholder: bool = False) -> None:
        path = self.directory / name
        there = os.path.lexists(path)
        if not there:
            if path.parent != self.directory:
                make_directory(path.parent, owner=_owner_of(self.directory))
            write_secret(path, content)
        state: State = "there" if there else "placeholder" if placeholder else "made"
        self.found.append(Secret(path=path, state=state, note="" if there else note))

    def note(self, name: str, *, made: bool) -> None:
        note = _DEVELOPMENT if made else ""
        self.found.append(Secret(path=self.directory / name, state="made" if made else "there", note=note))


def _make_certificates(service: Service, files: _Files, authority: Path, names: Sequence[str]) -> None:
    directory = files.directory
    if service.tls:
        finish_installation(directory)
        there = [os.path.lexists(directory / name) for name in ("tls.crt", "tls.key")]
        if any(there) and not all(there):
            lost = directory / ("tls.key" if there[0] else "tls.crt")
            raise InvalidCertificate(f"expected {lost} beside the other, found none: put it there, or take both away")
        if not any(there):
            signer, _ = open_authority(authority)
            install_server_certificate(directory, make_server_certificate(signer, server_names(names)))
        for name in ("tls.crt", "tls.key"):
            files.note(name, made=not any(there))
    if service.client_certificates != "none":
        _make_clients(service, files, authority)


def _make_clients(service: Service, files: _Files, authority: Path) -> None:
    names = ("clients.crt", "clients.crl") if service.revocations else ("clients.crt",)
    if not all(os.path.lexists(files.directory / name) for name in names):
        signer, _ = open_authority(authority)
        contents = {"clients.crt": signer.certificate_pem, "clients.crl": make_revocations(signer)}
    else:
        contents = dict.fromkeys(names, b"")
    with locked(files.directory):
        for name in names:
            files.make(name, contents[name], _DEVELOPMENT)


def _make_ignored(directory: Path, owner: int | None) -> None:
    """Make a directory that version control leaves alone, wherever it is."""
    if not directory.exists():
        make_directory(directory, owner=owner)
        with locked(directory):
            write_secret(directory / ".gitignore", b"*\n")


def _random() -> bytes:
    return secrets.token_urlsafe(32).encode()


def _owner_of(directory: Path) -> int | None:
    return directory.stat().st_uid if os.geteuid() == 0 else None

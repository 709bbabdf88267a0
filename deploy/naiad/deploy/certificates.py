"""Certificates: an authority for development, certificates of servers and callers from it, and their exchange.

In production they come from elsewhere (an ACME client, the company's authority); :func:`install_server_certificate`
puts those in place as well. Key and certificate change together there: `tls.crt` and `tls.key` are symbolic links
through one more, `..tls`, which is exchanged in one rename (as Kubernetes mounts secrets). The gateway watches the
directory for renames, and so never reads a certificate with the key of another one.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from naiad.deploy._issuing import (
    is_issued_by,
    make_authority,
    make_client_certificate,
    make_revocations,
    make_server_certificate,
)
from naiad.deploy._secret_files import locked, make_directory, sync_directory, write_secret
from naiad.deploy._x509 import Certificate, load_chain, read
from naiad.deploy.errors import OutputNotWritable

__all__ = [
    "Certificate",
    "days_left",
    "finish_installation",
    "install_server_certificate",
    "is_issued_by",
    "make_authority",
    "make_client_certificate",
    "make_revocations",
    "make_server_certificate",
    "write_certificate",
]

_CURRENT: Final = "..tls"
_FILES: Final = ("tls.key", "tls.crt")


def days_left(path: str | Path) -> float:
    """Return for how many days the certificates in a file are still valid; negative once one of them is not.

    Raises:
        InvalidCertificate: it cannot be read, or holds no certificate.
    """
    ends = min(each.not_valid_after_utc for each in load_chain(read(Path(path)), str(path)))
    return (ends - datetime.now(UTC)) / timedelta(days=1)


def write_certificate(directory: str | Path, name: str, certificate: Certificate) -> tuple[Path, Path]:
    """Write `<name>.crt` and `<name>.key` (for its owner alone), and return their paths.

    Raises:
        OutputNotWritable: one of them is there already, or cannot be written.
    """
    directory = Path(directory)
    paths = directory / f"{name}.crt", directory / f"{name}.key"
    make_directory(directory)
    with locked(directory):
        for path in paths:
            if os.path.lexists(path):
                raise OutputNotWritable(f"expected to write {path}, it is there already: name another directory")
        write_secret(paths[1], certificate.key_pem)
        write_secret(paths[0], certificate.certificate_pem, mode=0o644)
    return paths


def install_server_certificate(directory: str | Path, certificate: Certificate) -> None:
    """Have the gateway that watches ``directory`` serve ``certificate`` from now on; both files change in one step.

    Raises:
        OutputNotWritable: the directory is missing, forbidden or full; what is served is as it was.
    """
    directory = Path(directory)
    with locked(directory):
        generation = directory / f"{_CURRENT}-{certificate.fingerprint[:16]}"
        try:
            _write_generation(generation, certificate)
            _link(directory, _CURRENT, generation.name)
            _link_files(directory)
        except OSError as exc:
            raise OutputNotWritable(f"expected to write in {directory}: {exc.strerror or exc}") from exc
        for old in directory.glob(f"{_CURRENT}-*"):
            if old != generation:
                shutil.rmtree(old, ignore_errors=True)


def finish_installation(directory: str | Path) -> None:
    """Finish what was interrupted between its links, if that happened when a directory got its first certificate.

    Raises:
        OutputNotWritable: the directory is forbidden or full.
    """
    directory = Path(directory)
    there = [os.path.lexists(directory / name) for name in _FILES]
    if any(there) and not all(there) and (directory / _CURRENT).is_dir():
        with locked(directory):
            _link_files(directory)


def _link_files(directory: Path) -> None:
    for name in _FILES:
        if not (directory / name).is_symlink():
            _link(directory, name, f"{_CURRENT}/{name}")
    sync_directory(directory)


def _write_generation(directory: Path, certificate: Certificate) -> None:
    owner = directory.parent.stat().st_uid if os.geteuid() == 0 else None
    make_directory(directory, owner=owner)
    write_secret(directory / "tls.key", certificate.key_pem)
    write_secret(directory / "tls.crt", certificate.certificate_pem)


def _link(directory: Path, name: str, target: str) -> None:
    beside = directory / f".{name}.new"
    with suppress(FileNotFoundError):
        beside.unlink()
    beside.symlink_to(target)
    beside.replace(directory / name)

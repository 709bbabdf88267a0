"""Has the real Envoy read the gateway's files before anybody relies on them."""

from __future__ import annotations

import secrets
import threading
from dataclasses import replace
from pathlib import Path
from typing import Final

from naiad.deploy._envoy.admin import Admin
from naiad.deploy._envoy.binary import find_envoy
from naiad.deploy._envoy.private import PrivateDirectory
from naiad.deploy._envoy.process import Process, validate
from naiad.deploy._files import write_all
from naiad.deploy._gateway import render_gateway
from naiad.deploy._issuing import make_placeholder_jwks
from naiad.deploy.certificates import (
    install_server_certificate,
    make_authority,
    make_revocations,
    make_server_certificate,
)
from naiad.deploy.place import Place
from naiad.deploy.service import Service

__all__ = ["try_gateway"]

_HOST: Final = "127.0.0.1"
_READY_TIMEOUT_S: Final = 60.0


def try_gateway(service: Service, place: Place) -> None:
    """Start Envoy with what ``place`` would be given, on loopback and with secrets of its own, and end it again.

    ``--mode validate`` reads the first file only; what that refers to shows when it is served. Replicas need not run.

    Raises:
        GatewayError: Envoy refuses a part of the configuration; says which, in Envoy's words.
        ToolMissing: there is no Envoy on this machine.
    """
    envoy = find_envoy()
    private = PrivateDirectory()
    try:
        here = _moved(place, private.path)
        write_all(private / "config", render_gateway(service, here))
        _write_secrets(service, private / "secrets")
        validate(envoy, private / "config/envoy.yaml")
        process = Process(
            envoy,
            private / "config/envoy.yaml",
            directory=private / "cwd",
            log_path=private / "envoy.log",
            num_threads=1,
            drain_s=1.0,
        )
        try:
            process.wait_ready(Admin(Path(here.admin)), _READY_TIMEOUT_S, threading.Event())
        finally:
            process.kill()
    finally:
        private.remove()


def _moved(place: Place, directory: Path) -> Place:
    """Return ``place`` in a directory of this machine, on ports that the system chooses."""
    return replace(
        place,
        config_dir=str(directory / "config"),
        secrets_dir=str(directory / "secrets"),
        host=_HOST,
        port=0,
        metrics_host=_HOST,
        metrics_port=0,
        admin=str(directory / "admin.sock"),
        access_log=str(directory / "access.log"),
    )


def _write_secrets(service: Service, directory: Path) -> None:
    """Everything that a service may need, valid for this trial."""
    (directory / "jwks").mkdir(parents=True)
    authority = make_authority(days=1)
    install_server_certificate(directory, make_server_certificate(authority, ["localhost"], days=1))
    (directory / "clients.crt").write_bytes(authority.certificate_pem)
    (directory / "clients.crl").write_bytes(make_revocations(authority, days=1))
    (directory / "api-keys").touch()
    (directory / "triton-admin-key").write_text(secrets.token_urlsafe(32))
    for issuer in service.issuers:
        (directory / "jwks" / f"{issuer.name}.json").write_bytes(make_placeholder_jwks())

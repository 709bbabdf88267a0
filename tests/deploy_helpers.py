"""What tests of deployment have in common."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from naiad.deploy.place import Endpoint
from naiad.server import EmbeddedTriton

ROOT = Path(__file__).parent.parent
_BESIDE = (ROOT / ".venv" / "tools" / "bin", Path(sys.executable).parent)


def program(*names: str) -> Path:
    """The first of these programs that is installed; `make test-deploy` installs them all."""
    places = ":".join(map(str, _BESIDE))
    for name in names:
        if found := shutil.which(name, path=places) or shutil.which(name):
            return Path(found)
    raise AssertionError(f"{names[0]} is not installed: run `make test-deploy`, or tests/deploy/install_tools.sh")


def run(
    command: Sequence[str | Path],
    *,
    directory: Path = ROOT,
    timeout_s: float = 60.0,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program that must succeed, with these variables beside the usual ones; its output."""
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def endpoint(name: str, server: EmbeddedTriton) -> Endpoint:
    """A server as the gateway and the monitoring reach it."""
    grpc, http, metrics = (_port(url) for url in (server.grpc_url, server.http_url, server.metrics_url))
    return Endpoint(name=name, host="127.0.0.1", grpc_port=grpc, http_port=http, metrics_port=metrics)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port

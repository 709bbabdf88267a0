"""What a rendered container runs, as processes on this machine."""

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from naiad.deploy import Rights, Service, Triton

KEY = "0123456789abcdef0123456789ABCDEF-._~"
SERVICE = Service(tls=False, anonymous=Rights(infer=("*",), observe=("*",)), triton=Triton(model_control="explicit"))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with_port = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in with_port]
    for listener in with_port:
        listener.close()
    return ports


def container(project: Path, name: str) -> dict[str, Any]:
    """One container of the rendered file."""
    content = yaml.safe_load((project / "docker-compose.yml").read_text())
    return dict(content["services"][name])


def check(fields: dict[str, Any], port: int, at: int) -> int:
    """Run a container's health check, with the port where this test has its program; its exit status."""
    test = [argument.replace("$$", "$").replace(str(port), str(at)) for argument in fields["healthcheck"]["test"][1:]]
    return subprocess.run(test, capture_output=True, timeout=30).returncode


def finished(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """A program that ends by itself."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


@contextmanager
def started(command: Sequence[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to a file; whatever is left of it ends with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
    family = psutil.Process(process.pid)
    try:
        yield process
    finally:
        left = [family, *family.children(recursive=True)] if process.poll() is None else []
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()

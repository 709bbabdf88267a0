"""Options and fixtures of the whole suite."""

import platform
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3_server import BUCKET, S3Server, s3_server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would all programs that are interrupted here.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--triton",
        metavar="URL",
        help="run the client's tests against this server, which serves tests/client_models.py's repository, "
        "instead of starting one (grpc://:SECRET@host:port)",
    )


@dataclass(frozen=True, kw_only=True)
class Demo:
    """One run of `naiad demo`: its folder, its process, and the repository it published to."""

    folder: Path
    done: subprocess.CompletedProcess[str]

    @property
    def repository(self) -> Path:
        return self.folder / "model repository"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`naiad demo`, run once in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("the demo")
    command = ["--repository", "model repository", "--report", "report", "--duration", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "naiad.cli", "demo", *command], cwd=folder, capture_output=True, text=True, timeout=170
    )
    return Demo(folder=folder, done=done)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, for all tests of one run."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("the S3 server of the dev extra runs on Linux x86-64")
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket_url(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty prefix of a bucket, with what the environment needs for it."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/models"

"""Servers are found by their address, by their owner only."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from naiad.server import RunningServer, find_running
from naiad.server._running import announce


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("NAIAD_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def server(pid: int, repository: Path) -> RunningServer:
    return RunningServer(
        grpc_address="127.0.0.1:8001",
        http_url="http://127.0.0.1:8000",
        metrics_url="http://127.0.0.1:8002/metrics",
        admin_secret="secret",
        repository=repository,
        pid=pid,
    )


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8001", "grpc://localhost:8001", "grpc://:other@127.0.0.1:8001", "http://localhost:8000", None],
)
def test_a_server_is_found_by_any_of_its_addresses(address: str | None, tmp_path: Path) -> None:
    """Host and port, or a URL, of gRPC or HTTP, find it; the secret does not show in its repr."""
    announce(server(os.getpid(), tmp_path))
    (found,) = find_running(address)
    assert found == server(os.getpid(), tmp_path)
    assert "secret" not in repr(found)


@pytest.mark.parametrize("address", ["127.0.0.1:9999", "gpu1:8001", "nonsense", "http://["])
def test_other_addresses_find_nothing(address: str, tmp_path: Path) -> None:
    """Neither another port, nor another host, nor nonsense finds it."""
    announce(server(os.getpid(), tmp_path))
    assert find_running(address) == ()


def test_a_server_is_found_by_its_repository(tmp_path: Path) -> None:
    """The directory that it serves identifies it, however it is written."""
    announce(server(os.getpid(), tmp_path))
    assert find_running(repository=tmp_path / "x" / "..")
    assert not find_running(repository=tmp_path / "x")


def test_the_secret_is_the_users_alone(tmp_path: Path) -> None:
    """The file and its directory are closed to everybody else."""
    path = announce(server(os.getpid(), tmp_path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_dead_owner_is_not_found_and_its_file_removed(tmp_path: Path) -> None:
    """What a killed process left behind does not mislead anybody."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        path = announce(server(owner.pid, tmp_path))
        assert find_running()
        owner.kill()
    assert find_running() == ()
    assert not path.exists()

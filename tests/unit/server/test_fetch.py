"""Fetching pinned wheels: completely or not at all, once, and resumable."""

import os
import pty
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from naiad.server import FetchError, HashMismatch, UnsupportedMachine
from naiad.server._fetch import Wheel, install, numpy_for
from package_index import PROJECT, PackageIndex, sha256, write_wheel

FETCH = """
import sys
from pathlib import Path
from naiad.server._fetch import Wheel, install
print(install(Wheel(project={project!r}, version="1.0", sha256={sha256!r}, size_bytes=1000, unpacked_bytes=1000),
              Path(sys.argv[1])))
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pip finds nothing but what a test offers, and caches nothing."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache at a path with spaces."""
    return tmp_path / "my cache"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A wheel in a directory of its own."""
    return write_wheel(tmp_path / "wheels", content=b"x" * 100_000)


def pinned(archive: Path) -> Wheel:
    return Wheel(project=PROJECT, version="1.0", sha256=sha256(archive), size_bytes=100_000, unpacked_bytes=100_000)


def test_a_wheel_is_unpacked_with_its_executables(archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip's own configuration finds the wheel; its files keep the right to be executed; nothing else stays."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    found = install(pinned(archive), cache)
    assert os.access(found / "payload" / "run", os.X_OK)
    assert sorted(path.name for path in cache.iterdir()) == [".staging", found.name]
    assert [path.name for path in (cache / ".staging").iterdir()] == ["lock"]


def test_what_is_there_is_not_fetched_again(archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call neither runs pip nor needs to write."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    first = install(pinned(archive), cache)
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert install(pinned(archive), cache) == first


def test_a_wrong_hash_is_refused(archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not the pinned one is named with both hashes, and not kept."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    with pytest.raises(HashMismatch, match="It was not kept") as caught:
        install(replace(pinned(archive), sha256="0" * 64), cache)
    assert (caught.value.expected, caught.value.found) == ("0" * 64, sha256(archive))
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["lock"]


def test_without_a_network_the_error_says_what_to_do(archive: Path, cache: Path) -> None:
    """pip's own complaint is shown, and the ways around it."""
    with pytest.raises(FetchError, match=r"No matching distribution.*PIP_FIND_LINKS.*NAIAD_TRITON_HOME"):
        install(pinned(archive), cache)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_an_interrupted_download_leaves_nothing_half_made(archive: Path, cache: Path, number: signal.Signals) -> None:
    """Killed in the middle of the download, it leaves no directory; running it again completes the job."""
    half, resume = threading.Event(), threading.Event()
    with PackageIndex(archive, lambda: (half.set(), resume.wait(60))) as index:
        environment = {**os.environ, "PIP_INDEX_URL": index.url}
        environment.pop("PIP_NO_INDEX")
        command = [sys.executable, "-c", FETCH.format(project=PROJECT, sha256=sha256(archive)), str(cache)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as fetching:
            assert half.wait(60)
            fetching.send_signal(number)
            fetching.communicate()
        assert not (cache / pinned(archive).folder).exists()
        resume.set()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip(), "payload", "run").stat().st_size == 100_000
    assert [path.name for path in (cache / ".staging").iterdir()] == ["lock"]


def test_a_terminal_sees_a_progress_bar(archive: Path, cache: Path) -> None:
    """Where stderr is a terminal, a download that takes longer than two seconds shows how far it is."""
    resume = threading.Event()
    ours, theirs = pty.openpty()
    with PackageIndex(archive, lambda: resume.wait(60)) as index, open(ours, "rb", buffering=0) as terminal:
        environment = {**os.environ, "PIP_INDEX_URL": index.url, "TERM": "xterm", "COLUMNS": "120"}
        environment.pop("PIP_NO_INDEX")
        command = [sys.executable, "-c", FETCH.format(project=PROJECT, sha256=sha256(archive)), str(cache)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=theirs) as fetching:
            shown = b""
            while b"/1.0 kB" not in shown and b"/1.0 KB" not in shown:
                shown += terminal.read(4096)
            resume.set()
            fetching.communicate()
        os.close(theirs)
    assert f"Fetching {PROJECT} 1.0".encode() in shown
    assert fetching.returncode == 0


def test_what_was_verified_is_not_downloaded_again(archive: Path, cache: Path) -> None:
    """After a kill between download and unpacking, the next run goes on from the verified file."""
    (cache / ".staging" / "unpack-half").mkdir(parents=True)
    (cache / ".staging" / f"{sha256(archive)}.whl").write_bytes(archive.read_bytes())
    found = install(pinned(archive), cache)
    assert (found / "payload" / "run").is_file()
    assert [path.name for path in (cache / ".staging").iterdir()] == ["lock"]


def test_several_processes_at_once_fetch_once(archive: Path, cache: Path) -> None:
    """Whoever comes second waits for the first and uses what it fetched."""
    with PackageIndex(archive) as index:
        environment = {**os.environ, "PIP_INDEX_URL": index.url}
        environment.pop("PIP_NO_INDEX")
        command = [sys.executable, "-c", FETCH.format(project=PROJECT, sha256=sha256(archive)), str(cache)]
        both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = {process.communicate()[0] for process in both}
        assert [process.returncode for process in both] == [0, 0]
        assert (len(said), index.num_downloads) == (1, 1)


def test_too_little_space_is_said_before_anything_is_fetched(archive: Path, cache: Path) -> None:
    """A file system without room for the files gives an error with the sizes."""
    with pytest.raises(FetchError, match=r"needs \d+ MiB in .*my cache, found \d+ MiB free"):
        install(replace(pinned(archive), unpacked_bytes=1 << 60), cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_leaves_nothing_half_made(archive: Path, tmp_path: Path) -> None:
    """When the disk fills up while unpacking, the error says so and no directory appears."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        (small / ".staging").mkdir()
        (small / ".staging" / f"{sha256(archive)}.whl").write_bytes(archive.read_bytes())
        with pytest.raises(FetchError, match="No space left on device"):
            install(pinned(archive), small)
        assert not [path for path in small.rglob("*") if path.name in {pinned(archive).folder, "payload"}]
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_python_without_a_stub_is_refused() -> None:
    """numpy 1.26 and the stub exist for CPython 3.11 and 3.12; anything else is told what to do."""
    assert numpy_for((3, 12)).version == "1.26.4"
    with pytest.raises(UnsupportedMachine, match=r"3\.11 or 3\.12, found 3\.13.*docker compose"):
        numpy_for((3, 13))

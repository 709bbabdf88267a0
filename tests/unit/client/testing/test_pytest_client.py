"""The fixtures that pytest finds in any project with naiad installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from naiad.client.testing import FakeTriton


def run(folder: Path, test: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a test file in a project of its own, without this repository's settings."""
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (folder / "test_it.py").write_text(test)
    plain = ["-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:timeout"]
    command = [sys.executable, "-m", "pytest", "-q", *plain, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def assert_passed(done: subprocess.CompletedProcess[str], number: int = 1) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{number} passed" in done.stdout


def test_pytest_starts_without_grpc_and_numpy(tmp_path):
    """Nobody pays for fixtures that are not used."""
    assert_passed(
        run(
            tmp_path,
            """
import sys

def test_what_is_imported():
    heavy = {"grpc", "numpy", "google.protobuf", "psutil", "naiad.client", "naiad.server", "tritonclient"}
    assert not heavy & set(sys.modules)
""",
        )
    )


def test_fakes_and_lines_are_made_and_stopped(tmp_path):
    """As many as a test wants; each is gone after it."""
    assert_passed(
        run(
            tmp_path,
            """
import numpy as np
import pytest
from naiad.client import Client, ServerUnavailable

seen = []

def test_two_servers(fake_triton, triton_line):
    one = fake_triton({"double": lambda x: {"y": 2 * x}})
    two = fake_triton({"double": lambda x: {"y": 3 * x}}, admin_secret="open")
    line = triton_line(two.url)
    for url, expected in ((one.url, 2), (line.url, 3)):
        with Client(url) as triton:
            assert triton.infer("double", {"x": np.ones(1)})["y"].tolist() == [expected]
    seen.extend((one.url, two.url, line.url))

def test_they_are_gone():
    for url in seen:
        with Client(url, timeout=5.0) as triton, pytest.raises(ServerUnavailable):
            triton.server_metadata()
""",
        ),
        2,
    )


REPLAYED = """
import numpy as np
from naiad.client import Client

def test_the_service(triton_replay):
    server = triton_replay("answers.naiad")
    with Client(server.url) as triton:
        assert triton.infer("double", {"x": np.full(1, 21.0)})["y"].tolist() == [42]
"""


def test_a_recording_is_made_once_and_replayed_from_then_on(tmp_path):
    """The same test, against the server with the option, against the file without it."""
    assert "expected a recording at" in run(tmp_path, REPLAYED).stdout
    with FakeTriton({"double": lambda x: {"y": 2 * x}}) as fake:
        for _ in range(2):  # the second time the file is there, and written anew
            assert_passed(run(tmp_path, REPLAYED, "--record-triton", fake.url))
        assert len(fake.calls()) == 2
    assert_passed(run(tmp_path, REPLAYED))


def test_its_options_and_fixtures_are_described(tmp_path):
    """`pytest --help` and `pytest --fixtures`."""
    assert "--record-triton=URL" in run(tmp_path, "", "--help").stdout
    listed = run(tmp_path, "", "--fixtures").stdout
    for name in ("fake_triton", "triton_line", "triton_replay", "embedded_triton"):
        assert name in listed


@pytest.mark.parametrize("plugin", ["naiad.pytest_client", "naiad.pytest_server"])
def test_a_plugin_can_be_left_out(tmp_path, plugin):
    """By its entry point's name, as any other."""
    name = plugin.replace("naiad.pytest_", "naiad-")
    listed = run(tmp_path, "", "--fixtures", "-p", f"no:{name}").stdout
    assert (plugin in listed, "triton" in listed) == (False, True)

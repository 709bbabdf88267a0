"""The fixtures that pytest finds in any project with naiad installed."""

import subprocess
import sys
from pathlib import Path

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


TEST = """
import sys

HEAVY = {"grpc", "numpy", "google.protobuf", "psutil", "naiad.client", "naiad.server", "tritonclient"}
AT_THE_START = set(sys.modules)
seen = []

def test_what_is_imported():
    assert not HEAVY & AT_THE_START

def test_two_servers(fake_triton, triton_line):
    import numpy as np
    from naiad.client import Client

    one = fake_triton({"double": lambda x: {"y": 2 * x}})
    two = fake_triton({"double": lambda x: {"y": 3 * x}}, admin_secret="open")
    line = triton_line(two.url)
    for url, expected in ((one.url, 2), (line.url, 3)):
        with Client(url) as triton:
            assert triton.infer("double", {"x": np.ones(1)})["y"].tolist() == [expected]
    seen.extend((one.url, two.url, line.url))

def test_they_are_gone():
    from naiad.client import Client

    for url in seen:
        with Client(url) as triton:
            assert not triton.live()
"""


def test_fakes_and_lines_are_made_and_stopped(tmp_path):
    """As many as a test wants, each gone after it; and pytest starts without gRPC and NumPy."""
    assert_passed(run(tmp_path, TEST), 3)


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

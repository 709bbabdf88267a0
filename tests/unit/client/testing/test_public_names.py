"""The names that tests of services may rely on."""

import subprocess
import sys

import naiad.client.testing
from naiad.client.testing import FakeTriton, Line


def test_the_public_names_are_these():
    """A name is added or removed here on purpose, never by accident."""
    found = {name for name in vars(naiad.client.testing) if not name.startswith("_") and name != "http2"}
    assert found == {
        "FakeModel",
        "FakeSequence",
        "FakeTriton",
        "Fault",
        "Line",
        "Recorder",
        "Refusal",
        "Replay",
        "Request",
        "ServerTLS",
        "Trouble",
    }


def test_what_a_fake_and_a_line_can_do_is_this():
    """The methods, too, are pinned."""

    def methods(cls):
        return {name for name in dir(cls) if not name.startswith("_")}

    assert methods(FakeTriton) == {
        *("url", "grpc_url", "grpc_address", "admin_url", "client", "line"),
        *("serve", "remove", "requests", "calls", "wait_for", "forget"),
        *("fail", "delay", "hang", "answer_bytes", "truncate", "oversize", "drop", "half_answer", "no_trailers"),
        *("endless_headers", "answer_frames", "goaway", "draining", "heal", "stop", "kill", "restart"),
    }
    assert methods(Line) == {
        *("address", "url", "num_connections", "num_bytes", "listen", "stop_listening", "lead_to", "close"),
        *("cut", "cut_after", "goaway", "stalled", "throttled", "refused", "resume"),
    }


def test_the_client_comes_without_its_testing_kit():
    """A service pays nothing for it."""
    code = "import naiad.client, sys; print([name for name in sys.modules if 'naiad.client.testing' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_example_of_the_package_runs(tmp_path):
    """What the docstring shows is a test, and it passes."""
    example = naiad.client.testing.__doc__.partition("::\n")[2]
    lines = [line.removeprefix("    ") for line in example.splitlines()]
    (tmp_path / "test_example.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr

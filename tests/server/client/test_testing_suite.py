"""The client's own tests of calls pass on the fake as they do on the real Triton, model by model a Python function."""

import re
import subprocess
import sys
from pathlib import Path

import fake_models
from naiad.client.testing import FakeTriton

HERE = Path(__file__).parent
OF_MANAGEMENT = "ready or itself or unloaded or contract or window or log_settings or asyncio"  # others load files


def passed(*arguments: str) -> int:
    with FakeTriton(fake_models.mirrored(), admin_secret="open sesame") as fake:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--triton", fake.admin_url]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=170, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.search(r"(\d+) passed", done.stdout)[1])


def test_inference():
    """All data types, layouts, versions, refusals, deadlines, cancellation, threads and tasks."""
    assert passed(str(HERE / "test_infer.py"), str(HERE / "test_queue_timeout.py")) > 40


def test_management():
    """Readiness, loading, statistics and settings."""
    assert passed(str(HERE / "test_manage.py"), "-k", OF_MANAGEMENT) >= 7

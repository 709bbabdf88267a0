"""The soak test (`make soak`), shortened."""

import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[2] / "soak" / "client.py"


def test_nothing_grows_and_nothing_stays_behind():
    """20,000 requests, 200 of which fail on purpose: memory is flat; no thread, descriptor or segment is left."""
    command = [sys.executable, str(SOAK), "--requests", "20000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr

"""The fixture with the real Triton, in a project that has naiad installed."""

import subprocess
import sys

from repository_helpers import affine, write_model

TEST = """
import numpy as np

seen = []

def test_one(embedded_triton):
    server = embedded_triton("model_repository", models=["double"])
    assert server.models == ("double",)
    seen.append(server)
    with server.client() as triton:
        assert triton.model("double")(x=[[1, 2, 3]])["y"].tolist() == [[2, 4, 6]]

def test_two(embedded_triton):
    assert embedded_triton("model_repository", models=["double"]) is seen[0]
    assert embedded_triton("model_repository", models=["triple"]).models == ("triple",)
"""


def test_there_is_one_server_for_a_repository_and_its_options(tmp_path):
    """It is shared by the tests of a session, and leaves nothing running."""
    row = {"inputs": {"x": "FP32[3]"}, "outputs": {"y": "FP32[3]"}, "max_batch_size": 8}
    for name, scale in (("double", 2.0), ("triple", 3.0)):
        write_model(tmp_path / "model_repository", name, affine(scale=scale), **row)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_it.py").write_text(TEST)
    plain = ["-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:timeout"]
    command = [sys.executable, "-m", "pytest", "-q", *plain]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout

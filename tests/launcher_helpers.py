"""Repositories and conditions for the tests of the launcher."""

import os
import textwrap
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from naiad.client import Client

IDENTITY = """
    import time
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            responses = []
            for request in requests:
                x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
                time.sleep(float(x.max()))
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x + {added})]))
            return responses
"""

CONFIG = """
    name: "{name}"
    backend: "python"
    max_batch_size: 8
    input [{{ name: "x" data_type: TYPE_FP32 dims: [ 2 ] }}]
    output [{{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }}]
    instance_group [{{ kind: KIND_CPU count: {instances} }}]
    version_policy {{ {policy} }}
"""


def write_version(repository: Path, name: str, version: int, *, source: str = IDENTITY, added: int = 0) -> None:
    """Publish a version of a model that sleeps for the largest value of x seconds and answers y = x + added."""
    staged = repository.parent / f".staged-{name}-{version}"
    staged.mkdir()
    (staged / "model.py").write_text(textwrap.dedent(source).replace("{added}", str(added)))
    (repository / name).mkdir(parents=True, exist_ok=True)
    staged.rename(repository / name / str(version))


def write_config(
    repository: Path, name: str, *, instances: int = 1, policy: str = "latest { num_versions: 1 }"
) -> None:
    """Replace a model's configuration atomically."""
    staged = repository.parent / f".staged-{name}.pbtxt"
    staged.write_text(textwrap.dedent(CONFIG).format(name=name, instances=instances, policy=policy))
    (repository / name).mkdir(parents=True, exist_ok=True)
    staged.replace(repository / name / "config.pbtxt")


def write_model(repository: Path, name: str, *, instances: int = 1, source: str = IDENTITY) -> Path:
    """A whole model with version 1; returns the repository."""
    write_version(repository, name, 1, source=source)
    write_config(repository, name, instances=instances)
    return repository


def ask(client: Client, name: str, value: float = 0.0) -> NDArray[np.float32]:
    """One request; the answer's y."""
    return np.asarray(client.infer(name, {"x": np.full((1, 2), value, np.float32)})["y"])


def num_pending(metrics_url: str) -> int:
    """How many requests wait in the server for an instance; one more than that may run."""
    with urllib.request.urlopen(metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pending = [line for line in lines if line.startswith("nv_inference_pending_request_count{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in pending)


def eventually(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Return as soon as the condition holds; fail if it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def regions(prefix: str) -> list[str]:
    """Shared-memory regions with that prefix."""
    return [name for name in os.listdir("/dev/shm") if name.startswith(prefix)]

"""The launcher on a machine with GPUs: which are used, and whether tensors stay on them between Triton's processes."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from launcher_helpers import eventually
from naiad.client import Client
from naiad.server import EmbeddedTriton, PreflightFailed, checks

LARGER_THAN_TRITONS_OWN_POOL = 20_000_000
"""Floats: 80 MB, as a batch of 128 images has; Triton's pool has 64 MiB unless it is told otherwise."""

MAKES = """
    import torch
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def initialize(self, args):
            self.device = "cuda" if args["model_instance_kind"] == "GPU" else "cpu"

        def execute(self, requests):
            responses = []
            for request in requests:
                num_floats = int(pb_utils.get_input_tensor_by_name(request, "num_floats").as_numpy()[0])
                self.made = torch.ones(num_floats, device=self.device)
                if self.device == "cuda":
                    torch.cuda.synchronize()
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("made", self.made)]))
            return responses
"""

TELLS = """
    import numpy as np
    import torch
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            responses = []
            for request in requests:
                made = pb_utils.get_input_tensor_by_name(request, "made")
                told = np.array([made.is_cpu(), float(torch.from_dlpack(made.to_dlpack()).sum())], np.float64)
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("told", told)]))
            return responses
"""

ON_GPU = """
    import numpy as np
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def initialize(self, args):
            self.on_gpu = args["model_instance_kind"] == "GPU"

        def execute(self, requests):
            told = pb_utils.Tensor("told", np.array([self.on_gpu], np.float64))
            return [pb_utils.InferenceResponse([told]) for _ in requests]
"""

PARTS = {
    "makes": ('input [{ name: "num_floats" data_type: TYPE_INT64 dims: [ 1 ] }] '
              'output [{ name: "made" data_type: TYPE_FP32 dims: [ -1 ] }]', MAKES),
    "tells": ('input [{ name: "made" data_type: TYPE_FP32 dims: [ -1 ] }] '
              'output [{ name: "told" data_type: TYPE_FP64 dims: [ 2 ] }]', TELLS),
    "on_gpu": ('input [{ name: "num_floats" data_type: TYPE_INT64 dims: [ 1 ] }] '
               'output [{ name: "told" data_type: TYPE_FP64 dims: [ 1 ] }]', ON_GPU),
}  # fmt: skip

BOTH = """
    name: "both"
    platform: "ensemble"
    input [{ name: "num_floats" data_type: TYPE_INT64 dims: [ 1 ] }]
    output [{ name: "told" data_type: TYPE_FP64 dims: [ 2 ] }]
    ensemble_scheduling { step [
        { model_name: "makes" model_version: -1
          input_map { key: "num_floats" value: "num_floats" } output_map { key: "made" value: "made" } },
        { model_name: "tells" model_version: -1
          input_map { key: "made" value: "made" } output_map { key: "told" value: "told" } } ] }
"""


def write(repository: Path, *names: str) -> Path:
    """Models that take a GPU where there is one."""
    for name in names:
        tensors, source = PARTS[name]
        (repository / name / "1").mkdir(parents=True)
        lines = (line[4:] for line in source.splitlines())
        (repository / name / "1" / "model.py").write_text("\n".join(lines))
        (repository / name / "config.pbtxt").write_text(
            f'name: "{name}" backend: "python" {tensors} instance_group [{{ kind: KIND_AUTO count: 1 }}] '
            'parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }'
        )
    return repository


def told(client: Client, model: str, num_floats: int = 1) -> list[float]:
    return np.asarray(client.infer(model, {"num_floats": np.array([num_floats], np.int64)})["told"]).tolist()


@pytest.mark.parametrize("num_floats", [16, LARGER_THAN_TRITONS_OWN_POOL])
def test_tensors_stay_on_the_gpu_between_the_steps_of_an_ensemble(tmp_path: Path, num_floats: int) -> None:
    """One Python process makes a tensor on the GPU, and the next one gets it there, whole."""
    torch = pytest.importorskip("torch")
    if torch.version.cuda is None:
        pytest.skip("this PyTorch is built for the CPU")
    repository = write(tmp_path / "models", "makes", "tells")
    (repository / "both" / "1").mkdir(parents=True)
    (repository / "both" / "config.pbtxt").write_text(BOTH)
    with EmbeddedTriton(repository, gpus="0", ready_timeout_s=120) as triton, Client(triton.grpc_url) as client:
        for _ in range(3):  # the pool has to take back what it gave
            assert told(client, "both", num_floats) == [False, num_floats], triton.log_tail()


def test_models_are_where_the_gpus_let_them(tmp_path: Path) -> None:
    """KIND_AUTO takes a GPU that is used, by number or UUID, and the CPU where all are hidden."""
    repository = write(tmp_path / "models", "on_gpu")
    uuid = checks.look_at_gpus().gpus[0].uuid
    for gpus, expected in ((None, 1.0), ("0", 1.0), (uuid, 1.0), ("none", 0.0)):
        with EmbeddedTriton(repository, gpus=gpus) as triton, Client(triton.grpc_url) as client:
            assert told(client, "on_gpu") == [expected], (gpus, triton.log_tail())


def test_the_pool_has_the_size_asked_for(tmp_path: Path) -> None:
    """Triton's log says what it reserved on the GPU."""
    repository = write(tmp_path / "models", "on_gpu")
    with EmbeddedTriton(repository, gpus="0", cuda_memory_pool_bytes=256 << 20) as triton:
        assert f"device 0 with size {256 << 20}" in triton.log_path.read_text()


def test_metrics_tell_of_the_gpu(tmp_path: Path) -> None:
    """Prometheus gets its memory, under its UUID."""
    repository = write(tmp_path / "models", "on_gpu")
    mine = f'nv_gpu_memory_total_bytes{{gpu_uuid="{checks.look_at_gpus().gpus[0].uuid}"}}'

    def metrics() -> str:
        with urllib.request.urlopen(triton.metrics_url, timeout=10) as answer:
            return str(answer.read().decode())

    def refused() -> list[str]:
        lines = triton.log_path.read_text().splitlines()
        return [line for line in lines if "DCGM unable" in line or "GPU metrics will not be" in line]

    with EmbeddedTriton(repository, gpus="0") as triton:
        eventually(lambda: mine in metrics() or refused(), "the GPU is in the metrics, or Triton says why not")
        if mine not in metrics():
            pytest.skip(f"Triton's DCGM and this driver do not agree: {refused()[0]}")


def test_a_gpu_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    """Before Triton starts."""
    repository = write(tmp_path / "models", "on_gpu")
    gpus = checks.look_at_gpus().gpus
    with pytest.raises(PreflightFailed) as caught:
        EmbeddedTriton(repository, gpus=str(len(gpus))).start()
    assert f"no GPU {len(gpus)}" in str(caught.value)
    assert all(gpu.name in str(caught.value) and gpu.uuid in str(caught.value) for gpu in gpus)


def test_the_doctor_finds_driver_and_gpus() -> None:
    """As many as the driver counts, with what they have."""
    done = subprocess.run(
        [sys.executable, "-m", "naiad.cli", "doctor", "gpu", "--json"], capture_output=True, text=True
    )
    found = {check["name"]: check for check in json.loads(done.stdout)["gpu"]["checks"]}
    assert found["driver"]["state"] == "ok"
    for number, gpu in enumerate(checks.look_at_gpus().gpus):
        assert gpu.uuid in found[f"GPU {number}"]["found"]
        assert gpu.memory_bytes > 1 << 30

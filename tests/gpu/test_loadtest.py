"""The load test on a real GPU: what NVML tells of it, and the report of a run of a model that computes there."""

import json
import os
import textwrap
from importlib.resources import files

import pytest

from naiad.loadtest import Connection, LoadTest, Traffic, Users, run
from naiad.loadtest._truth.nvml import Driver
from naiad.server import EmbeddedTriton

CONFIG = """
    name: "busy"
    backend: "python"
    max_batch_size: 0
    input [{ name: "x" data_type: TYPE_FP32 dims: [ 8 ] }]
    output [{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }]
    instance_group [{ kind: KIND_GPU count: 2 }]
"""
# Some milliseconds of the GPU for each request; two instances, so that one computes while the other one answers.
MODEL = """
    import torch
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def initialize(self, args):
            self.a = torch.randn(8192, 8192, device=f"cuda:{args['model_instance_device_id']}", dtype=torch.float16)

        def execute(self, requests):
            responses = []
            for request in requests:
                for _ in range(20):
                    product = self.a @ self.a
                y = product[0, :1].float().cpu().numpy()
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
            return responses
"""


@pytest.fixture
def driver():
    pytest.importorskip("pynvml")
    found = Driver.open(os.environ, lambda: {os.getpid()})
    assert found is not None, "CUDA sees a GPU, and NVML none"
    yield found
    found.close()


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The report of one run."""
    pytest.importorskip("pynvml")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this build of torch has no CUDA")
    repository = tmp_path_factory.mktemp("repository")
    (repository / "busy" / "1").mkdir(parents=True)
    (repository / "busy" / "config.pbtxt").write_text(textwrap.dedent(CONFIG))
    (repository / "busy" / "1" / "model.py").write_text(textwrap.dedent(MODEL))
    with EmbeddedTriton(repository) as server:
        test = LoadTest(
            traffic=Traffic(model="busy"),
            load=Users(users=4),
            connection=Connection(url=server.grpc_url),
            warmup_s=3.0,
            duration_s=8.0,
        )
        return json.loads(json.dumps(run(test).to_json()))


def test_every_gpu_tells_its_figures(driver):
    """A whole data-centre GPU tells all of them; what one does not tell has a reason."""
    for gpu in driver.read():
        assert gpu.name
        assert gpu.uuid.startswith("GPU-")
        assert gpu.memory_total_bytes > 1 << 30
        for name in ("busy_share", "power_w", "energy_j", "sm_mhz", "temperature_c", "slowed_by"):
            assert getattr(gpu, name) is not None or gpu.missing[name], name


def test_a_gpu_that_computes_all_the_time_is_the_limit(content):
    """Busy nine tenths of the time or more, and no doubt that the model runs elsewhere."""
    gpus = content["results"]["resources"]["gpus"]
    known = [gpu["busy_share"] for gpu in gpus if gpu["busy_share"] is not None]
    if not known:
        pytest.skip(f"no utilisation: {gpus[0]['missing']}")
    assert max(known) >= 0.9, content["limit"]
    assert content["limit"]["kind"] == "gpu compute"
    assert "gpu_idle" not in {doubt["kind"] for doubt in content["doubts"]}


def test_a_gpu_that_computes_draws_more_than_before(content):
    """Its power lies above that of the idle GPU and not far above its limit; a request takes some of it."""
    gpus = content["results"]["resources"]["gpus"]
    busiest = max(gpus, key=lambda gpu: gpu["busy_share"] or 0.0)
    if busiest["power_w"] is None:
        pytest.skip(f"no power: {busiest['missing']}")
    if busiest["idle_power_w"] is not None:
        assert busiest["power_w"] > busiest["idle_power_w"]
    if busiest["power_limit_w"] is not None:
        assert busiest["power_w"] < 1.2 * busiest["power_limit_w"]
    sampled = busiest["figures"]["power_w"]
    if busiest["energy_source"] == "counter" and sampled is not None:
        assert busiest["power_w"] == pytest.approx(sampled["mean"], rel=0.3)
    assert content["cost"]["joules_per_request"] > 0


def test_the_report_is_what_its_schema_says(content):
    """With the figures of a real GPU, too."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(files("naiad.loadtest._report").joinpath("report.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(content)

"""The load test on a real GPU: what NVML tells of it, and the report of a run while it computes."""

import json
import os
from importlib.resources import files

import pytest

from loadtest_helpers import write_repository
from naiad.loadtest import Connection, LoadTest, Traffic, Users, run
from naiad.loadtest._truth.nvml import Driver
from naiad.server import EmbeddedTriton


@pytest.fixture
def driver():
    pytest.importorskip("pynvml")
    found = Driver.open(os.environ, lambda: {os.getpid()})
    assert found is not None, "CUDA sees a GPU, and NVML none"
    yield found
    found.close()


def test_every_gpu_tells_its_figures(driver):
    """A whole data-centre GPU tells all of them; a divided one says why it does not tell its utilisation."""
    for gpu in driver.read():
        assert gpu.name
        assert gpu.uuid.startswith("GPU-")
        assert gpu.memory_total_bytes > 1 << 30
        for name in ("busy_share", "power_w", "energy_j", "sm_mhz", "temperature_c"):
            assert getattr(gpu, name) is not None or gpu.missing[name], name


def test_a_gpu_at_work_is_busy_and_draws_power(driver):
    """While matrices are multiplied: kernels run, the clock is up, the energy counter rises as the power says."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this build of torch has no CUDA")
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    samples = []
    end = torch.cuda.Event(enable_timing=True)
    start = torch.cuda.Event(enable_timing=True)
    start.record()
    while True:
        for _ in range(20):
            a @ a
        end.record()
        end.synchronize()
        samples.append(max(driver.read(), key=lambda gpu: gpu.busy_share or 0.0))
        if start.elapsed_time(end) > 3000:  # ms
            break
    last = samples[-1]
    assert last.busy_share is None or last.busy_share > 0.5
    assert last.sm_mhz is None or last.sm_mhz > 300
    if last.energy_j is not None and len(samples) > 2:
        power_w = (last.energy_j - samples[1].energy_j) / (last.at_s - samples[1].at_s)
        assert 10 < power_w < 3000
        assert last.own_memory_bytes is None or last.own_memory_bytes > a.nbytes


def test_a_run_on_a_machine_with_a_gpu_reports_it(tmp_path):
    """The model computes on the CPU: the GPU is in the report all the same, with its power, and is not the limit."""
    repository = write_repository(tmp_path / "repository", "linear")
    with EmbeddedTriton(repository) as server:
        test = LoadTest(
            traffic=Traffic(model="linear"),
            load=Users(users=2),
            connection=Connection(url=server.grpc_url),
            warmup_s=0.5,
            duration_s=4.0,
        )
        content = run(test).to_json()
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(files("naiad.loadtest._report").joinpath("report.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(content)))
    gpus = content["results"]["resources"]["gpus"]
    assert gpus
    assert content["limit"]["text"]
    if all(gpu["power_w"] for gpu in gpus):
        assert content["cost"]["joules_per_request"] > 0

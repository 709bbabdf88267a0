"""The server's GPUs: what NVML and Triton's metrics tell, and what becomes of what they do not tell."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

import pytest

import nvml_helpers
from naiad.loadtest._truth.gpu_visible import visible
from naiad.loadtest._truth.gpus import open_gpus, read_metrics
from naiad.loadtest._truth.nvml import Driver
from naiad.loadtest._truth.processes import find_server

METRICS = """\
# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
nv_gpu_utilization{gpu_uuid="GPU-b"} 0.75
nv_gpu_utilization{gpu_uuid="GPU-a"} 0.250000
nv_gpu_memory_total_bytes{gpu_uuid="GPU-a"} 85899345920.000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-a"} 1073741824.000000
nv_gpu_power_usage{gpu_uuid="GPU-a"} 61.5
nv_gpu_power_usage{gpu_uuid="GPU-b"} 0.0
nv_energy_consumption{gpu_uuid="GPU-a"} 15.25
nv_cpu_utilization 0.5
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return nvml_helpers.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def script(library, tmp_path, monkeypatch):
    found = nvml_helpers.Script(tmp_path / "script")
    nvml_helpers.load(library, found.path, monkeypatch)
    return found


@pytest.fixture
def opened(script):
    """Return the driver's GPUs; it is let go of at the end."""
    with ExitStack() as drivers:

        def open_(**server):
            driver = Driver.open(**server)
            assert driver is not None
            drivers.callback(driver.close)
            return driver

        yield open_


def test_everything_that_the_driver_tells_is_read(script, opened):
    """In W, bytes, MHz and shares, whatever NVML's own units are; nothing is missing."""
    script.gpu(0, processes=f"{os.getpid()}:1000 17:5 18:5")
    (gpu,) = opened(pids=lambda: {os.getpid()}).read()
    assert (gpu.index, gpu.name, gpu.uuid, gpu.lost) == (0, "NVIDIA H200", "GPU-00111111-aaaa", False)
    assert (gpu.busy_share, gpu.memory_busy_share) == (0.97, 0.4)
    assert (gpu.memory_bytes, gpu.memory_total_bytes, gpu.own_memory_bytes) == (9_800_000_000, 150_000_000_000, 1000)
    assert (gpu.power_w, gpu.power_limit_w, gpu.temperature_c) == (500, 700, 61)
    assert (gpu.sm_mhz, gpu.memory_mhz) == (1980, 3201)
    assert (gpu.pcie_rx_bytes_per_s, gpu.pcie_tx_bytes_per_s) == (2.1e9, 0.2e9)
    assert gpu.pcie_limit_bytes_per_s == pytest.approx(63e9, rel=0.01)
    assert (gpu.slowed_by, gpu.num_foreign) == ((), 2)
    assert gpu.missing == {}


def test_the_energy_counter_rises_with_the_time(script, opened):
    """The difference of two readings over the time between them is the power."""
    script.gpu(0)
    driver = opened()
    (first,) = driver.read()
    time.sleep(0.05)
    (second,) = driver.read()
    power_w = (second.energy_j - first.energy_j) / (second.at_s - first.at_s)
    assert power_w == pytest.approx(512, rel=0.2)


@pytest.mark.parametrize(
    ("figure", "fields"),
    [
        ("power", ["power_w"]),
        ("busy", ["busy_share", "memory_busy_share"]),
        ("memory_used", ["memory_bytes", "memory_total_bytes"]),
        ("energy", ["energy_j"]),
        ("reasons", ["slowed_by"]),
        ("pcie_tx", ["pcie_tx_bytes_per_s"]),
        ("link_gen", ["pcie_limit_bytes_per_s"]),
        ("temperature", ["temperature_c"]),
        ("processes", ["own_memory_bytes", "num_foreign"]),
    ],
)
def test_what_a_gpu_does_not_support_is_unknown_and_not_zero(script, figure, fields, opened):
    """Each figure by itself; the reason is NVML's own word, and the rest is there."""
    script.gpu(0, **{figure: None})
    (gpu,) = opened().read()
    assert [getattr(gpu, field) for field in fields] == [None] * len(fields)
    assert gpu.missing.get(fields[0]) == "Not Supported"
    assert gpu.sm_mhz == 1980


def test_what_is_told_again_is_no_longer_missing(script, opened):
    """A figure that was refused for a moment is known afterwards."""
    script.gpu(0, power="!10")
    driver = opened()
    assert driver.read()[0].power_w is None
    script.gpu(0, power=90_000)
    (gpu,) = driver.read()
    assert (gpu.power_w, "power_w" in gpu.missing) == (90, False)


def test_a_divided_gpu_says_why_it_tells_no_utilisation(script, opened):
    """With MIG the driver knows none of the whole; power is still known."""
    script.gpu(0, mig=1, busy=None)
    (gpu,) = opened().read()
    assert (gpu.busy_share, gpu.power_w) == (None, 500)
    assert "MIG" in gpu.missing["busy_share"]


@pytest.mark.parametrize("code", [15, 16])
def test_a_gpu_that_is_lost_within_the_run_is_asked_no_more(script, code, opened):
    """It is marked, the other one goes on, and nothing fails."""
    script.gpu(0)
    script.gpu(1)
    driver = opened()
    assert [gpu.lost for gpu in driver.read()] == [False, False]
    script.gpu(0, energy=f"!{code}")
    driver.read()
    script.gpu(0, energy=1)
    lost, other = driver.read()
    assert (lost.lost, lost.busy_share, lost.power_w, lost.name) == (True, None, None, "NVIDIA H200")
    assert (other.lost, other.busy_share) == (False, 0.97)


def test_a_gpu_that_was_lost_before_the_run_is_named_by_its_number(script, opened):
    """Without a handle nothing can be asked; the others are read."""
    script.gpu(0, name="!15")
    script.gpu(1)
    lost, other = opened().read()
    assert (lost.lost, lost.name, lost.busy_share) == (True, "GPU 0", None)
    assert other.busy_share == 0.97


@pytest.mark.parametrize(
    ("reasons", "names"),
    [
        (0x001, ()),  # idle
        (0x102, ()),  # clocks that were set, and a display's
        (0x004, ("power cap",)),
        (0x020, ("temperature",)),
        (0x048, ("hardware slowdown", "temperature (hardware)")),
        (0x088, ("hardware slowdown", "power brake")),
    ],
)
def test_reasons_that_hold_the_clocks_down_have_names(script, reasons, names, opened):
    """Being idle, and clocks that someone chose, are no reasons to speak of."""
    script.gpu(0, reasons=reasons)
    assert opened().read()[0].slowed_by == names


def test_processes_of_others_count_only_where_the_servers_own_are_seen(script, opened):
    """PIDs of another namespace (a container) look foreign, and are the server's."""
    script.gpu(0, processes="17:5 18:5")
    (gpu,) = opened(pids=lambda: {4711}).read()
    assert (gpu.num_foreign, gpu.own_memory_bytes) == (None, None)
    assert "namespace" in gpu.missing["own_memory_bytes"]


def test_memory_that_is_not_told_of_one_process_is_not_told_of_the_server(script, opened):
    """A sum of a part would look like the whole."""
    script.gpu(0, processes="17:5 18:-")
    (gpu,) = opened(pids=lambda: {17, 18}).read()
    assert (gpu.num_foreign, gpu.own_memory_bytes) == (0, None)


def test_only_the_gpus_that_the_server_may_use_are_read(script, opened):
    """By ``CUDA_VISIBLE_DEVICES`` of its environment; without one of them there is nothing to read."""
    for index in range(3):
        script.gpu(index)
    found = opened(environment={"CUDA_VISIBLE_DEVICES": "2,0"}).read()
    assert [gpu.index for gpu in found] == [0, 2]
    assert Driver.open(environment={"CUDA_VISIBLE_DEVICES": "-1"}) is None


def test_a_part_of_a_gpu_leads_to_the_whole(script, opened):
    """An identifier of MIG in ``CUDA_VISIBLE_DEVICES`` shows the GPU that was divided."""
    script.gpu(0)
    script.gpu(1, part="MIG-77", mig=1, busy=None)
    (gpu,) = opened(environment={"CUDA_VISIBLE_DEVICES": "MIG-77"}).read()
    assert gpu.index == 1


def test_a_driver_without_a_gpu_or_that_is_not_loaded_is_none(script, monkeypatch):
    """Nothing is said and nothing fails."""
    assert Driver.open() is None
    monkeypatch.delenv("NVML_SCRIPT")
    assert Driver.open() is None


SAME = [("GPU-aaaa1", "H200"), ("GPU-aabb2", "H200"), ("GPU-cccc3", "H200")]
MIXED = [("GPU-aaaa1", "T4"), ("GPU-aabb2", "H200")]


@pytest.mark.parametrize(
    ("gpus", "environment", "shown"),
    [
        (SAME, {}, [0, 1, 2]),
        (SAME, {"CUDA_VISIBLE_DEVICES": ""}, []),
        (SAME, {"CUDA_VISIBLE_DEVICES": "-1"}, []),
        (SAME, {"CUDA_VISIBLE_DEVICES": "1"}, [1]),
        (SAME, {"CUDA_VISIBLE_DEVICES": "2, 0"}, [0, 2]),
        (SAME, {"CUDA_VISIBLE_DEVICES": "1,9,0"}, [1]),
        (SAME, {"CUDA_VISIBLE_DEVICES": "GPU-cccc3"}, [2]),
        (SAME, {"CUDA_VISIBLE_DEVICES": "gpu-CC"}, [2]),
        (SAME, {"CUDA_VISIBLE_DEVICES": "GPU-aa"}, []),  # which of the two?
        (MIXED, {"CUDA_VISIBLE_DEVICES": "0"}, [0, 1]),
        (MIXED, {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, [0]),
        (MIXED, {"CUDA_VISIBLE_DEVICES": "GPU-aabb"}, [1]),
    ],
)
def test_cudas_rules_say_which_gpus_a_process_sees(gpus, environment, shown):
    """Numbers and beginnings of identifiers up to the first that is wrong; all where CUDA's order is not known."""
    assert visible(gpus, environment) == shown


def test_metrics_of_a_server_elsewhere_show_its_gpus():
    """GPUs come in the order of their identifiers; what is missing, or zero for want of a figure, is unknown."""
    first, second = read_metrics(METRICS)
    assert (first.uuid, first.busy_share, first.memory_bytes, first.power_w) == ("GPU-a", 0.25, 1 << 30, 61.5)
    assert (first.memory_total_bytes, first.energy_j) == (80 << 30, 15.25)
    assert (second.busy_share, second.memory_bytes, second.power_w) == (0.75, None, None)


def test_the_gpus_of_this_machine_are_read_or_there_are_none():
    """Without a driver nothing is said and nothing fails; with one, each GPU has its name."""
    gpus = open_gpus(find_server("", pid=os.getpid()))
    assert gpus is None or all(gpu.name for gpu in gpus.read())
    if gpus is not None:
        gpus.close()


def test_metrics_that_cannot_be_read_are_no_gpus():
    """A wrong address costs nothing but the figures."""
    gpus = open_gpus(None, metrics_url="http://127.0.0.1:1/metrics")
    assert gpus is not None
    assert gpus.read() == ()
    gpus.close()


def test_a_server_elsewhere_does_not_use_the_gpus_here(script):
    """This machine's GPUs say nothing about another one."""
    script.gpu(0)
    assert open_gpus(None) is None


def test_the_driver_knows_more_than_the_metrics(script):
    """Of a server on this machine with both, the driver is asked, for the GPUs that the server's environment leaves."""
    script.gpu(0)
    gpus = open_gpus(find_server("", pid=os.getpid()), metrics_url="http://127.0.0.1:1/metrics")
    assert isinstance(gpus, Driver)
    gpus.close()

"""The fingerprint of a machine, and what goes on on it."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from naiad.loadtest import Machine
from naiad.loadtest._truth.gpus import Driver, open_gpus, read_metrics
from naiad.loadtest._truth.noise import MachineLoad
from naiad.loadtest._truth.processes import find_server

METRICS = """\
# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
nv_gpu_utilization{gpu_uuid="GPU-b"} 0.75
nv_gpu_utilization{gpu_uuid="GPU-a"} 0.250000
nv_gpu_memory_total_bytes{gpu_uuid="GPU-a"} 85899345920.000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-a"} 1073741824.000000
nv_gpu_power_usage{gpu_uuid="GPU-a"} 61.5
nv_cpu_utilization 0.5
"""

# A server with a child, like one with a stub: both burn CPU time until their input ends.
SERVER = """
import socket, subprocess, sys, threading
busy = "while True: sum(range(10000))"
child = subprocess.Popen([sys.executable, "-c", busy])
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
print(listener.getsockname()[1], child.pid, flush=True)
sys.stdin.read()
"""


def burn(seconds: float) -> None:
    until = os.times().user + seconds
    while os.times().user < until:
        pass


def test_a_fingerprint_names_no_host():
    """It tells machines apart by what they are, and survives a file."""
    machine = Machine.this()
    assert socket.gethostname() not in str(machine.to_json().values())
    assert Machine.from_json(machine.to_json()) == machine
    assert machine.kernel == os.uname().release


def test_a_fingerprint_of_an_earlier_version_is_read():
    """Stored results without the newer fields stay readable."""
    old = Machine.from_json({"cores": 2, "cpu": "a", "system": "Linux x86_64"})
    assert (old.cores, old.kernel, old.governor, old.turbo) == (2, None, None, None)


def test_the_machines_load_is_made_of_shares():
    """Steal, pressure and use lie between nothing and all of the time; a busy stretch is a busy one."""
    before = MachineLoad.now([os.getpid()])
    burn(0.3)
    load = MachineLoad.since(before)
    assert all(0 <= share <= 1 for share in load.to_json().values())
    assert load.busy_share > 0


def test_a_process_that_has_ended_waits_for_no_core():
    """An engine that was killed leaves no number behind."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    before = MachineLoad.now([ended.pid])
    assert MachineLoad.since(before).engine_wait_share == 0


def test_the_server_and_what_it_started_is_found_by_its_port():
    """CPU time of the listener's child counts, and stays in the sum when the child has ended."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port, child = map(int, server.stdout.readline().split())
        found = find_server(f"grpc://127.0.0.1:{port}")
        assert found is not None
        used = found.read()
        while used is not None and used.cpu_s < 0.3:  # the child works; the listener waits
            used = found.read()
        assert found.pids == {server.pid, child}
        assert used is not None
        assert used.rss_bytes > 1_000_000
        os.kill(child, 9)
        later = found.read()
        assert later is not None
        assert later.cpu_s >= used.cpu_s
        server.communicate()
        assert found.read() is None


def test_what_forwards_to_a_server_is_not_the_server(tmp_path):
    """A tunnel that listens here uses no CPU time to speak of; the server behind it is elsewhere."""
    tunnel = tmp_path / "ssh"
    tunnel.symlink_to(sys.executable)
    code = "print(1, flush=True); input()"
    with subprocess.Popen([tunnel, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert find_server("grpc://127.0.0.1:1", pid=process.pid) is None
        process.communicate(b"\n")


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:1", "grpc://192.0.2.1:8001"])
def test_where_nothing_listens_here_there_is_no_process(url):
    """A server on another machine, or none at all, cannot be looked into."""
    assert find_server(url) is None


def test_metrics_of_a_server_elsewhere_show_its_gpus():
    """GPUs come in the order of their identifiers; what is missing is unknown."""
    first, second = read_metrics(METRICS)
    assert (first.busy_share, first.memory_bytes, first.power_w) == (0.25, 1 << 30, 61.5)
    assert (second.busy_share, second.memory_bytes, second.power_w) == (0.75, None, None)


class Nvml:
    """The driver's library of a machine with one GPU that does not tell its power."""

    class NVMLError(Exception): ...

    def nvmlDeviceGetCount(self):
        return 1

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetName(self, device):
        return b"A GPU"

    def nvmlDeviceGetUtilizationRates(self, device):
        return SimpleNamespace(gpu=40)

    def nvmlDeviceGetMemoryInfo(self, device):
        return SimpleNamespace(used=7 << 30)

    def nvmlDeviceGetPowerUsage(self, device):
        raise self.NVMLError("not supported")


def test_a_gpu_that_tells_only_half_is_read_all_the_same():
    """What the driver refuses is unknown, the rest is there."""
    (gpu,) = Driver(Nvml()).read()
    assert (gpu.name, gpu.busy_share, gpu.memory_bytes, gpu.power_w) == ("A GPU", 0.4, 7 << 30, None)


def test_the_gpus_of_this_machine_are_read_or_there_are_none():
    """Without a driver nothing is said and nothing fails; with one, each GPU has its name."""
    gpus = open_gpus(local=True)
    assert gpus is None or all(gpu.name for gpu in gpus.read())


def test_metrics_that_cannot_be_read_are_no_gpus():
    """A wrong address costs nothing but the figures."""
    gpus = open_gpus(local=False, metrics_url="http://127.0.0.1:1/metrics")
    assert gpus is not None
    assert gpus.read() == ()
    gpus.close()


def test_a_server_elsewhere_does_not_use_the_gpus_here():
    """This machine's GPUs say nothing about another one."""
    assert open_gpus(local=False) is None

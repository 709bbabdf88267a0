"""The fingerprint of a machine, and what goes on on it."""

import os
import socket
import subprocess
import sys

import pytest

from naiad.loadtest import Machine
from naiad.loadtest._truth.noise import MachineLoad
from naiad.loadtest._truth.processes import find_server

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

"""Several embedded Tritons side by side."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher_helpers import alive, ask, eventually, write_model
from naiad.server import EmbeddedTriton, InvalidOption, NotRunning, Replicas, RestartStep, ServerError, find_running


class Remembered:
    """A balancer that only writes down what it is told, in the place of a gateway."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def drain(self, name: str, timeout_s: float) -> bool:
        """Nothing is in flight."""
        self.told.append(("drain", name))
        return True

    def admit(self, name: str) -> None:
        """Written down, too."""
        self.told.append(("admit", name))


@pytest.fixture(scope="module")
def replicas(identity_repository: Path) -> Iterator[Replicas]:
    """Two running servers of one repository, of which nothing stays in the end."""
    with Replicas(identity_repository, num_replicas=2, drain_timeout_s=5.0) as running:
        yield running
        pids, directory = [server.pid for server in running.servers.values()], running.directory
    running.stop()
    assert not any(map(alive, pids))
    assert not directory.exists()


def _server(replicas: Replicas, name: str) -> EmbeddedTriton:
    return replicas.servers[name]


def test_they_share_a_secret_and_nothing_else(replicas: Replicas) -> None:
    """Each has addresses of its own, and whoever may administer one may administer all."""
    first, second = replicas.servers.values()
    assert list(replicas.servers) == ["main-0", "main-1"]
    assert first.grpc_address != second.grpc_address
    assert first.admin_secret == second.admin_secret == replicas.admin_secret
    for server in (first, second):
        with server.client() as client:
            client.load("identity")
            assert ask(client, "identity").tolist() == [[0.0, 0.0]]


def test_a_rolling_restart_drains_and_admits_one_after_the_other(replicas: Replicas) -> None:
    """Each gets a new process on its old ports, and comes back before the next one leaves."""
    before = {name: (server.pid, server.grpc_address) for name, server in replicas.servers.items()}
    balancer, steps = Remembered(), list[RestartStep]()
    replicas.rolling_restart(balancer, steps.append)
    assert balancer.told == [("drain", "main-0"), ("admit", "main-0"), ("drain", "main-1"), ("admit", "main-1")]
    assert [step.doing for step in steps] == ["draining", "restarting", "checking", "serving"] * 2
    for name, server in replicas.servers.items():
        assert (server.pid != before[name][0], server.grpc_address) == (True, before[name][1])
    assert replicas.failure is None


def test_a_replica_with_a_dead_process_is_left_out_until_it_is_repaired(replicas: Replicas) -> None:
    """The balancer hears of a dead process at once, and when the model serves again."""
    balancer = Remembered()
    replicas.attach(balancer)
    (victim,) = _server(replicas, "main-1").stub_pids()
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: balancer.told == [("drain", "main-1"), ("admit", "main-1")], "it leaves and comes back")


def test_a_killed_replica_comes_back_on_its_ports(replicas: Replicas) -> None:
    """Its own supervisor starts it again, and the other is not touched."""
    first, second = replicas.servers.values()
    before = (first.grpc_address, first.restarts, second.pid)
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: first.restarts == before[1] + 1, "it is started again")
    assert (first.grpc_address, second.pid) == (before[0], before[2])


def test_one_that_does_not_start_ends_all(tmp_path: Path) -> None:
    """The first failure is raised, and no process or directory stays."""
    repository = write_model(tmp_path / "repository", "broken", source="class TritonPythonModel(")
    replicas = Replicas(repository)
    with pytest.raises(ServerError, match="broken"):
        replicas.start()
    with pytest.raises(NotRunning):
        _ = replicas.directory
    assert not find_running(repository=repository)


def test_names_and_ports_that_make_no_sense_are_refused(identity_repository: Path) -> None:
    """Names are as many as replicas and different; several replicas cannot share a port."""
    with pytest.raises(InvalidOption, match="different names"):
        Replicas(identity_repository, names=["one", "one"])
    with pytest.raises(InvalidOption, match="no named ports"):
        Replicas(identity_repository, grpc_port=8001)
    with pytest.raises(InvalidOption, match="admin_secret"):
        Replicas(identity_repository, admin_secret="a,b=c")

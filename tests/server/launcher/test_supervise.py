"""The supervisor: what died comes back while callers keep calling."""

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher_helpers import alive, ask, eventually, regions, write_model
from naiad.client import Client, ClientError
from naiad.server import EmbeddedTriton, Unreachable, _home


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A server with two models, which the tests of this module injure one after the other."""
    repository = write_model(tmp_path_factory.mktemp("supervised") / "repository", "single")
    with EmbeddedTriton(write_model(repository, "double", instances=2)) as running:
        yield running


class Caller:
    """Calls a model over and over from another thread, and counts."""

    def __init__(self, client: Client, model: str) -> None:
        self._client, self._model = client, model
        self._ended = threading.Event()
        self.answered = itertools.count()
        self.failed = 0
        self._answers = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                ask(self._client, self._model)
                self._answers += 1
            except ClientError:
                self.failed += 1
                self._ended.wait(0.05)

    def answers_again(self, num_answers: int = 5) -> None:
        """Return when some more requests were answered from now on."""
        before = self._answers
        eventually(lambda: self._answers >= before + num_answers, "requests are answered")

    def __enter__(self) -> "Caller":
        self._thread.start()
        self.answers_again()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()


@pytest.mark.parametrize("model", ["single", "double"])
def test_a_model_whose_stub_was_killed_serves_again(supervised: EmbeddedTriton, model: str) -> None:
    """After kill -9 of a stub its model gets new processes, on the same server, while a caller keeps calling."""
    server = supervised.pid
    with supervised.client() as client, Caller(client, model) as caller:
        victim = _stub_of(supervised, model)
        region = _region_of(victim)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: not regions(region), "the dead stub's shared memory is removed")
        caller.answers_again()
        answers = [ask(client, model) for _ in range(4)]
    assert len(answers) == 4
    assert (supervised.pid, supervised.restarts) == (server, 0)


def test_a_model_whose_stub_hangs_serves_again(supervised: EmbeddedTriton) -> None:
    """A stub that is stopped in the middle of requests is replaced before it can abort the server."""
    with supervised.client() as client, Caller(client, "single") as caller:
        victim = _stub_of(supervised, "single")
        os.kill(victim, signal.SIGSTOP)
        eventually(lambda: not alive(victim), "the hanging process is ended")
        caller.answers_again()
    assert supervised.restarts == 0


def test_a_killed_server_comes_back_on_the_same_ports(supervised: EmbeddedTriton) -> None:
    """After kill -9 of Triton the same client reaches a new one at the same address, with the same models."""
    address, before, models = supervised.grpc_address, supervised.restarts, supervised.models
    leftovers = regions(supervised._server.private.region_prefix)
    with supervised.client() as client, Caller(client, "single") as caller:
        os.kill(supervised.pid, signal.SIGKILL)
        eventually(lambda: supervised.restarts == before + 1, "Triton is started again")
        caller.answers_again()
        ask(client, "double")
    assert (supervised.grpc_address, supervised.models) == (address, models)
    assert not set(leftovers) & set(regions(supervised._server.private.region_prefix))


def test_a_whole_killed_group_comes_back_without_its_leftovers(supervised: EmbeddedTriton) -> None:
    """Also when Triton and all stubs die at once, which leaves their shared memory to nobody."""
    before, leftovers = supervised.restarts, regions(supervised._server.private.region_prefix)
    with supervised.client() as client, Caller(client, "double") as caller:
        os.killpg(supervised.pid, signal.SIGKILL)
        eventually(lambda: supervised.restarts == before + 1, "Triton is started again")
        caller.answers_again()
    assert not set(leftovers) & set(regions(supervised._server.private.region_prefix))


def test_models_that_a_client_unloaded_stay_unloaded_after_a_restart(supervised: EmbeddedTriton) -> None:
    """A restarted server serves what was served before it died, not what it was started with."""
    before = supervised.restarts
    with supervised.client() as client:
        client.unload("double")
        eventually(lambda: supervised._supervisor._models == ("single",), "the supervisor has seen it")
        os.kill(supervised.pid, signal.SIGKILL)
        eventually(lambda: supervised.restarts == before + 1, "Triton is started again")
        with contextlib.suppress(ClientError):
            client.wait_ready(timeout_s=60)
        eventually(lambda: _served(supervised) == ("single",), "what was served before is served again")


def test_a_server_that_cannot_come_back_is_given_up(tmp_path: Path) -> None:
    """When Triton dies whenever it is started, the supervisor says so instead of trying for ever."""
    home = tmp_path / "home"
    home.mkdir()
    for part in _home.find().path.iterdir():
        (home / part.name).symlink_to(part)
    with EmbeddedTriton(write_model(tmp_path / "repository", "identity"), home=home) as triton:
        (home / "bin").unlink()
        os.kill(triton.pid, signal.SIGKILL)
        eventually(lambda: triton.failure, "the supervisor gives up")
        assert "Triton ended by itself by SIGKILL" in str(triton.failure)


def _served(triton: EmbeddedTriton) -> tuple[str, ...]:
    """The models that a server serves; none while it starts."""
    with contextlib.suppress(Unreachable):
        return triton.models
    return ()


def _stub_of(triton: EmbeddedTriton, model: str) -> int:
    stubs = triton._server.process.stubs()
    return next(stub.pid for stub in stubs if not stub.dead and stub.instance.startswith(f"{model}_"))


def _region_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[2]

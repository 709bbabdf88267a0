"""A Python process that dies or freezes behind the gateway costs no request, and is replaced in seconds."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from launcher_helpers import alive, eventually, write_model
from naiad.cli.serve._stack import Stack
from stack_helpers import WHO, Callers, stack

PROMISED_S = 5.0
BUSY = 3.0
"""How much slower than promised a machine that does other things at the same time may be."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas behind the gateway with a model of one process and one of two."""
    repository = write_model(tmp_path_factory.mktemp("dead-stub") / "repository", "single", source=WHO)
    write_model(repository, "double", source=WHO, instances=2)
    with stack(repository) as started:
        yield started


def _num_retries(running: Stack) -> float:
    text = httpx.get(running.gateway.metrics_url).text
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("envoy_cluster_upstream_rq_retry{")
    )


def _stubs(running: Stack, replica: str, model: str) -> set[int]:
    stubs = running.servers[replica]._server.process.stubs()
    return {stub.pid for stub in stubs if not stub.dead and stub.instance.startswith(f"{model}_")}


@pytest.mark.parametrize("model", ["single", "double"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_nobody_notices_and_another_process_answers(
    running: Stack, model: str, number: signal.Signals, record_property: Callable[[str, object], None]
) -> None:
    """While callers keep calling, a process of one replica stops; all are answered, soon by a new process, too."""
    before = _stubs(running, "main-0", model) | _stubs(running, "main-1", model)
    victim = min(_stubs(running, "main-0", model))
    with Callers(running.gateway.grpc_url, model) as callers:
        eventually(lambda: victim in callers.pids(), "the process answers")
        died = time.monotonic()
        os.kill(victim, number)
        eventually(lambda: callers.pids() - before, "a new process answers")
        eventually(lambda: not alive(victim), "the old one is gone")
    first = min(answer.at for answer in callers.answers if answer.pid not in before)
    record_property("replaced_after_s", round(first - died, 2))
    record_property("longest_answer_s", round(max(answer.took_s for answer in callers.answers), 2))
    assert not callers.failures
    assert first - died < BUSY * PROMISED_S
    eventually(lambda: all(r.healthy and r.admitted for r in running.gateway.status().replicas), "both serve again")


def test_nobody_notices_by_http_either(running: Stack) -> None:
    """Of an answer by HTTP only the body tells that a process has died; another replica is asked all the same."""
    victim = min(_stubs(running, "main-0", "single"))
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.0, 0.0]}]}
    statuses: set[int] = set()
    pids: set[int] = set()
    with httpx.Client(base_url=running.gateway.http_url, timeout=30) as client:

        def answered_by(wanted: Callable[[int], bool]) -> bool:
            answer = client.post("/v2/models/single/infer", json=body)
            statuses.add(answer.status_code)
            assert "x-naiad-dead-stub" not in answer.headers
            pids.add(int(answer.json()["outputs"][0]["data"][0]))
            return any(wanted(pid) for pid in pids)

        eventually(lambda: answered_by(lambda pid: pid == victim), "the process answers")
        known = _stubs(running, "main-0", "single") | _stubs(running, "main-1", "single")
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: answered_by(lambda pid: pid not in known), "a new process answers")
    assert statuses == {200}


def test_an_error_of_the_model_itself_leaves_nobody_out(running: Stack) -> None:
    """A request that the model's code refuses is no sign of a dead process: no replica is drained or restarted."""
    restarts = {name: server.restarts for name, server in running.servers.items()}
    stubs = {name: _stubs(running, name, "single") for name in running.servers}
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [-1.0, -1.0]}]}
    retries = _num_retries(running)
    for _ in range(20):
        answer = httpx.post(f"{running.gateway.http_url}/v2/models/single/infer", json=body)
        assert answer.status_code == 500  # time.sleep() refuses a negative time
    assert _num_retries(running) == retries  # it would fail as often as it is computed
    assert {name: server.restarts for name, server in running.servers.items()} == restarts
    assert {name: _stubs(running, name, "single") for name in running.servers} == stubs
    assert all(replica.admitted for replica in running.gateway.status().replicas)

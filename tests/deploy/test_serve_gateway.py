"""`naiad serve --gateway`: replicas behind a gateway, as a user runs and restarts them."""

import concurrent.futures
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from launcher_helpers import IDENTITY, alive, ask, eventually, regions, write_config, write_model, write_version
from naiad.cli.serve import control
from naiad.client import Client, ClientError
from naiad.server import ReplicaLost, RestartStep, find_running
from stack_helpers import NAIAD, WHO, Callers, serving, stack

Served = tuple[subprocess.Popen[str], dict[str, Any]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says who answers, and one that takes its time."""
    path = write_model(tmp_path_factory.mktemp("serve-gateway") / "repository", "who", source=WHO)
    return write_model(path, "identity", source=IDENTITY)


@pytest.fixture(scope="module")
def served(repository: Path) -> Iterator[Served]:
    """A running command, which no test ends."""
    with serving(repository) as (process, printed):
        yield process, printed


def naiad(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run([NAIAD, *arguments], capture_output=True, text=True, timeout=120)


def _processes(printed: dict[str, Any]) -> list[int]:
    return [printed["pid"], *(replica["pid"] for replica in printed["replicas"])]


def test_other_commands_find_it_and_call_through_the_gateway(served: Served) -> None:
    """`naiad infer` goes through the gateway, `naiad top` sees what all replicas do."""
    process, printed = served
    (found,) = find_running(printed["grpc_url"])
    assert (found.pid, len(found.replicas)) == (process.pid, 2)
    done = naiad("infer", "identity", "--url", printed["grpc_url"], "-i", "x=[[0, 0]]", "--json")
    assert (done.returncode, json.loads(done.stdout)["y"]) == (0, [[0.0, 0.0]]), done.stderr
    done = naiad("top", "--url", printed["grpc_url"], "--once", "--json", "-n", "0.5")
    assert {entry["server"] for entry in json.loads(done.stdout)["models"]} == {
        f"grpc://{address}" for address in found.replicas
    }


def test_a_load_test_through_the_gateway_counts_what_all_replicas_did(served: Served) -> None:
    """The server's side of the report is the sum over the replicas, and agrees with what was sent."""
    _, printed = served
    options = ["--users", "2", "--duration", "2s", "--warmup", "0.5s", "--range", "x=0..0", "--json"]
    done = naiad("loadtest", "who", "--url", printed["grpc_url"], *options)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert results["failed"] == 0
    assert results["counted"]["server"] >= results["completed"] > 0


def test_the_announced_key_may_administer_and_nobody_else(served: Served) -> None:
    """Who found the service may load models through the gateway; without the key, it is refused."""
    _, printed = served
    (found,) = find_running(printed["grpc_url"])
    with Client(printed["grpc_url"], admin_secret=found.admin_secret) as client:
        client.load("identity")
    with Client(printed["grpc_url"]) as client, pytest.raises(ClientError):
        client.load("identity")


def test_a_reload_restarts_every_replica_and_loses_nothing(served: Served) -> None:
    """Under load, `naiad serve --reload` puts a new process in every replica's place; nobody's request fails."""
    _, printed = served
    (found,) = find_running(printed["grpc_url"])
    with Callers(printed["grpc_url"], "who") as callers:
        eventually(lambda: len(callers.pids()) == 2, "both replicas answer")
        before = callers.pids()
        done = naiad("serve", "--reload", "--server", printed["grpc_url"])
        eventually(lambda: len(callers.pids() - before) == 2, "both new processes answer")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr
    assert not callers.failures
    (status,) = (answer["status"] for answer in control.ask(found.control, "status"))
    pids = {replica["pid"] for replica in status["replicas"]}
    assert not pids & {replica["pid"] for replica in printed["replicas"]}
    assert all(replica["admitted"] and replica["healthy"] for replica in status["replicas"])


def test_a_second_reload_meanwhile_is_refused(served: Served) -> None:
    """While one is under way, another says so and ends with exit code 1; afterwards it works again."""
    _, printed = served
    (found,) = find_running(printed["grpc_url"])
    first = control.ask(found.control, "reload")
    assert next(first)["step"]["doing"] == "draining"
    done = naiad("serve", "--reload", "--server", printed["grpc_url"])
    assert (done.returncode, "under way already" in done.stderr) == (1, True)
    assert list(first)[-1] == {"ok": True}


def test_only_this_user_may_give_orders(served: Served) -> None:
    """The socket lies where nobody else can reach it, and refuses what it does not understand."""
    _, printed = served
    path = Path(printed["control"])
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with pytest.raises(control.ControlError, match="expected the order status or reload, found 'stop'"):
        list(control.ask(path, "stop"))


def test_a_promotion_under_load_loses_nothing_and_no_replica_goes_back(tmp_path: Path) -> None:
    """Each replica changes to the new version once, without a failed request, and back again at a rollback."""
    repository = write_model(tmp_path / "repository", "who", source=WHO)
    write_version(repository, "who", 2, source=WHO, added=2)
    write_config(repository, "who", policy="specific { versions: [ 1 ] }")
    with (
        stack(repository, triton={"watch": True}) as running,
        Callers(running.gateway.grpc_url, "who") as callers,
    ):
        eventually(lambda: len(callers.pids()) == 2, "both replicas answer")
        for version, added in ((2, 2), (1, 0)):
            before = callers.pids()
            write_config(repository, "who", policy=f"specific {{ versions: [ {version} ] }}")
            eventually(lambda before=before: len(callers.pids() - before) >= 2, f"version {version} answers twice")
            num = len(callers.answers)
            eventually(lambda num=num: len(callers.answers) > num + 50, "more answers")
            assert {answer.added for answer in callers.answers[-30:]} == {added}
    assert not callers.failures


def test_a_replica_that_does_not_come_back_ends_the_reload(tmp_path: Path) -> None:
    """When the first new one does not start, the others are not touched and serve; repaired, it is taken back."""
    repository = write_model(tmp_path / "repository", "who", source=WHO)
    with stack(repository) as running, Callers(running.gateway.grpc_url, "who") as callers:
        eventually(lambda: len(callers.pids()) == 2, "both replicas answer")
        other = running.servers["main-1"].pid
        (repository / "who" / "1" / "model.py").write_text("class Broken(")
        with pytest.raises(ReplicaLost, match=r"main-0 did not come back.*main-1 serve") as raised:
            running.reload()
        assert (raised.value.replica, running.servers["main-1"].pid) == ("main-0", other)
        num = len(callers.answers)
        eventually(lambda: len(callers.answers) > num + 20, "the other serves")
        assert [r.name for r in running.gateway.status().replicas if not r.admitted] == ["main-0"]
        (repository / "who" / "1" / "model.py").unlink()
        write_model_file(repository)
        before = callers.pids()
        steps: list[RestartStep] = []
        running.reload(steps.append)
        assert [step.replica for step in steps if step.doing == "serving"] == ["main-0", "main-1"]
        eventually(lambda: len(callers.pids() - before) == 2, "both serve")
    assert not callers.failures


def write_model_file(repository: Path) -> None:
    """Put the broken model's file back."""
    whole = write_model(repository.parent / "whole", "who", source=WHO)
    (whole / "who" / "1" / "model.py").rename(repository / "who" / "1" / "model.py")


def test_ctrl_c_lets_requests_finish_and_leaves_nothing(repository: Path) -> None:
    """The gateway takes no more, what is in flight is answered, and no process, file or announcement stays."""
    with (
        serving(repository) as (process, printed),
        Client(printed["grpc_url"]) as client,
        concurrent.futures.ThreadPoolExecutor(2) as callers,
    ):
        answers = [callers.submit(ask, client, "identity", 1.0) for _ in range(2)]
        eventually(lambda: _in_flight(printed) == 2, "both requests are in flight")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert [answer.result().tolist() for answer in answers] == [[[1.0, 1.0]]] * 2
    assert "Traceback" not in said
    assert not any(map(alive, _processes(printed)))
    assert not find_running(printed["grpc_url"])
    assert not Path(printed["control"]).parent.exists()


def test_a_second_ctrl_c_ends_it_at_once(repository: Path) -> None:
    """While it waits for a request that takes long, another Ctrl-C ends command, gateway and replicas."""
    with (
        serving(repository, "--drain-timeout", "120") as (process, printed),
        Client(printed["grpc_url"]) as client,
        concurrent.futures.ThreadPoolExecutor(1) as callers,
    ):
        answer = callers.submit(ask, client, "identity", 100.0)
        eventually(lambda: _in_flight(printed) == 1, "the request is in flight")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        eventually(lambda: "in flight may finish" in process.stderr.readline(), "it drains")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert isinstance(answer.exception(), ClientError)
    assert process.returncode == 130
    assert "Traceback" not in said
    eventually(lambda: not any(map(alive, _processes(printed))), "everything has ended")


def test_a_killed_command_leaves_nothing(repository: Path) -> None:
    """After kill -9 no process, shared memory, directory or announcement stays."""
    with serving(repository) as (process, printed):
        prefixes = [_region_prefix(replica["pid"]) for replica in printed["replicas"]]
        private = [Path(printed[name]).parent for name in ("control", "log_path")]
        private += [Path(replica["log_path"]).parent for replica in printed["replicas"]]
        process.kill()
        process.wait()
        eventually(lambda: not any(map(alive, _processes(printed))), "every process ends")
        eventually(lambda: not any(path.exists() for path in private), "every directory goes")
        eventually(lambda: not any(map(regions, prefixes)), "the shared memory goes")
        assert not find_running(printed["grpc_url"])


def test_a_killed_replica_is_replaced_on_its_ports_without_a_failed_request(tmp_path: Path) -> None:
    """After kill -9 of one tritonserver the other answers, and a new one comes back behind the same gateway."""
    with stack(write_model(tmp_path / "repository", "who", source=WHO)) as running:
        server = running.servers["main-0"]
        prefix, address, leftovers = (
            _region_prefix(server.pid),
            server.grpc_address,
            regions(_region_prefix(server.pid)),
        )
        with Callers(running.gateway.grpc_url, "who") as callers:
            eventually(lambda: len(callers.pids()) == 2, "both replicas answer")
            before = callers.pids()
            os.kill(server.pid, signal.SIGKILL)
            eventually(lambda: callers.pids() - before, "a new one answers")
        assert not callers.failures
        assert (server.grpc_address, server.restarts) == (address, 1)
        assert leftovers
        assert not set(leftovers) & set(regions(prefix))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replicas", "2"], "add --gateway"),
        (["--gateway", "--grpc-port", "8001"], "name --port instead"),
        (["--gateway", "--service", "absent.toml"], "does not exist"),
        (["--host", "0.0.0.0"], "the embedded Triton has no TLS"),
        (["--gateway", "--host", "0.0.0.0"], "Expected a service with TLS and identity"),
        (["--reload", "--server", "grpc://127.0.0.1:1"], "expected a running"),
    ],
)
def test_wrong_use_gives_one_message(repository: Path, arguments: list[str], message: str) -> None:
    """What makes no sense, or is not safe, is refused before anything starts."""
    done = naiad("serve", str(repository), *arguments)
    said = " ".join(done.stderr.replace("│", " ").split())
    assert (done.returncode, message in said, "Traceback" in said) == (2, True, False), done.stderr


def _in_flight(printed: dict[str, Any]) -> int:
    answers = control.ask(printed["control"], "status")
    return sum(replica["num_in_flight"] for replica in next(answers)["status"]["replicas"])


def _region_prefix(pid: int) -> str:
    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return next(text.rpartition("=")[2] for text in arguments if "shm-region-prefix-name=" in text)


def test_metrics_are_those_of_the_gateway(served: Served) -> None:
    """What is printed as metrics answers Prometheus."""
    assert "envoy_" in httpx.get(served[1]["metrics_url"]).text

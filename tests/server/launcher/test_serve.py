"""The command `naiad serve`, as a user runs it."""

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from launcher_helpers import IDENTITY, alive, ask, eventually, num_pending, write_config, write_version
from naiad.client import Client, ClientError
from naiad.server import EmbeddedTriton, _home, find_running

NAIAD = str(Path(sys.executable).with_name("naiad"))
FREE_PORTS = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]


@contextlib.contextmanager
def serving(
    repository: Path, *options: str, ports: Sequence[str] = FREE_PORTS
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A running `naiad serve --json`, and what it printed."""
    command = [NAIAD, "serve", str(repository), "--json", *ports, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_it_serves_until_it_is_asked_to_stop(identity_repository: Path, number: signal.Signals) -> None:
    """A signal lets a request in flight finish, then the command ends with exit code 0 and leaves no process."""
    with serving(identity_repository) as (process, printed), Client(printed["grpc_url"]) as client:
        (found,) = find_running(printed["grpc_url"])
        assert found.pid == process.pid
        with concurrent.futures.ThreadPoolExecutor(2) as callers:
            answers = [callers.submit(ask, client, "identity", 0.5) for _ in range(2)]
            eventually(lambda: num_pending(printed["metrics_url"]), "one request runs, one waits")
            process.send_signal(number)
            _, said = process.communicate()
    assert process.returncode == 0
    assert [answer.result().tolist() for answer in answers] == [[[0.5, 0.5]]] * 2
    assert "requests in flight may finish" in said
    assert "Traceback" not in said
    assert not alive(printed["pid"])
    assert not find_running(printed["grpc_url"])


def test_a_second_ctrl_c_ends_it_at_once(identity_repository: Path) -> None:
    """While it waits for a request that takes long, another Ctrl-C ends command and server."""
    with (
        serving(identity_repository, "--drain-timeout", "120") as (process, printed),
        Client(printed["grpc_url"]) as client,
        concurrent.futures.ThreadPoolExecutor(2) as callers,
    ):
        answers = [callers.submit(ask, client, "identity", 100.0) for _ in range(2)]
        eventually(lambda: num_pending(printed["metrics_url"]), "one request runs, one waits")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        eventually(lambda: "in flight may finish" in process.stderr.readline(), "it drains")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert all(isinstance(answer.exception(), ClientError) for answer in answers)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert not alive(printed["pid"])


def test_it_follows_promotions_and_tells_other_commands_the_secret(tmp_path: Path) -> None:
    """A running server can be administered by whoever finds it, and serves what config.pbtxt says."""
    repository = tmp_path / "my models"
    write_version(repository, "promoted", 1, source=IDENTITY)
    write_config(repository, "promoted")
    with serving(repository) as (_, printed):
        (found,) = find_running(repository=repository)
        with Client(found.grpc_address, admin_secret=found.admin_secret) as client:
            assert [model.name for model in client.models()] == ["promoted"]
            write_version(repository, "promoted", 2, added=2)
            write_config(repository, "promoted", policy="specific { versions: [ 2 ] }")
            eventually(lambda: ask(client, "promoted")[0, 0] == 2.0, "version 2 answers")
        assert printed["models"] == ["promoted"]


def test_without_named_ports_two_can_run_at_once(identity_repository: Path) -> None:
    """The usual ports are taken where they are free, others where they are not."""
    with (
        serving(identity_repository, ports=()) as (_, first),
        serving(identity_repository, ports=()) as (_, second),
        Client(first["grpc_url"]) as one,
        Client(second["grpc_url"]) as other,
    ):
        assert first["grpc_url"] != second["grpc_url"]
        assert ask(one, "identity").tolist() == ask(other, "identity").tolist()


def test_people_get_a_table(identity_repository: Path) -> None:
    """Without --json the addresses are printed one a line, and the log goes where it should."""
    command = [NAIAD, "serve", str(identity_repository), *FREE_PORTS, "--models", "identity"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(5)]
        process.terminate()
        process.communicate()
    assert [line[0] for line in lines] == ["gRPC", "HTTP", "metrics", "models", "log"]
    assert lines[3][1] == "identity"
    assert process.returncode == 0


def test_a_killed_command_is_not_found_any_more(identity_repository: Path) -> None:
    """After kill -9, nobody finds the server, and its secret does not stay on the disk."""
    with serving(identity_repository) as (process, printed):
        process.kill()
        process.wait()
        eventually(lambda: not alive(printed["pid"]), "Triton ends")
        assert not find_running(printed["http_url"])


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["nowhere"], "Expected a model repository", 2),
        ([".", "--models", "absent"], "Expected model 'absent'", 2),
        ([".", "--grpc-port", "70000"], "Expected a port between", 2),
        ([".", "--gpus", "some"], "Expected gpus to be", 2),
        ([".", "--cuda-memory-pool", "much"], "expected a size such as 512MB", 2),
    ],
)
def test_wrong_use_gives_one_message(tmp_path: Path, arguments: list[str], message: str, code: int) -> None:
    """Wrong arguments give exit code 2 and one message on stderr, without a traceback."""
    done = subprocess.run([NAIAD, "serve", *FREE_PORTS, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_gives_one_message(identity_repository: Path, triton: EmbeddedTriton) -> None:
    """A port on which another server listens is refused with exit code 1."""
    port = triton.http_url.rpartition(":")[2]
    command = [NAIAD, "serve", str(identity_repository), *FREE_PORTS, "--http-port", port]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, f"Port {port} on 127.0.0.1" in done.stderr) == (1, True)


def test_a_new_home_and_a_read_only_cache_are_no_obstacle(identity_repository: Path, tmp_path: Path) -> None:
    """With a cache that cannot be written it still serves, from a private directory that it names in a warning."""
    instead = tmp_path / f"naiad-cache-{os.getuid()}"
    instead.mkdir(mode=0o700)
    numpy = _home.find_numpy()
    (instead / numpy.name).symlink_to(numpy)
    environment = {**os.environ, "NAIAD_TRITON_HOME": str(_home.find().path), "TMPDIR": str(tmp_path)}
    environment |= {"NAIAD_CACHE_DIR": "/proc/no/cache", "HOME": "/nonexistent"}
    command = [NAIAD, "serve", str(identity_repository), "--json", *FREE_PORTS]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        printed = json.loads(process.stdout.readline())
        process.terminate()
        _, said = process.communicate()
    assert printed["models"] == ["identity"]
    assert "cannot be written; using" in " ".join(said.split())

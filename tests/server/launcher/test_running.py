"""A server that runs undisturbed."""

import http.client
import json
import multiprocessing
import socket
from pathlib import Path

import psutil
import pytest

from launcher_helpers import ask, regions, write_model
from naiad.client import Client, ClientError
from naiad.server import EmbeddedTriton, InvalidOption, NotRunning, PortInUse, ServerError


def test_it_serves_every_model_of_a_repository_whose_path_has_spaces(triton: EmbeddedTriton) -> None:
    """The models of the repository answer as soon as the `with` block is entered."""
    with triton.client() as client:
        assert ask(client, "identity", 0.25).tolist() == [[0.25, 0.25]]
    assert triton.models == ("identity",)


def test_it_listens_on_loopback_only(triton: EmbeddedTriton) -> None:
    """gRPC, HTTP and metrics are bound to 127.0.0.1 and to nothing else."""
    listening = [c.laddr for c in psutil.Process(triton.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    urls = (triton.grpc_url, triton.http_url, triton.metrics_url.removesuffix("/metrics"))
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == {int(url.rpartition(":")[2]) for url in urls}


@pytest.mark.parametrize("path", ["repository/index", "repository/models/identity/load", "logging", "trace/setting"])
def test_http_administration_needs_the_secret(triton: EmbeddedTriton, path: str) -> None:
    """The restricted HTTP APIs answer 403 without the secret."""
    assert _http_status(triton, path, {}) == 403
    assert _http_status(triton, path, {"admin-key": "guessed"}) == 403


def test_grpc_administration_needs_the_secret(triton: EmbeddedTriton) -> None:
    """Without the secret a client may infer, but not load or unload."""
    with Client(triton.grpc_url) as stranger, pytest.raises(ClientError):
        ask(stranger, "identity")
        stranger.unload("identity")
    with Client(triton.admin_url) as owner:
        assert [model.name for model in owner.models()] == ["identity"]


def test_the_secret_is_not_for_everybody_to_read(triton: EmbeddedTriton) -> None:
    """Other users of the machine can list processes: the secret is neither in the arguments nor in the log."""
    arguments = Path(f"/proc/{triton.pid}/cmdline").read_text()
    assert "admin-key=***" in arguments
    assert triton.admin_secret not in arguments
    assert triton.admin_secret not in triton.log_path.read_text()


def test_a_second_server_does_not_disturb_the_first(triton: EmbeddedTriton, tmp_path: Path) -> None:
    """Two servers run at once; stopping one removes nothing of the other."""
    with EmbeddedTriton(write_model(tmp_path / "repository", "other")) as second:
        with second.client() as client:
            assert ask(client, "other", 0.0).tolist() == [[0.0, 0.0]]
        assert second.grpc_address != triton.grpc_address
    with triton.client() as client:
        assert ask(client, "identity", 0.0).tolist() == [[0.0, 0.0]]
    assert len(regions(triton._server.private.region_prefix)) == len(triton.stub_pids()) == 1


def test_a_taken_port_is_refused_before_anything_starts(triton: EmbeddedTriton, identity_repository: Path) -> None:
    """A named port on which another program listens gives an error that names it."""
    port = int(triton.grpc_address.rpartition(":")[2])
    with pytest.raises(PortInUse, match=f"Port {port} on 127.0.0.1") as caught:
        EmbeddedTriton(identity_repository, grpc_port=port).start()
    assert caught.value.port == port


@pytest.mark.parametrize("service", ["grpc", "http", "metrics"])
def test_a_port_that_is_taken_while_triton_starts_is_named(identity_repository: Path, service: str) -> None:
    """Where another program is quicker, the start fails with the port instead of a server without that service."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=f"Port {port} was taken") as caught:
            EmbeddedTriton(identity_repository, models=[], extra_args=[f"--{service}-port={port}"]).start()
    assert caught.value.port == port


def test_the_same_port_twice_is_wrong_use(identity_repository: Path) -> None:
    """gRPC and HTTP cannot share a port."""
    with pytest.raises(InvalidOption, match="different ports"):
        EmbeddedTriton(identity_repository, grpc_port=23456, http_port=23456).start()


def test_a_stopped_server_says_so(identity_repository: Path) -> None:
    """Addresses exist only while the server runs."""
    with pytest.raises(NotRunning, match=r"start\(\)"):
        _ = EmbeddedTriton(identity_repository).grpc_url


def test_the_response_cache_answers_equal_requests(tmp_path: Path) -> None:
    """With a cache, and a model that asks for it, the second equal request is not executed."""
    repository = write_model(tmp_path / "repository", "cached")
    with open(repository / "cached" / "config.pbtxt", "a") as config:
        config.write("response_cache { enable: true }\n")
    with EmbeddedTriton(repository, response_cache_bytes=1 << 20) as cached, cached.client() as client:
        answers = [ask(client, "cached", 0.25).tolist() for _ in range(3)]
        (statistics,) = client.statistics("cached")
    assert answers == [[[0.25, 0.25]]] * 3
    assert (statistics.execution_count, statistics.cache_hit.count) == (1, 2)


def test_a_forked_child_does_not_stop_its_parents_server(triton: EmbeddedTriton) -> None:
    """A process forked from the owner leaves the server alone when it ends."""
    child = multiprocessing.get_context("fork").Process(target=triton.stop)
    child.start()
    child.join()
    assert child.exitcode == 0
    with triton.client() as client:
        assert ask(client, "identity", 0.0).tolist() == [[0.0, 0.0]]


def test_the_working_directory_holds_no_module(triton: EmbeddedTriton) -> None:
    """The stub imports from the server's working directory first, so that is empty and private."""
    directory = Path(f"/proc/{triton.pid}/cwd").readlink()
    assert list(directory.iterdir()) == []
    assert directory.parent.stat().st_mode & 0o777 == 0o700


def test_nothing_of_our_environment_leaks_in(triton: EmbeddedTriton) -> None:
    """The server's environment is built from scratch."""
    names = {line.partition("=")[0] for line in Path(f"/proc/{triton.pid}/environ").read_text().split("\0")}
    assert not names & {"PYTHONPATH", "PYTEST_CURRENT_TEST", "VIRTUAL_ENV", "PWD"}


def test_the_log_can_be_read(triton: EmbeddedTriton) -> None:
    """The end of Triton's log is at hand, with the paths that the user knows."""
    assert "Started GRPCInferenceService" in triton.log_tail(5)
    assert "<EmbeddedTriton" in repr(triton)


def test_its_own_errors_have_one_root() -> None:
    """Every error of the room is a `ServerError`."""
    assert issubclass(PortInUse, ServerError)


def _http_status(triton: EmbeddedTriton, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", int(triton.http_url.rpartition(":")[2]), timeout=10)
    try:
        connection.request("POST", f"/v2/{path}", body=json.dumps({}), headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()

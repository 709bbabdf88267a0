"""The gateway's process: started, drained, repaired, changed while it runs, and gone without a trace."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from deploy_helpers import endpoint
from launcher_helpers import alive, ask, eventually
from naiad.client import TLS, Client, ClientError, Retry
from naiad.deploy._envoy import reaper
from naiad.deploy.certificates import install_server_certificate, make_authority, make_server_certificate
from naiad.deploy.errors import DeployError, GatewayError, ToolMissing
from naiad.deploy.gateway import Gateway, running_gateways
from naiad.deploy.place import Endpoint
from naiad.deploy.service import Canary, Limits, Pool, Rights, Service
from naiad.server import EmbeddedTriton

OPEN = Service(tls=False, anonymous=Rights(infer=("*",), observe=("*",)))
Tritons = tuple[EmbeddedTriton, EmbeddedTriton]

PARENT = """
import sys, time
from naiad.deploy.gateway import Gateway
from naiad.deploy.place import Endpoint
from naiad.deploy.service import Service
gateway = Gateway(Service(tls=False), endpoints={"main": [Endpoint(name="main-0", host="127.0.0.1", grpc_port=9)]})
gateway.start()
print(gateway.pid, gateway.log_path.parent, flush=True)
time.sleep(600)
"""


@pytest.fixture
def endpoints(tritons: Tritons) -> dict[str, list[Endpoint]]:
    return {"main": [endpoint(f"main-{number}", triton) for number, triton in enumerate(tritons)]}


@pytest.fixture(scope="module")
def shared(tritons: Tritons) -> Iterator[Gateway]:
    """A gateway for tests that leave it as they found it."""
    members = {"main": [endpoint(f"main-{number}", triton) for number, triton in enumerate(tritons)]}
    with Gateway(OPEN, endpoints=members) as gateway:
        yield gateway


def answers(gateway: Gateway, value: float = 0.0) -> bool:
    with Client(gateway.grpc_url) as client:
        return bool((ask(client, "identity", value) == np.float32(value)).all())


def left_of(directory: Path) -> list[object]:
    return [*reaper.processes_in(directory), *([directory] if directory.exists() else [])]


class Callers:
    """Threads that ask all the time, and note what went wrong."""

    def __init__(self, url: str, num_threads: int = 4) -> None:
        self.errors: list[str] = []
        self.num_answers = 0
        self._url = url
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(num_threads)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        with Client(self._url, retry=Retry(attempts=1)) as client:
            while not self._stopping.is_set():
                try:
                    ask(client, "identity")
                    self.num_answers += 1
                except ClientError as exc:
                    self.errors.append(str(exc))

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def await_answers(self, number: int) -> None:
        wanted = self.num_answers + number
        eventually(lambda: self.num_answers >= wanted or self.errors, f"{number} more answers")


@contextmanager
def calling(gateway: Gateway) -> Iterator[Callers]:
    callers = Callers(gateway.grpc_url)
    try:
        callers.await_answers(20)
        yield callers
    finally:
        callers.stop()


def num_requests(gateway: Gateway) -> Mapping[str, int]:
    return {replica.name: replica.num_requests for replica in gateway.status().replicas}


def test_it_answers_grpc_and_http_on_one_port_when_start_returns(shared: Gateway) -> None:
    """There is nothing to wait for after `start`."""
    assert answers(shared)
    assert urlsplit(shared.grpc_url).port == urlsplit(shared.http_url).port
    assert httpx.get(f"{shared.http_url}/v2/health/ready").status_code == 200
    assert "envoy_" in httpx.get(shared.metrics_url).text


def test_its_status_counts_requests_and_sees_the_replicas(shared: Gateway) -> None:
    """Every replica is healthy, admitted, and one of them answered the request."""
    before = sum(num_requests(shared).values())
    assert answers(shared)
    status = shared.status()
    assert status.ok
    assert status.certificate_days is None
    assert [replica.name for replica in status.replicas] == ["main-0", "main-1"]
    assert sum(num_requests(shared).values()) > before


def test_its_status_counts_what_never_reached_a_replica(endpoints: dict[str, list[Endpoint]]) -> None:
    """A path that does not exist, a model that may not be seen, one request too many; an answer of Triton is none."""
    service = Service(tls=False, anonymous=Rights(infer=("identity",)), anonymous_requests_per_s=10)
    with Gateway(service, endpoints=endpoints) as gateway, httpx.Client(base_url=gateway.http_url) as client:
        statuses = [client.get(path).status_code for path in ("/metrics", "/v2/models/other", "/v2", "/healthz")]
        assert statuses == [404, 403, 200, 200]
        eventually(lambda: client.get("/v2").status_code == 429, "a request is one too many")

        def adds_up() -> bool:
            told = gateway.status()
            reached = sum(replica.num_requests for replica in told.replicas)
            return told.num_refused >= 3 and told.num_refused + reached == told.num_requests - 1  # but /healthz

        eventually(adds_up, "every request was refused, or sent to a replica")


def test_others_of_the_same_user_find_it(shared: Gateway) -> None:
    """What runs here is told with its addresses and its status."""
    found = next(each for each in running_gateways() if each.grpc_url == shared.grpc_url)
    assert found.pid == os.getpid()
    assert found.status().ok


def test_only_its_user_may_administer_it(shared: Gateway) -> None:
    """The directory with the socket and the configuration is closed to others."""
    assert shared.log_path.parent.stat().st_mode & 0o777 == 0o700


def test_a_drained_replica_gets_nothing_and_no_request_is_lost(shared: Gateway) -> None:
    """Under load one after the other is taken out and back in, and nobody notices."""
    with calling(shared) as callers:
        for name in ("main-0", "main-1"):
            assert shared.drain(name)
            before = num_requests(shared)[name]
            callers.await_answers(50)
            assert num_requests(shared)[name] == before
            assert not next(each for each in shared.status().replicas if each.name == name).admitted
            shared.admit(name)
        callers.await_answers(50)
    assert callers.errors == []


def test_draining_waits_for_requests_in_flight_and_says_if_they_did_not_finish(shared: Gateway) -> None:
    """False while the replica still works on a request, true once it does not."""
    assert shared.drain("main-1")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(answers, shared, 1.5)
        eventually(lambda: shared.active_requests("main-0"), "a request in flight")
        assert not shared.drain("main-0", timeout_s=0.1)
        assert shared.drain("main-0", timeout_s=30.0)
        assert slow.result()
    shared.admit("main-0")
    shared.admit("main-1")


def test_unknown_replicas_are_refused_with_the_known_names(shared: Gateway) -> None:
    """A wrong name changes nothing."""
    for call in (shared.drain, shared.admit, shared.active_requests):
        with pytest.raises(GatewayError, match=r"main-0, main-1.*'main-7'"):
            call("main-7")


def test_another_description_counts_at_once(shared: Gateway) -> None:
    """A right that is taken away is gone when `reload` returns, and back after the next."""
    shared.reload(replace(OPEN, anonymous=None))
    with pytest.raises(ClientError):
        answers(shared)
    shared.reload(OPEN)
    assert answers(shared)


def test_pools_come_and_go_under_load(shared: Gateway, tritons: Tritons) -> None:
    """A canary's pool is added and removed, and no request is lost."""
    members = {**shared.endpoints, "next": [endpoint("next-0", tritons[1])]}
    pools = (*OPEN.pools, Pool(name="next"))
    before = shared.endpoints
    with calling(shared) as callers:
        shared.reload(replace(OPEN, pools=pools, canary=Canary(pool="next", weight_percent=50.0)), members)
        eventually(lambda: num_requests(shared)["next-0"] > 20, "requests to the canary")
        shared.reload(OPEN, before)
        callers.await_answers(50)
    assert callers.errors == []
    assert set(num_requests(shared)) == {"main-0", "main-1"}


def test_what_envoy_refuses_is_reported_and_the_old_stays(shared: Gateway) -> None:
    """A port that is none is refused with Envoy's reason; requests are answered, and the next change is taken."""
    before = shared.endpoints
    with calling(shared) as callers:
        with pytest.raises(GatewayError, match="65535"):
            shared.replace(replace(before["main"][0], grpc_port=99_999))
        assert shared.endpoints == before
        callers.await_answers(50)
        assert shared.drain("main-0")
        shared.admit("main-0")
    assert callers.errors == []


def test_what_takes_a_restart_is_refused_before_anything_changes(shared: Gateway) -> None:
    """Envoy reads its bootstrap once."""
    with pytest.raises(GatewayError, match="restart of the gateway"):
        shared.reload(replace(OPEN, anonymous=None, limits=Limits(memory_mb=4096)))
    assert answers(shared)


def test_a_replica_that_moved_is_found_at_its_new_address(endpoints: dict[str, list[Endpoint]]) -> None:
    """One that could not be reached gets requests once its address is right."""
    right = endpoints["main"][0]
    with Gateway(OPEN, endpoints={"main": [replace(right, grpc_port=9, http_port=9)]}) as gateway:
        assert not gateway.status().ok
        with pytest.raises(GatewayError, match="main-0 to answer health checks"):
            gateway.admit("main-0", timeout_s=0.1)
        gateway.replace(right)
        gateway.admit("main-0")
        assert gateway.status().ok
        assert answers(gateway)


def test_it_leaves_nothing_behind(endpoints: dict[str, list[Endpoint]]) -> None:
    """No process, no directory, no shared memory."""
    before = set(os.listdir("/dev/shm"))
    with Gateway(OPEN, endpoints=endpoints) as gateway:
        directory, pid = gateway.log_path.parent, gateway.pid
        assert answers(gateway)
        assert not {name for name in set(os.listdir("/dev/shm")) - before if "envoy" in name}
    assert left_of(directory) == []
    assert not alive(pid)


def test_stopping_lets_requests_in_flight_finish(endpoints: dict[str, list[Endpoint]]) -> None:
    """The answer arrives, and new connections are refused meanwhile."""
    gateway = Gateway(OPEN, endpoints=endpoints).start()
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(answers, gateway, 2.0)
        eventually(lambda: gateway.active_requests("main-0") + gateway.active_requests("main-1"), "a request")
        port = urlsplit(gateway.http_url).port
        stopping = pool.submit(gateway.stop)
        eventually(lambda: refused(port), "the port is closed")
        assert not slow.done()
        assert slow.result()
        stopping.result()


def refused(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port or 0)) != 0


def test_stopping_does_not_wait_longer_than_it_was_told(endpoints: dict[str, list[Endpoint]]) -> None:
    """A request that takes longer than the drain is cut off, and nothing is left."""
    gateway = Gateway(OPEN, endpoints=endpoints, drain_timeout_s=0.2).start()
    directory = gateway.log_path.parent
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(answers, gateway, 3.0)
        eventually(lambda: gateway.active_requests("main-0") + gateway.active_requests("main-1"), "a request")
        gateway.stop()
        with pytest.raises(ClientError):
            slow.result()
    assert left_of(directory) == []


def test_an_envoy_that_dies_is_started_again_on_the_same_port(endpoints: dict[str, list[Endpoint]]) -> None:
    """Callers that try again notice nothing but a pause."""
    with Gateway(OPEN, endpoints=endpoints) as gateway:
        url, pid = gateway.grpc_url, gateway.pid
        assert gateway.drain("main-0")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: gateway.restarts == 1, "a restart")
        assert gateway.grpc_url == url
        assert gateway.pid != pid
        assert answers(gateway)
        assert gateway.failure is None
        assert [replica.admitted for replica in gateway.status().replicas] == [False, True]
        gateway.admit("main-0")


def test_an_envoy_that_cannot_come_back_is_given_up(
    endpoints: dict[str, list[Endpoint]], envoy: Path, tmp_path: Path
) -> None:
    """After several attempts the reason is told, and stopping still works."""
    program = tmp_path / "an envoy"
    program.write_text(f'#!/bin/sh\nexec "{envoy}" "$@"\n')
    program.chmod(0o755)
    with Gateway(OPEN, endpoints=endpoints, envoy=program) as gateway:
        directory = gateway.log_path.parent
        beside = tmp_path / "beside"
        beside.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
        beside.chmod(0o755)
        beside.replace(program)
        os.kill(gateway.pid, signal.SIGKILL)
        eventually(lambda: gateway.failure, "giving up")
        assert "it is broken" in str(gateway.failure)
    assert left_of(directory) == []


def test_nothing_survives_a_parent_that_was_killed() -> None:
    """The watchdog ends Envoy and removes the directory."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pid, _, directory = parent.stdout.readline().strip().partition(" ")
        assert alive(int(pid))
    finally:
        parent.kill()
        parent.communicate()
    eventually(lambda: not alive(int(pid)) and left_of(Path(directory)) == [], "nothing is left")


def test_a_port_that_is_taken_is_named(shared: Gateway, endpoints: dict[str, list[Endpoint]]) -> None:
    """A second gateway does not share the first one's port, neither for callers nor for metrics."""
    before = own_directories()
    for option, url in (("port", shared.http_url), ("metrics_port", shared.metrics_url)):
        port = urlsplit(url).port
        with pytest.raises(GatewayError, match=f"Port {port} on 127.0.0.1 cannot be used"):
            Gateway(OPEN, endpoints=endpoints, **{option: port}).start()  # type: ignore[arg-type]
    assert own_directories() == before
    assert answers(shared)


def own_directories() -> list[Path]:
    """Of the gateways of this process; others may run here."""
    return [each.admin.parent for each in running_gateways() if each.pid == os.getpid()]


def test_places_with_spaces_are_fine(endpoints: dict[str, list[Endpoint]], tmp_path: Path) -> None:
    """Secrets and the access log may lie anywhere."""
    secrets, access_log = tmp_path / "the secrets", tmp_path / "the log of requests.jsonl"
    authority = install(secrets)
    with Gateway(replace(OPEN, tls=True), endpoints=endpoints, secrets=secrets, access_log=access_log) as gateway:
        with Client(gateway.grpc_url, tls=TLS(root_certificates=authority)) as client:
            ask(client, "identity")
        eventually(lambda: '"identity"' in access_log.read_text(), "a line in the access log")
        days = gateway.status().certificate_days
        assert days is not None
        assert days > 0


def install(secrets: Path) -> Path:
    """A new certificate in the directory, from an authority of its own, whose file is returned."""
    secrets.mkdir(exist_ok=True)
    (secrets / "api-keys").touch()
    authority = make_authority()
    install_server_certificate(secrets, make_server_certificate(authority, ["localhost", "127.0.0.1"]))
    path = secrets / f"authority-{authority.fingerprint[:8]}.crt"
    path.write_bytes(authority.certificate_pem)
    return path


def test_a_new_certificate_needs_no_restart(endpoints: dict[str, list[Endpoint]], tmp_path: Path) -> None:
    """It is served soon after it is in its place, by the same process; open connections go on."""
    authority = install(tmp_path)
    with Gateway(replace(OPEN, tls=True), endpoints=endpoints, secrets=tmp_path) as gateway:
        address = ("127.0.0.1", urlsplit(gateway.http_url).port or 0)
        pid, former = gateway.pid, ssl.get_server_certificate(address)
        with Client(gateway.grpc_url, tls=TLS(root_certificates=authority)) as client:
            ask(client, "identity")
            newer = install(tmp_path)
            eventually(lambda: ssl.get_server_certificate(address) != former, "the new certificate")
            ask(client, "identity")
        with Client(gateway.grpc_url, tls=TLS(root_certificates=newer)) as client:
            ask(client, "identity")
        assert gateway.pid == pid


def test_what_envoy_refuses_at_its_start_is_told(endpoints: dict[str, list[Endpoint]], tmp_path: Path) -> None:
    """A key that is not the certificate's keeps it from starting; the reason comes at once, and nothing is left."""
    install(tmp_path)
    certificate = (tmp_path / "tls.crt").read_bytes()
    install(tmp_path)
    (tmp_path / "tls.crt").unlink()
    (tmp_path / "tls.crt").write_bytes(certificate)
    started, before = time.monotonic(), own_directories()
    with pytest.raises(GatewayError, match="KEY_VALUES_MISMATCH"):
        Gateway(replace(OPEN, tls=True), endpoints=endpoints, secrets=tmp_path, ready_timeout_s=60.0).start()
    assert time.monotonic() - started < 30
    assert own_directories() == before


def test_a_certificate_that_is_none_is_named(endpoints: dict[str, list[Endpoint]], tmp_path: Path) -> None:
    """The file is looked at before anything starts."""
    install(tmp_path)
    (tmp_path / "tls.crt").unlink()
    (tmp_path / "tls.crt").write_text("no certificate")
    with pytest.raises(DeployError, match=r"tls\.crt"):
        Gateway(replace(OPEN, tls=True), endpoints=endpoints, secrets=tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"secrets": "/nowhere/at all"}, "directory with secrets"),
        ({"access_log": "/proc/nobody/may.write"}, "access log"),
        ({"access_log": "/tmp"}, "access log"),
        ({"port": 70_000}, "65535"),
        ({"port": 4444, "metrics_port": 4444}, "different ports"),
        ({"drain_timeout_s": -1.0}, "drain_timeout_s"),
        ({"num_threads": 0}, "num_threads"),
        ({"endpoints": {}}, "none of main"),
        ({"endpoints": {"other": [Endpoint(name="a", host="127.0.0.1")]}}, "pools main"),
        ({"endpoints": {"main": [Endpoint(name="a", host="127.0.0.1")] * 2}}, "name of its own"),
        ({"service": replace(OPEN, tls=True)}, "tls.crt, tls.key"),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(
    endpoints: dict[str, list[Endpoint]], options: dict[str, object], said: str
) -> None:
    """The message says what was expected."""
    with pytest.raises(GatewayError, match=said):
        Gateway(**{"service": OPEN, "endpoints": endpoints, **options})  # type: ignore[arg-type]


def test_without_envoy_it_says_how_to_get_it(endpoints: dict[str, list[Endpoint]], tmp_path: Path) -> None:
    """A program that cannot be run is named."""
    with pytest.raises(ToolMissing, match="nothing here"):
        Gateway(OPEN, endpoints=endpoints, envoy=tmp_path / "nothing here").start()


def test_before_its_start_and_after_its_stop_it_says_so(endpoints: dict[str, list[Endpoint]]) -> None:
    """Stopping twice is no error, asking is."""
    gateway = Gateway(OPEN, endpoints=endpoints)
    gateway.stop()
    with pytest.raises(GatewayError, match="not running"):
        gateway.status()
    with gateway:
        assert answers(gateway)
    gateway.stop()
    with pytest.raises(GatewayError, match="not running"):
        _ = gateway.grpc_url


def test_changes_from_several_threads_do_not_undo_each_other(shared: Gateway) -> None:
    """Each finds what the one before it left."""
    names = [endpoint.name for endpoint in shared.endpoints["main"]]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            assert list(pool.map(shared.drain, names)) == [True, True]
            assert [replica.admitted for replica in shared.status().replicas] == [False, False]
            list(pool.map(shared.admit, names))
            assert [replica.admitted for replica in shared.status().replicas] == [True, True]

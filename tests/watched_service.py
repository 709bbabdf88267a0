"""A service under load whose monitoring looks every second: whatever a rule or a panel asks for happens in it."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np

from deploy_helpers import endpoint
from launcher_helpers import write_model
from monitoring_stack import Prometheus, Told, alertmanager, free_address, prometheus, webhook
from naiad.client import TLS, Client, ClientError, Retry
from naiad.deploy._files import write_all
from naiad.deploy.certificates import Certificate, install_server_certificate, make_authority, make_server_certificate
from naiad.deploy.gateway import Gateway
from naiad.deploy.keys import KeyFile
from naiad.deploy.monitoring import Pace, Targets, render_monitoring
from naiad.deploy.service import Canary, Identity, Objective, Pool, Rights, Service
from naiad.server import EmbeddedTriton

SERVICE = Service(
    identities=(
        Identity(name="caller", rights=Rights(infer=("*",), observe=("*",))),
        Identity(name="limited", rights=Rights(infer=("steady",)), requests_per_s=1, burst=1),
    ),
    pools=(Pool(name="main", num_replicas=2), Pool(name="next")),
    canary=Canary(pool="next", weight_percent=25, models=("steady",)),
    objectives=(Objective(model="flaky", p99_ms=200, error_percent=1),),
)
TARGETS = Targets(endpoints={})
"""For what a rendering says that does not depend on addresses."""
NO_KEY = "naiad_" + "x" * 43
PACE = Pace(scrape_s=1, evaluate_s=1, patience=1 / 60, group_wait_s=0.2, group_interval_s=1)
FLAKY = """
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
            if any(x.max() > 0 for x in inputs):
                raise ValueError("on purpose")
            return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]) for x in inputs]
"""


@dataclass
class Watched:
    """All of it, running."""

    folder: Path
    servers: dict[str, EmbeddedTriton]
    gateway: Gateway
    keys: dict[str, str]
    authority: Certificate
    prometheus: Prometheus
    alertmanager: str
    told: Told

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    def client(self, key: str) -> Client:
        """A caller by gRPC that repeats nothing."""
        trust = TLS(root_certificates=self.folder / "authority.crt")
        return Client(self.gateway.grpc_url, tls=trust, metadata={"x-api-key": key}, retry=Retry(attempts=1))

    def inhibited(self, name: str) -> bool:
        """Whether Alertmanager keeps an alert to itself because another explains it."""
        alerts = httpx.get(f"http://{self.alertmanager}/api/v2/alerts", timeout=5).json()
        return any(alert["labels"]["alertname"] == name and alert["status"]["inhibitedBy"] for alert in alerts)


@contextmanager
def watched_service(folder: Path) -> Iterator[Watched]:
    """Three replicas, the gateway, what watches them, and callers of every kind."""
    repository = write_models(folder / "models")
    with ExitStack() as stack:
        servers = {name: EmbeddedTriton(repository, supervise=False, response_cache_bytes=1 << 20) for name in NAMES}
        for server in servers.values():
            stack.enter_context(server)
        authority, keys = write_secrets(folder)
        replicas = {name: endpoint(name, server) for name, server in servers.items()}
        endpoints = {"main": (replicas["main-0"], replicas["main-1"]), "next": (replicas["next-0"],)}
        log = folder / "access.log"
        gateway = stack.enter_context(
            Gateway(SERVICE, endpoints=endpoints, secrets=folder / "secrets", access_log=log, num_threads=1)
        )
        told = stack.enter_context(webhook())
        addresses = {"prometheus": free_address(), "alertmanager": free_address()}
        metrics = httpx.URL(gateway.metrics_url).netloc.decode()
        targets = Targets(endpoints=endpoints, gateway=metrics, webhook_url=told.url, pace=PACE, **addresses)
        write_all(folder, render_monitoring(SERVICE, targets))
        stack.enter_context(alertmanager(folder, addresses["alertmanager"]))
        watching = stack.enter_context(prometheus(folder, addresses["prometheus"]))
        watched = Watched(folder, servers, gateway, keys, authority, watching, addresses["alertmanager"], told)
        stack.enter_context(callers(watched))
        yield watched


NAMES = ("main-0", "main-1", "next-0")


def write_models(repository: Path) -> Path:
    """Models that answer, that answer from the cache, that are slow, and that raise for what is above zero."""
    settings = {"steady": "dynamic_batching { }", "cached": "response_cache { enable: true }", "slow": "", "flaky": ""}
    for name, setting in settings.items():
        write_model(repository, name, **({"source": FLAKY} if name == "flaky" else {}))
        config = repository / name / "config.pbtxt"
        config.write_text(f"{config.read_text()}\n{setting}\n")
    return repository


def write_secrets(folder: Path) -> tuple[Certificate, dict[str, str]]:
    """A certificate that is good for 90 days, and a key for each identity."""
    secrets = folder / "secrets"
    secrets.mkdir()
    authority = make_authority()
    (folder / "authority.crt").write_bytes(authority.certificate_pem)
    install_server_certificate(secrets, make_server_certificate(authority, ["127.0.0.1"]))
    (secrets / "triton-admin-key").write_text("none of them needs it\n")
    keys = KeyFile(secrets / "api-keys")
    return authority, {identity.name: keys.add(identity.name) for identity in SERVICE.identities}


@contextmanager
def callers(watched: Watched) -> Iterator[None]:
    """Calls of every kind by gRPC and by HTTP, a few dozen a second, until the end."""
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(watched, stop)) for work in (_by_grpc, _by_http, _without_right)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _by_grpc(watched: Watched, stop: threading.Event) -> None:
    with ExitStack() as stack:
        caller, limited, stranger = (
            stack.enter_context(watched.client(key)) for key in (*watched.keys.values(), NO_KEY)
        )
        calls = (
            [(caller, "steady", 0)] * 6 + [(caller, "cached", 0)] * 2 + [(caller, "slow", 0), (stranger, "steady", 0)]
        )
        calls += [(caller, "flaky", 0)] * 2 + [(caller, "flaky", 1)]
        calls += [(limited, "flaky", 0), (limited, "steady", 0), (limited, "steady", 0)]
        _again_and_again(stop, [partial(_infer, *call) for call in calls])


def _by_http(watched: Watched, stop: threading.Event) -> None:
    with httpx.Client(base_url=watched.gateway.http_url, verify=_trust(watched), timeout=10) as http:
        keys = {**watched.keys, "nobody": NO_KEY}
        calls = [("caller", "steady", 0), ("caller", "flaky", 1), ("nobody", "steady", 0)]
        calls += [("limited", "flaky", 0), ("limited", "steady", 0), ("limited", "steady", 0)]
        _again_and_again(stop, [partial(_post, http, keys[who], model, value) for who, model, value in calls])


def _without_right(watched: Watched, stop: threading.Event) -> None:
    """Many: an alert is about so many a second, over five minutes of which the test has seen a few seconds."""
    with httpx.Client(base_url=watched.gateway.http_url, verify=_trust(watched), timeout=10) as http:
        calls = [(NO_KEY, "steady"), (watched.keys["limited"], "flaky")]
        _again_and_again(stop, [partial(_post, http, key, model, 0) for key, model in calls], pause_s=0.005)


def _again_and_again(stop: threading.Event, calls: list[Callable[[], None]], pause_s: float = 0.02) -> None:
    while not stop.is_set():
        for call in calls:
            with suppress(ClientError, httpx.HTTPError):
                call()
            if stop.wait(pause_s):
                return


def _infer(client: Client, model: str, value: int) -> None:
    client.infer(model, {"x": np.full((1, 2), value, np.float32)}, timeout_s=5)


def _post(http: httpx.Client, key: str, model: str, value: int) -> None:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [value, value]}
    http.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]}, headers={"x-api-key": key})


def _trust(watched: Watched) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(watched.folder / "authority.crt"))

"""The audit on real servers: careless ones, careful ones, and what is no Triton at all."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from audit_helpers import Files, loose_triton, server_context, tls_proxy, write_certificate
from deploy_helpers import endpoint
from launcher_helpers import eventually
from naiad.deploy.audit import Finding, Severity, audit
from naiad.deploy.errors import InvalidTarget
from naiad.deploy.gateway import Gateway
from naiad.deploy.keys import KeyFile
from naiad.deploy.service import Identity, Limits, Rights, Service
from naiad.server import EmbeddedTriton

Tritons = tuple[EmbeddedTriton, EmbeddedTriton]
EMBEDDED = {
    "identity": "low",
    "metrics": "low",
    "observing": "low",
    "process-response-pool": "low",
    "request-size": "low",
    "tls": "low",
    "version": "medium",
}
"""What is true of the embedded server, which only this machine reaches."""
AS_USER = {"process-user", "process-privileges", "process-core-dumps"}
"""Depends on who runs the tests, and in what."""


def port(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


def bad(findings: Sequence[Finding]) -> dict[str, str]:
    """What is not well, but for what depends on who runs the tests."""
    wrong = [finding for finding in findings if finding.severity.at_least(Severity.LOW)]
    return {finding.id: str(finding.severity) for finding in wrong if finding.id not in AS_USER}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "naiad.cli", "audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("protocol", ["gRPC", "HTTP"])
def test_of_the_embedded_server_it_finds_what_is_true(tritons: Tritons, protocol: str):
    """Too old for others than this machine, which cannot reach it; the same over both protocols."""
    server = tritons[0]
    url, other = (server.grpc_url, server.http_url) if protocol == "gRPC" else (server.http_url, server.grpc_url)
    findings = audit(url, ports=(port(other), port(server.metrics_url)))
    assert bad(findings) == EMBEDDED
    assert {finding.where for finding in findings if finding.id == "process-control-mode"} == {f"process {server.pid}"}


def test_with_the_secret_it_sees_more_and_changes_nothing(tritons: Tritons):
    """Loading is open to the administrator alone; the models stay as they are."""
    server = tritons[0]
    with server.client() as client:
        before = client.models()
    findings = audit(server.admin_url, ports=())
    with server.client() as client:
        assert client.models() == before
        assert client.ready()
    assert bad(findings) == {name: severity for name, severity in EMBEDDED.items() if name != "metrics"}
    control = next(finding for finding in findings if finding.id == "model-control")
    assert control.found == "models can be loaded with this credential, and not without"
    assert "identity" in next(finding.found for finding in findings if finding.id == "identity")


def test_a_careless_server_is_found_out(tmp_path: Path):
    """Model control for everybody, a secret in `ps`, a repository that everybody may write, metrics for all."""
    repository = tmp_path / "repository"
    repository.mkdir()
    repository.chmod(0o777)
    with loose_triton(repository) as server:
        findings = audit(f"grpc://127.0.0.1:{server.grpc}", ports=(server.http, server.metrics))
        assert bad(findings) == EMBEDDED | {
            "model-control": "critical",
            "shared-memory": "high",
            "trace-and-log": "high",
            "process-addresses": "high",
            "process-control-mode": "high",
            "process-repository": "high",
            "process-secrets": "medium",
            "process-strictness": "low",
        }
        done = run("--server", f"http://127.0.0.1:{server.http}", "--json", "--large-request-mb", "0")
    assert done.returncode == 1
    found = {finding["id"]: finding["severity"] for finding in json.loads(done.stdout)["findings"]}
    assert found["model-control"] == "critical"
    assert found["request-size"] == "unknown"


def test_without_model_control_loading_is_absent(tmp_path: Path):
    """With `none`, Triton refuses to load whoever asks."""
    (tmp_path / "repository").mkdir()
    arguments = ("--model-control-mode=none", "--exit-on-error=false")
    with loose_triton(tmp_path / "repository", *arguments) as server:
        findings = audit(f"http://127.0.0.1:{server.http}", ports=())
    control = next(finding for finding in findings if finding.id == "model-control")
    assert (control.severity, control.found) == ("ok", "models cannot be loaded")


SERVICE = Service(
    identities=(
        Identity(name="caller", rights=Rights(infer=("identity",)), requests_per_s=1000),
        Identity(name="watcher", rights=Rights(observe=("*",))),
    ),
    limits=Limits(request_mb=8),
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Who signs certificates here."""
    return write_certificate(tmp_path_factory.mktemp("ca") / "authority", names=("authority",))


@pytest.fixture(scope="module")
def gateway(
    tritons: Tritons, authority: Files, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gateway, dict[str, str], Path]]:
    """A gateway with TLS and identities in front of both servers; its keys; its secrets."""
    files = write_certificate(tmp_path_factory.mktemp("gateway") / "secrets", issuer=authority)
    secrets = files.certificate.parent
    secrets.chmod(0o700)
    ends = datetime.now(UTC).date() + timedelta(days=30)
    keys = {who.name: KeyFile(secrets / "api-keys").add(who.name, expires=ends) for who in SERVICE.identities}
    endpoints = {"main": [endpoint(f"main-{number}", server) for number, server in enumerate(tritons)]}
    with Gateway(SERVICE, endpoints=endpoints, secrets=secrets) as running:
        yield running, keys, secrets


def test_of_a_gateway_with_tls_and_identities_it_finds_nothing_but_what_is_true(
    gateway: tuple[Gateway, dict[str, str], Path], authority: Files
):
    """The servers behind it are too old; the rest is well, by either protocol."""
    running, keys, _ = gateway
    for url in (running.grpc_url, running.http_url):
        findings = audit(url, secret=keys["watcher"], root_certificates=authority.certificate, ports=())
        assert bad(findings) == {"version": "medium", "process-response-pool": "low"}
        pids = {finding.where for finding in findings if finding.id == "process-control-mode"}
        assert len(pids) == 2  # both servers behind it
        well = {finding.id for finding in findings if finding.severity is Severity.OK}
        assert {"tls", "certificate", "identity", "unknown-key", "request-size", "model-control", "metrics"} <= well


def test_without_a_credential_a_gateway_tells_nothing(gateway: tuple[Gateway, dict[str, str], Path], authority: Files):
    """Not even a version; that is said, and is no failure."""
    running, _, _ = gateway
    findings = audit(running.grpc_url, root_certificates=authority.certificate, ports=())
    assert next(finding for finding in findings if finding.id == "version").severity is Severity.UNKNOWN
    assert bad(findings) == {"process-response-pool": "low"}


def test_a_credential_is_not_shown_to_a_server_that_is_not_believed(gateway: tuple[Gateway, dict[str, str], Path]):
    """Without the authority anybody could be there."""
    running, keys, _ = gateway
    findings = {finding.id: finding for finding in audit(running.grpc_url, secret=keys["watcher"], ports=())}
    assert findings["certificate"].severity is Severity.HIGH
    assert "was not shown" in findings["credential"].found
    assert findings["version"].severity is Severity.UNKNOWN


def test_an_impostor_gets_no_credential(tritons: Tritons, authority: Files, tmp_path: Path):
    """Nothing of it crosses the line to a server that vouches for itself; a believed one gets it."""
    secret, seen, shown = tritons[0].admin_secret, bytearray(), bytearray()
    upstream = port(tritons[0].http_url)
    with tls_proxy(server_context(write_certificate(tmp_path / "impostor")), upstream, seen) as proxy:
        audit(f"https://127.0.0.1:{proxy}", secret=secret, root_certificates=authority.certificate, ports=())
    genuine = server_context(write_certificate(tmp_path / "genuine", issuer=authority))
    with tls_proxy(genuine, upstream, shown) as proxy:
        audit(f"https://127.0.0.1:{proxy}", secret=secret, root_certificates=authority.certificate, ports=())
    assert b"/v2/repository/index" in seen
    assert secret.encode() not in seen
    assert secret.encode() in shown


def test_ports_past_the_gateway_are_found(
    gateway: tuple[Gateway, dict[str, str], Path], authority: Files, tritons: Tritons
):
    """Triton's own, and metrics, with neither TLS nor identity."""
    running, keys, _ = gateway
    beside = (port(tritons[0].grpc_url), port(tritons[0].http_url), port(running.metrics_url))
    findings = audit(running.grpc_url, secret=keys["watcher"], root_certificates=authority.certificate, ports=beside)
    assert bad(findings).items() >= {"direct-ports": "medium", "metrics": "low", "identity": "low"}.items()


def test_the_command_says_it_all(gateway: tuple[Gateway, dict[str, str], Path], authority: Files, tmp_path: Path):
    """Key, authority, description and secrets by their options; reports for CI; the exit code."""
    running, keys, secrets = gateway
    (tmp_path / "key").write_text(keys["watcher"] + "\n")
    (tmp_path / "service.toml").write_text('[anonymous]\ninfer = ["*"]\n')
    arguments = [
        "--server", running.http_url, "--api-key-file", str(tmp_path / "key"), "--ca", str(authority.certificate),
        "--service", str(tmp_path / "service.toml"), "--secrets", str(secrets),
        "--junit", str(tmp_path / "audit.xml"), "--sarif", str(tmp_path / "audit.sarif"),
    ]  # fmt: skip
    done = run(*arguments)
    assert done.returncode == 1, done.stderr
    assert " HIGH  service-anonymous" in done.stdout
    assert "fix  take [anonymous] out" in done.stdout
    assert "service-anonymous" in (tmp_path / "audit.xml").read_text()
    assert "service-anonymous" in (tmp_path / "audit.sarif").read_text()
    assert run(*arguments, "--fail-on", "critical").returncode == 0
    assert not {path.name for path in tmp_path.iterdir()} - {"key", "service.toml", "audit.xml", "audit.sarif"}


@pytest.mark.parametrize(
    ("certificate", "context", "expected"),
    [
        ({}, {}, {}),
        ({"days": 20}, {}, {"certificate-expiry": "medium"}),
        ({"days": 3}, {}, {"certificate-expiry": "high"}),
        ({"days": -1}, {}, {"certificate-expiry": "critical", "certificate": "high"}),
        ({"names": ("example.org",)}, {}, {"certificate": "high"}),
        ({"issuer": None}, {}, {"certificate": "high"}),
        ({"bits": 1024}, {"weak": True},
         {"certificate-strength": "high", "certificate": "high", "tls-versions": "high", "tls-ciphers": "medium"}),
    ],
    ids=["good", "20-days", "3-days", "ended", "other-name", "self-signed", "weak"],
)  # fmt: skip
def test_certificates_and_protocols_are_judged(
    tritons: Tritons, authority: Files, tmp_path: Path, certificate: dict, context: dict, expected: dict[str, str]
):
    """With a real handshake for each."""
    files = write_certificate(tmp_path / "tls", **({"issuer": authority} | certificate))
    with tls_proxy(server_context(files, **context), port(tritons[0].http_url)) as proxy:
        findings = audit(
            f"https://127.0.0.1:{proxy}", root_certificates=authority.certificate, ports=(), large_request_mb=0
        )
    of_tls = {name: severity for name, severity in bad(findings).items() if name.startswith(("tls", "certificate"))}
    assert of_tls == expected


def test_a_client_certificate_counts_as_identity(tritons: Tritons, authority: Files, tmp_path: Path):
    """Without one the audit says which option is missing; with one it goes on."""
    files = write_certificate(tmp_path / "tls", issuer=authority)
    mine = write_certificate(tmp_path / "mine", issuer=authority)
    with tls_proxy(server_context(files, clients=authority), port(tritons[0].http_url)) as proxy:
        url = f"https://127.0.0.1:{proxy}"
        with pytest.raises(InvalidTarget, match="give --cert and --key"):
            audit(url, root_certificates=authority.certificate, ports=())
        shown = {
            "root_certificates": authority.certificate, "certificate_chain": mine.certificate, "private_key": mine.key
        }  # fmt: skip
        findings = {finding.id: finding for finding in audit(url, **shown, ports=(), large_request_mb=0)}
    assert findings["identity"].found == "callers need a client certificate"


def test_a_file_that_is_no_certificate_is_named(tritons: Tritons, authority: Files, tmp_path: Path):
    """Not taken for a server that does not answer."""
    (tmp_path / "ca.crt").write_text("hello")
    with pytest.raises(InvalidTarget, match=r"certificates of authorities as PEM in .*ca\.crt"):
        audit(tritons[0].http_url, root_certificates=tmp_path / "ca.crt", ports=())
    other = write_certificate(tmp_path / "other").key
    with pytest.raises(InvalidTarget, match="a client certificate and its key"):
        audit(tritons[0].http_url, certificate_chain=authority.certificate, private_key=other, ports=())


def test_envoys_administration_is_recognised(envoy: Path, tritons: Tritons, tmp_path: Path):
    """On a port of its own, as Envoy's documentation starts it."""
    path = tmp_path / "admin.address"
    (tmp_path / "envoy.yaml").write_text("admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n")
    command = [envoy, "-c", tmp_path / "envoy.yaml", "--use-dynamic-base-id", "-l", "off", "--admin-address-path", path]
    process = subprocess.Popen(command)
    try:
        eventually(lambda: path.exists() and path.read_text().strip(), "Envoy's administration answers")
        admin = int(path.read_text().rpartition(":")[2])
        findings = {finding.id: finding for finding in audit(tritons[0].grpc_url, ports=(admin,), large_request_mb=0)}
    finally:
        process.kill()
        process.wait()
    assert findings["gateway-administration"].severity is Severity.HIGH
    assert str(admin) in findings["gateway-administration"].found


class Page(BaseHTTPRequestHandler):
    """A web page that has nothing to do with Triton."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"hello": "world"}')

    def log_message(self, *args: object) -> None:
        pass


def test_what_is_no_triton_is_said_to_be_none():
    """A web server, by either protocol."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        for scheme in ("http", "grpc"):
            with pytest.raises(InvalidTarget, match="found something else"):
                audit(f"{scheme}://127.0.0.1:{server.server_port}", ports=(), timeout_s=1)
        server.shutdown()
        thread.join()


def test_a_port_that_never_answers_is_given_up():
    """After the time that was given."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = run("--server", f"http://127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.3")
    assert done.returncode == 2
    assert "found something else" in done.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("grpc://127.0.0.1:1", "nobody answers at 127.0.0.1:1"),
        ("ftp://127.0.0.1", "expected a URL like"),
        ("http://no-such-host.invalid", "expected a host that has an address"),
    ],
)
def test_a_wrong_address_is_wrong_use(url: str, said: str):
    """Exit code 2, and one line."""
    done = run("--server", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr

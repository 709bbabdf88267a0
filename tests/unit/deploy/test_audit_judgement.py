"""What an audit makes of the facts: each check finds what is wrong, and nothing where all is well."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from naiad.deploy._audit import requests
from naiad.deploy._audit.answer import Answer, Probe, Reach, expected_header, grpc_answer, http_answer
from naiad.deploy._audit.arguments import Arguments
from naiad.deploy._audit.finding import Finding, Severity
from naiad.deploy._audit.judge_processes import judge_process
from naiad.deploy._audit.judge_server import judge_server
from naiad.deploy._audit.judge_transport import judge_transport
from naiad.deploy._audit.processes import ProcessFacts, Repository
from naiad.deploy._audit.requests import REQUESTS
from naiad.deploy._audit.survey import OpenPort, Survey, why_withheld
from naiad.deploy._audit.target import Target
from naiad.deploy._audit.tls import TlsFacts

NOBODY = grpc_answer("UNAUTHENTICATED", "no credential")
READY = http_answer(200, "")
FINE = grpc_answer("OK", "", {"version": "2.71.0"})


@cache
def key(kind: str = "ec"):
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, int(kind))


def certificate(*, days: float = 90, kind: str = "ec", issuer: str = "authority"):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    vouching = name if issuer == "gateway" else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
    now = datetime.now(UTC)
    began, ends = now - timedelta(days=400), now + timedelta(days=days)
    builder = x509.CertificateBuilder(vouching, name, key(kind).public_key(), 1, began, ends)
    return builder.sign(key(kind), hashes.SHA256())


TLS = TlsFacts(
    version="TLSv1.3", certificate=certificate(), distrust=None, old_versions=(), untested_versions=(),
    static_rsa=False, wants_client_certificate=False,
)  # fmt: skip
TARGET = Target(host="192.0.2.1", port=8443, secure=True, speaks_http=False, secret="key")
SAFE = Survey(
    target=TARGET,
    tls=TLS,
    withheld=None,
    probes=tuple(
        Probe(api=r.api, over="gRPC", anonymous=NOBODY, authorised=READY if r.api == requests.READY else FINE)
        for r in REQUESTS
    ),
    open_models=(),
    wrong_key=NOBODY,
    large=grpc_answer("RESOURCE_EXHAUSTED", "too large"),
    ports=(),
    beside=(),
    metrics_here=False,
)


def judged(seen: Survey) -> dict[str, Severity]:
    """What is not well."""
    findings = [*judge_server(seen), *judge_transport(seen)]
    assert all(finding.why and finding.fix for finding in findings if finding.severity.at_least(Severity.LOW))
    return {finding.id: finding.severity for finding in findings if finding.severity is not Severity.OK}


def opened(*apis: str, answer: Answer = FINE) -> Survey:
    """The safe one, but these APIs answer everybody."""
    return replace(SAFE, probes=tuple(replace(p, anonymous=answer) if p.api in apis else p for p in SAFE.probes))


def with_tls(**facts) -> Survey:
    return replace(SAFE, tls=replace(TLS, **facts))


def test_a_safe_gateway_has_no_findings():
    """TLS, a believed certificate, identities, limits, nothing beside it, every fix."""
    assert judged(SAFE) == {}


@pytest.mark.parametrize(
    ("seen", "check", "severity"),
    [
        (opened(requests.LOAD), "model-control", Severity.CRITICAL),
        (opened(requests.UNLOAD), "model-control", Severity.CRITICAL),
        (opened(requests.LOAD, answer=grpc_answer("INTERNAL", "failed to load")), "model-control", Severity.CRITICAL),
        (opened(requests.SYSTEM_MEMORY), "shared-memory", Severity.HIGH),
        (opened(requests.CUDA_MEMORY), "shared-memory", Severity.HIGH),
        (opened(requests.TRACE), "trace-and-log", Severity.HIGH),
        (opened(requests.LOG), "trace-and-log", Severity.HIGH),
        (opened(requests.INDEX), "observing", Severity.MEDIUM),
        (opened(requests.STATISTICS), "observing", Severity.MEDIUM),
        (opened(requests.INFER, answer=grpc_answer("NOT_FOUND", "unknown model")), "identity", Severity.HIGH),
        (replace(SAFE, open_models=("digits",)), "identity", Severity.HIGH),
        (replace(SAFE, wrong_key=FINE), "unknown-key", Severity.CRITICAL),
        (replace(SAFE, wrong_key=None), "unknown-key", Severity.UNKNOWN),
        (replace(SAFE, large=grpc_answer("NOT_FOUND", "unknown model")), "request-size", Severity.MEDIUM),
        (replace(SAFE, large=None), "request-size", Severity.UNKNOWN),
        (replace(SAFE, large=grpc_answer("DEADLINE_EXCEEDED", "")), "request-size", Severity.UNKNOWN),
        (opened(requests.TRACE, answer=grpc_answer("UNAUTHENTICATED", "see /opt/tritonserver/x.cc:12")),
         "error-messages", Severity.LOW),
        (opened(requests.READY, answer=http_answer(503, "")), "health", Severity.OK),
        (replace(SAFE, tls=None), "tls", Severity.HIGH),
        (with_tls(distrust="unable to get local issuer certificate"), "certificate", Severity.HIGH),
        (with_tls(distrust="self-signed", certificate=certificate(issuer="gateway")), "certificate", Severity.HIGH),
        (with_tls(certificate=certificate(days=20)), "certificate-expiry", Severity.MEDIUM),
        (with_tls(certificate=certificate(days=3)), "certificate-expiry", Severity.HIGH),
        (with_tls(certificate=certificate(days=-1)), "certificate-expiry", Severity.CRITICAL),
        (with_tls(certificate=certificate(kind="1024")), "certificate-strength", Severity.HIGH),
        (with_tls(old_versions=("TLS 1.1",)), "tls-versions", Severity.HIGH),
        (with_tls(untested_versions=("TLS 1.0",)), "tls-versions", Severity.UNKNOWN),
        (with_tls(static_rsa=True), "tls-ciphers", Severity.MEDIUM),
        (replace(SAFE, withheld="no TLS"), "credential", Severity.UNKNOWN),
        (replace(SAFE, ports=(OpenPort(port=8001, what="triton-grpc"),)), "direct-ports", Severity.CRITICAL),
        (replace(SAFE, ports=(OpenPort(port=8000, what="triton-http"),)), "direct-ports", Severity.CRITICAL),
        (replace(SAFE, ports=(OpenPort(port=8002, what="metrics"),)), "metrics", Severity.MEDIUM),
        (replace(SAFE, metrics_here=True), "metrics", Severity.MEDIUM),
        (replace(SAFE, ports=(OpenPort(port=9901, what="envoy-admin"),)), "gateway-administration", Severity.CRITICAL),
    ],
)  # fmt: skip
def test_each_weakness_is_found(seen, check, severity):
    """And nothing else with it."""
    assert judged(seen) == ({check: severity} if severity is not Severity.OK else {})


@pytest.mark.parametrize(
    ("host", "tls", "withheld"),
    [
        ("192.0.2.1", TLS, None),
        ("192.0.2.1", None, "there is no TLS"),
        ("192.0.2.1", replace(TLS, distrust="self-signed"), "is not believed"),
        ("127.0.0.1", None, None),
        ("127.0.0.1", replace(TLS, distrust="self-signed"), "is not believed"),
    ],
)
def test_a_credential_is_shown_only_where_nobody_else_can_read_it(host, tls, withheld):
    """Over TLS to a server that is believed, or within this machine; without a secret there is nothing to withhold."""
    reason = why_withheld(replace(TARGET, host=host), tls)
    assert (reason is None) if withheld is None else (withheld in (reason or ""))
    assert why_withheld(replace(TARGET, host=host, secret=None), tls) is None


def test_a_port_of_something_else_is_nobodys_business():
    """Only what belongs to the deployment counts."""
    assert judged(replace(SAFE, ports=(OpenPort(port=8000, what="other"),))) == {}


def test_a_server_that_is_not_ready_is_found():
    """Where it says so."""
    probes = tuple(
        Probe(api=p.api, over="HTTP", anonymous=http_answer(503, "")) if p.api == requests.READY else p
        for p in SAFE.probes
    )
    assert judged(replace(SAFE, probes=probes)) == {"health": Severity.MEDIUM}


def test_what_is_open_on_a_port_beside_counts_as_open():
    """Restricting one protocol of Triton's and not the other is the usual mistake."""
    beside = (Probe(api=requests.LOAD, over="Triton's HTTP at 192.0.2.1:8000", anonymous=http_answer(500, "failed")),)
    assert judged(replace(SAFE, beside=beside)) == {"model-control": Severity.CRITICAL}


def test_a_client_certificate_is_an_identity():
    """Nobody without one comes as far as a request."""
    seen = replace(opened(requests.INFER, answer=grpc_answer("NOT_FOUND", "unknown model")),
                   tls=replace(TLS, wants_client_certificate=True))  # fmt: skip
    assert judged(seen) == {}


def test_on_loopback_what_only_this_machine_reaches_weighs_less():
    """What runs code weighs the same."""
    local = replace(opened(requests.LOAD, requests.INDEX), target=replace(TARGET, host="127.0.0.1"), tls=None)
    assert judged(local) == {
        "model-control": Severity.CRITICAL, "observing": Severity.LOW, "tls": Severity.LOW,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "reach"),
    [
        (grpc_answer("OK", ""), Reach.OPEN),
        (grpc_answer("INTERNAL", "failed to load 'x', failed to poll from model repository"), Reach.OPEN),
        (grpc_answer("UNAVAILABLE", "This protocol is restricted, expecting header 'triton-grpc-protocol-k'"),
         Reach.REFUSED),
        (grpc_answer("UNAVAILABLE", "explicit model load / unload is not allowed if polling is enabled"), Reach.ABSENT),
        (grpc_answer("UNAVAILABLE", "Socket closed"), Reach.SILENT),
        (grpc_answer("UNIMPLEMENTED", ""), Reach.ABSENT),
        (grpc_answer("PERMISSION_DENIED", ""), Reach.REFUSED),
        (http_answer(200, "restricted, expecting header 'x'"), Reach.OPEN),
        (http_answer(400, "explicit model load / unload is not allowed"), Reach.ABSENT),
        (http_answer(403, "This API is restricted, expecting header 'admin-key'"), Reach.REFUSED),
        (http_answer(404, "Request for unknown model: 'x' is not found"), Reach.OPEN),
        (http_answer(404, "Not Found"), Reach.ABSENT),
        (http_answer(413, ""), Reach.REFUSED),
        (http_answer(500, "failed"), Reach.OPEN),
        (http_answer(503, ""), Reach.SILENT),
    ],
)  # fmt: skip
def test_an_answer_tells_how_far_a_request_came(answer, reach):
    """In both protocols, with Triton's own words for what it restricts."""
    assert answer.reach is reach


def test_triton_names_the_header_that_it_wants():
    """Its name is the operator's choice."""
    assert expected_header(http_answer(403, "This API is restricted, expecting header 'admin-key'")) == "admin-key"
    assert expected_header(NOBODY) is None


WRITABLE = Repository(path="/models", writable=True, others=False)
CONFINED = ProcessFacts(
    pid=1, uid=1000,
    arguments=Arguments(["--disable-auto-complete-config", "--grpc-max-response-pool-size=64"]),
    capabilities=0, no_new_privileges=True, seccomp=True, core_dumps=False, contained=True, listens_beyond=(),
    repositories=(Repository(path="/models", writable=False, others=False),),
)  # fmt: skip


def process(facts: ProcessFacts) -> dict[str, Severity]:
    findings: list[Finding] = list(judge_process(facts))
    return {finding.id: finding.severity for finding in findings if finding.severity is not Severity.OK}


def test_a_confined_process_has_no_findings():
    """As docker-compose.yml starts it."""
    assert process(CONFINED) == {}


@pytest.mark.parametrize(
    ("change", "check", "severity"),
    [
        ({"uid": 0}, "process-user", Severity.HIGH),
        ({"capabilities": 1 << 21}, "process-privileges", Severity.MEDIUM),
        ({"no_new_privileges": False}, "process-privileges", Severity.LOW),
        ({"seccomp": False}, "process-privileges", Severity.LOW),
        ({"core_dumps": True}, "process-core-dumps", Severity.LOW),
        ({"listens_beyond": ("0.0.0.0:8000",)}, "process-addresses", Severity.HIGH),
        ({"repositories": (WRITABLE,)}, "process-repository", Severity.MEDIUM),
        ({"repositories": (replace(WRITABLE, writable=False, others=True),)}, "process-repository", Severity.HIGH),
    ],
)  # fmt: skip
def test_each_weakness_of_a_process_is_found(change, check, severity):
    """And nothing else with it."""
    assert process(replace(CONFINED, **change)) == {check: severity}

"""Gathers the facts of a running deployment, from outside."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from naiad.deploy._audit.answer import Answer, Probe, Reach
from naiad.deploy._audit.requests import INDEX, METADATA, READY, REQUESTS, Request
from naiad.deploy._audit.rpc import Rpc
from naiad.deploy._audit.target import Target, addresses_of, join
from naiad.deploy._audit.tls import TlsFacts, check_files, look_at_tls
from naiad.deploy._audit.web import Web
from naiad.deploy.errors import InvalidTarget

Progress = Callable[[str], None]
_WRONG_KEY: Final = "naiad_" + "A" * 43
_CONNECT_S: Final = 1.0
_MAX_MODELS: Final = 32
_WORDS: Final = {
    "triton-http": "Triton's HTTP",
    "triton-grpc": "Triton's gRPC",
    "metrics": "metrics",
    "envoy-admin": "Envoy's administration",
    "prometheus": "Prometheus",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenPort:
    """A port of the host that answers, and as what."""

    port: int
    what: str
    """`triton-http`, `triton-grpc`, `metrics`, `envoy-admin`, `prometheus`, `other`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What was seen from outside."""

    target: Target
    tls: TlsFacts | None
    withheld: str | None
    """Why the credential was not shown; None if it was, or there is none."""
    probes: tuple[Probe, ...]
    open_models: tuple[str, ...]
    """Models that answer callers without a credential."""
    wrong_key: Answer | None
    """What a key says that nobody has; None where no key is needed."""
    large: Answer | None
    ports: tuple[OpenPort, ...]
    beside: tuple[Probe, ...]
    """What Triton's own ports said to callers without a credential, where they are open beside the audited one."""
    metrics_here: bool
    """Whether the audited port itself answers with metrics."""

    def probe(self, api: str, over: str | None = None) -> Probe | None:
        """What an API said, over the protocol that let more through."""
        found = [probe for probe in self.probes if probe.api == api and over in (None, probe.over)]
        return min(found, key=lambda probe: list(Reach).index(probe.best.reach), default=None)

    @property
    def gateway(self) -> bool:
        """Whether something in front of Triton decides who may call."""
        return any(probe.anonymous.status in {"UNAUTHENTICATED", "401"} for probe in self.probes)

    @property
    def version(self) -> str | None:
        """Triton's version, where it tells."""
        probe = self.probe(METADATA)
        body = probe.best.body if probe else None
        told = body.get("version") if isinstance(body, dict) else getattr(body, "version", None)
        return str(told) if told else None


def survey(target: Target, progress: Progress = lambda _: None) -> Survey:
    """Look at a deployment. Raises: `InvalidTarget` where nobody answers, or not as Triton does."""
    check_files(target)
    addresses_of(target.host)
    progress("TLS")
    tls = _tls(target)
    distrusted = tls is not None and tls.distrust is not None
    withheld = why_withheld(target, tls)
    shown = None if withheld else target.secret
    with (
        Rpc(target, secure=tls is not None, pinned=tls.certificate if tls and distrusted else None) as rpc,
        Web(target, secure=tls is not None) as web,
    ):
        speakers = [speaker for speaker in (rpc, web) if _speaks(speaker, target)]
        if not speakers:
            raise _nobody(target, tls, rpc, web)
        progress("APIs")
        probes = tuple(_probe(speaker, request, shown) for speaker in speakers for request in REQUESTS)
        progress("models, limits")
        metrics_here = _is_metrics(web.get("/metrics")) if web in speakers else False
        seen = Survey(
            target=target,
            tls=tls,
            withheld=withheld,
            probes=probes,
            open_models=_open_models(speakers[0], probes),
            wrong_key=_wrong_key(speakers[0], probes),
            large=_large(speakers[0], target, shown),
            ports=(),
            beside=(),
            metrics_here=metrics_here,
        )
    progress("ports")
    ports = _ports(target)
    return replace(seen, ports=ports, beside=tuple(probe for port in ports for probe in _beside(target, port)))


Speaker = Rpc | Web


def _tls(target: Target) -> TlsFacts | None:
    try:
        return look_at_tls(target)
    except OSError as exc:
        raise InvalidTarget(f"nobody answers at {target.address}: {exc}") from exc


def why_withheld(target: Target, tls: TlsFacts | None) -> str | None:
    """Why the credential is not shown; None if it may be, or there is none."""
    if target.secret is None:
        return None
    if tls is not None and tls.distrust is not None:
        return f"the certificate is not believed ({tls.distrust}), so somebody else could read it; give --ca"
    if tls is None and not target.loopback:
        return "there is no TLS, so everybody on the way could read it"
    return None


def _speaks(speaker: Speaker, target: Target) -> bool:
    """Whether it answers as the protocol wants; refusals are answers."""
    request = next(request for request in REQUESTS if request.api == METADATA)
    answer = speaker.ask(request, {})
    if isinstance(speaker, Web):
        return _is_triton(answer) or answer.status in {"401", "403"}
    return answer.reach in (Reach.OPEN, Reach.REFUSED) and answer.status in {
        "OK",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "UNAVAILABLE",
    }


def _is_triton(answer: Answer) -> bool:
    body = answer.body
    return answer.reach is Reach.OPEN and isinstance(body, dict) and "version" in body and "extensions" in body


def _nobody(target: Target, tls: TlsFacts | None, rpc: Rpc, web: Web) -> InvalidTarget:
    request = next(request for request in REQUESTS if request.api == READY)
    said = f"gRPC: {rpc.ask(request, {}).said}; HTTP: {web.ask(request, {}).said}"
    client = " It wants a client certificate: give --cert and --key." if tls and tls.wants_client_certificate else ""
    return InvalidTarget(
        f"expected the KServe v2 protocol of Triton at {target.address}, found something else ({said}).{client}"
    )


def _probe(speaker: Speaker, request: Request, secret: str | None) -> Probe:
    return Probe(
        api=request.api,
        over=speaker.over,
        anonymous=speaker.ask(request, {}),
        authorised=speaker.ask_with_secret(request, secret) if secret else None,
    )


def _names(probes: tuple[Probe, ...]) -> list[str]:
    """The models that the repository's index tells of."""
    for probe in probes:
        body = probe.best.body
        if probe.api == INDEX and probe.best.reach is Reach.OPEN and body is not None:
            entries = body if isinstance(body, list) else getattr(body, "models", [])
            names = (entry.get("name") if isinstance(entry, dict) else entry.name for entry in entries)
            return sorted({str(name) for name in names if name})[:_MAX_MODELS]
    return []


def _open_models(speaker: Speaker, probes: tuple[Probe, ...]) -> tuple[str, ...]:
    def ask(name: str) -> Answer:
        request = Request(
            api="model",
            method="ModelMetadata",
            build=lambda messages: messages.ModelMetadataRequest(name=name),
            verb="GET",
            path=f"/v2/models/{name}",
        )
        return speaker.ask(request, {})

    return tuple(name for name in _names(probes) if ask(name).reach is Reach.OPEN)


def _wrong_key(speaker: Speaker, probes: tuple[Probe, ...]) -> Answer | None:
    request = next(request for request in REQUESTS if request.api == METADATA)
    refused = any(probe.anonymous.status in {"UNAUTHENTICATED", "401"} for probe in probes)
    return speaker.ask(request, {"authorization": f"Bearer {_WRONG_KEY}"}) if refused else None


def _large(speaker: Speaker, target: Target, secret: str | None) -> Answer | None:
    if not target.large_request_mb:
        return None
    headers: Mapping[str, str] = {"authorization": f"Bearer {secret}"} if secret else {}
    return speaker.send_large(int(target.large_request_mb * (1 << 20)), headers)


def _is_metrics(answer: Answer) -> bool:
    return answer.status == "200" and (
        "nv_inference" in answer.text or "nv_cpu" in answer.text or "\nenvoy_" in answer.text
    )


def _ports(target: Target) -> tuple[OpenPort, ...]:
    others = sorted(set(target.ports) - {target.port})
    return tuple(OpenPort(port=port, what=_what(target, port)) for port in others if _listens(target.host, port))


def _beside(target: Target, port: OpenPort) -> tuple[Probe, ...]:
    if port.what not in {"triton-http", "triton-grpc"}:
        return ()
    there = replace(target, port=port.port)
    over = described(port, target.host)
    with Web(there, secure=False) if port.what == "triton-http" else Rpc(there, secure=False) as speaker:
        return tuple(replace(_probe(speaker, request, None), over=over) for request in REQUESTS)


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return True
    except OSError:
        return False


def _what(target: Target, port: int) -> str:
    with Web(target, secure=False, port=port) as web:
        if _is_triton(web.get("/v2")):
            return "triton-http"
        if '"state"' in web.get("/server_info").text and "envoy" in web.get("/help").text.lower():
            return "envoy-admin"
        if _is_metrics(web.get("/metrics")):
            return "metrics"
        if web.get("/api/v1/status/buildinfo").body:
            return "prometheus"
    with Rpc(replace(target, port=port), secure=False) as rpc:
        return "triton-grpc" if _speaks(rpc, target) else "other"


def described(port: OpenPort, host: str) -> str:
    """An open port, for people."""
    return f"{_WORDS.get(port.what, 'something')} at {join(host, port.port)}"

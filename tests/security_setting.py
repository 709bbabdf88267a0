"""A gateway with callers of every kind in front of a recording upstream, and hostile ways to talk to it."""

import base64
import json
import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tritonclient.grpc import service_pb2 as pb

from launcher_helpers import eventually
from naiad.deploy.certificates import (
    Certificate,
    install_server_certificate,
    make_authority,
    make_client_certificate,
    make_revocations,
    make_server_certificate,
)
from naiad.deploy.gateway import Gateway
from naiad.deploy.keys import KeyFile
from naiad.deploy.place import Endpoint
from naiad.deploy.service import Identity, Issuer, Limits, Pool, Rights, Service
from recording_upstream import RecordingUpstream

SERVICE = "/inference.GRPCInferenceService/"
READER_NAME = "spiffe://naiad.test/reader"
WATCHER_NAME = "spiffe://naiad.test/watcher"
LIMITS = Limits(request_mb=2, header_kb=16, header_timeout_s=1, stream_idle_timeout_s=60)

IDENTITIES = (
    Identity(
        name="reader", rights=Rights(infer=("digits", "resnet*")), certificates=(READER_NAME,), tokens=("corp/alice",)
    ),
    Identity(name="watcher", rights=Rights(observe=("*",)), certificates=(WATCHER_NAME,)),
    Identity(name="partial", rights=Rights(observe=("digits",))),
    Identity(name="boss", rights=Rights(infer=("*",), observe=("*",), admin=True)),
    Identity(name="small", rights=Rights(infer=("digits",)), request_mb=0.01),
    Identity(name="slow", rights=Rights(infer=("digits",)), requests_per_s=0.01, burst=1),
    Identity(name="late", rights=Rights(infer=("digits",))),
    Identity(name="gone", rights=Rights(infer=("digits",))),
)


def infer(model: str = "digits", **fields: Any) -> bytes:
    """A request for an inference."""
    return bytes(pb.ModelInferRequest(model_name=model, **fields).SerializeToString())


class Signer:
    """Signs JSON Web Tokens with RS256."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def jwks(self) -> str:
        """The public half, as a file of an issuer."""
        numbers = self._key.public_key().public_numbers()
        n = _base64(numbers.n.to_bytes(256, "big"))
        e = _base64(numbers.e.to_bytes(3, "big"))
        return json.dumps({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": n, "e": e}]})

    def token(self, *, ends_s: float = 3600, head: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A token that `corp` would give to alice, with other claims on request; a claim of None is left out."""
        payload = {"iss": "https://corp.test", "aud": "naiad", "sub": "alice", "exp": int(time.time() + ends_s)}
        payload = {name: value for name, value in {**payload, **claims}.items() if value is not None}
        parts = [{"alg": "RS256", "kid": "1", "typ": "JWT", **(head or {})}, payload]
        signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(kw_only=True)
class Setting:
    """A gateway, its callers' credentials, and what reached the server."""

    gateway: Gateway
    upstream: RecordingUpstream
    directory: Path
    keys: dict[str, str]
    signer: Signer
    authority: Certificate
    certificates: dict[str, Certificate]

    @property
    def key_file(self) -> Path:
        """The file of API keys."""
        return self.directory / "secrets" / "api-keys"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.gateway.grpc_url.partition("://")[2].rpartition(":")
        return host, int(port)

    def channel(self, agent: str, certificate: Certificate | None = None) -> grpc.Channel:
        """A channel whose requests can be found in the access log by the agent's name."""
        target = "{}:{}".format(*self.address)
        options = [("grpc.primary_user_agent", agent), ("grpc.max_metadata_size", 1 << 20)]
        if not self.gateway.service.tls:
            return grpc.insecure_channel(target, options=options)
        credentials = grpc.ssl_channel_credentials(
            self.authority.certificate_pem,
            certificate.key_pem if certificate else None,
            certificate.certificate_pem if certificate else None,
        )
        return grpc.secure_channel(target, credentials, options=options)

    def grpc(
        self,
        agent: str,
        method: str,
        message: bytes = b"",
        headers: Sequence[tuple[str, str]] = (),
        certificate: Certificate | None = None,
        **options: Any,
    ) -> str:
        """One unary call; returns `grpc <number of the status>`."""
        path = method if method.startswith("/") else SERVICE + method
        with self.channel(agent, certificate) as channel:
            try:
                channel.unary_unary(path)(message, metadata=tuple(headers), timeout=20, **options)
            except grpc.RpcError as exc:
                return f"grpc {exc.code().value[0]}"
        return "grpc 0"

    def stream(self, agent: str, messages: Iterable[bytes], headers: Sequence[tuple[str, str]]) -> list[str]:
        """One stream; returns the models whose names the server read."""
        with self.channel(agent) as channel:
            answers = channel.stream_stream(SERVICE + "ModelStreamInfer")(iter(messages), metadata=headers, timeout=20)
            return [pb.ModelStreamInferResponse.FromString(answer).error_message for answer in answers]

    def connect(self, certificate: Certificate | None = None) -> socket.socket:
        """A connection that speaks HTTP/1.1."""
        plain = socket.create_connection(self.address, timeout=20)
        if not self.gateway.service.tls:
            return plain
        context = ssl.create_default_context(cadata=self.authority.certificate_pem.decode())
        context.set_alpn_protocols(["http/1.1"])
        if certificate:
            _load(context, certificate, self.directory)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def raw(self, request: bytes, certificate: Certificate | None = None) -> str:
        """Send bytes as they are; returns `http <status>` of the first answer, or `closed`."""
        try:
            with self.connect(certificate) as connection:
                with suppress(OSError):  # the gateway may have answered before all was sent
                    connection.sendall(request)
                answer = connection.recv(65536)
        except OSError:
            return "closed"
        return f"http {answer.split(b' ', 2)[1].decode()}" if answer.startswith(b"HTTP/") else "closed"

    def http(
        self,
        agent: str,
        request: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        certificate: Certificate | None = None,
    ) -> str:
        """One request `METHOD path`; returns `http <status>`."""
        lines = [f"{request} HTTP/1.1", "host: naiad.test", f"user-agent: {agent}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or request.startswith("POST"):
            lines.append(f"content-length: {len(body)}")
        return self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body, certificate)

    def log_lines(self) -> list[dict[str, Any]]:
        """The access log so far."""
        self.gateway.reopen_logs()  # writes what it still has in memory
        text = (self.directory / "access.log").read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def logged(self, agent: str, **expected: Any) -> dict[str, Any]:
        """The line of a request whose fields are as expected; fails if there is none within a while."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            lines = [line for line in self.log_lines() if str(line.get("user_agent")).split(" ")[0] == agent]
            found[:] = [line for line in lines if all(line.get(key) == value for key, value in expected.items())]
            return bool(found)

        eventually(there, f"a line of {agent} with {expected} in the access log", timeout_s=15)
        return found[-1]


def _load(context: ssl.SSLContext, certificate: Certificate, directory: Path) -> None:
    file = directory / "client.pem"
    file.write_bytes(certificate.certificate_pem + certificate.key_pem)
    context.load_cert_chain(file)


def make_service(**changes: Any) -> Service:
    """A service with callers of every kind."""
    fields: dict[str, Any] = {
        "limits": LIMITS,
        "client_certificates": "optional",
        "revocations": True,
        "identities": IDENTITIES,
        "issuers": (Issuer(name="corp", issuer="https://corp.test", audiences=("naiad",)),),
        "pools": (Pool(name="main", num_replicas=1),),
        **changes,
    }
    return Service(**fields)


def make_setting(
    directory: Path,
    upstream: RecordingUpstream,
    service: Service,
    *,
    endpoint: Endpoint | None = None,
    server_secret: str = "the-servers-own-secret",
) -> Setting:
    """Everything but the gateway's start; `endpoint` takes the recording upstream's place."""
    secrets = directory / "secrets"
    (secrets / "jwks").mkdir(parents=True)
    authority, signer = make_authority(), Signer()
    server = make_server_certificate(authority, ["127.0.0.1", "naiad.test"])
    install_server_certificate(secrets, server)
    certificates = {
        "reader": make_client_certificate(authority, [READER_NAME]),
        "watcher": make_client_certificate(authority, [WATCHER_NAME]),
        "nobody": make_client_certificate(authority, ["spiffe://naiad.test/nobody"]),
        "revoked": make_client_certificate(authority, [READER_NAME]),
        "rogue": make_client_certificate(make_authority("Another"), [READER_NAME]),
        "expired": make_client_certificate(authority, [READER_NAME], days=-1),
        "server": make_server_certificate(authority, ["naiad.test"]),
    }
    (secrets / "clients.crt").write_bytes(authority.certificate_pem)
    (secrets / "clients.crl").write_bytes(make_revocations(authority, [certificates["revoked"]]))
    (secrets / "jwks" / "corp.json").write_text(signer.jwks())
    (secrets / "triton-admin-key").write_text(f"{server_secret}\n")
    return Setting(
        gateway=Gateway(
            service,
            endpoints={"main": (endpoint or upstream.endpoint(),)},
            secrets=secrets,
            access_log=directory / "access.log",
            num_threads=1,
        ),
        upstream=upstream,
        directory=directory,
        keys=make_keys(secrets / "api-keys"),
        signer=signer,
        authority=authority,
        certificates=certificates,
    )


def make_keys(path: Path) -> dict[str, str]:
    """A key for each identity; that of `late` ended yesterday, that of `gone` is revoked."""
    file = KeyFile(path)
    keys = {identity.name: file.add(identity.name) for identity in IDENTITIES}
    file.revoke("gone", "all")
    today = datetime.now(UTC).date()
    text = path.read_text().splitlines()
    path.write_text("\n".join(f"{line} expires={today}" if line.startswith("late ") else line for line in text) + "\n")
    return keys

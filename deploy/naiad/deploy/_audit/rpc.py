"""Asks over gRPC."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from naiad.deploy._audit.answer import Answer, expected_header, grpc_answer
from naiad.deploy._audit.requests import Request, large_message
from naiad.deploy._audit.target import Target

_SERVICE: Final = "/inference.GRPCInferenceService/"
_MAX_BYTES: Final = 64 << 20


class Rpc:
    """A connection for probes. `pinned` is a certificate to accept although nobody vouches for it."""

    over: Final = "gRPC"

    def __init__(self, target: Target, *, secure: bool, pinned: x509.Certificate | None = None) -> None:
        self._target = target
        self._channel = _channel(target, secure=secure, pinned=pinned)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()

    def ask(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """Send one request."""
        return self._send(request.method, request.build(_messages()).SerializeToString(), headers)

    def ask_with_secret(self, request: Request, secret: str) -> Answer:
        """Send it as an identity; as Triton's administrator, where Triton asks for that."""
        answer = self.ask(request, {"authorization": f"Bearer {secret}"})
        header = expected_header(answer)
        return self.ask(request, {header: secret}) if header else answer

    def send_large(self, size_bytes: int, headers: Mapping[str, str]) -> Answer:
        """Send a request that a server with limits refuses."""
        return self._send("ModelInfer", large_message(_messages(), size_bytes), headers)

    def _send(self, method: str, data: bytes, headers: Mapping[str, str]) -> Answer:
        call = self._channel.unary_unary(_SERVICE + method)
        try:
            reply = call(data, timeout=self._target.timeout_s, metadata=tuple(headers.items()))
        except grpc.RpcError as exc:
            return grpc_answer(exc.code().name, exc.details() or "")
        reply_type = getattr(_messages(), f"{method}Response")
        try:
            return grpc_answer("OK", "", reply_type.FromString(reply))
        except Exception:  # noqa: BLE001  (protobuf's errors differ by implementation)
            return grpc_answer("UNAVAILABLE", "an answer that is not of the protocol")


def _messages() -> Any:
    from tritonclient.grpc import service_pb2

    return service_pb2


def _channel(target: Target, *, secure: bool, pinned: x509.Certificate | None) -> Any:
    options: list[tuple[str, Any]] = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", _MAX_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if not secure:
        return grpc.insecure_channel(target.address, options=options)
    name = _named(pinned) if pinned is not None else target.server_name
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    return grpc.secure_channel(target.address, _credentials(target, pinned), options=options)


def _credentials(target: Target, pinned: x509.Certificate | None) -> Any:
    roots = target.root_certificates.read_bytes() if target.root_certificates else None
    if pinned is not None:
        roots = pinned.public_bytes(Encoding.PEM)
    chain = target.client_certificate.read_bytes() if target.client_certificate else None
    key = target.client_key.read_bytes() if target.client_key else None
    return grpc.ssl_channel_credentials(roots, key, chain)


def _named(certificate: x509.Certificate) -> str | None:
    """A name in a certificate, for a caller that takes it as it is."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    texts = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return texts[0].replace("*", "audit") if texts else None

"""What a TLS port is like: whose certificate, until when, and which old protocols it still speaks."""

import contextlib
import socket
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from naiad.deploy._audit.target import Target
from naiad.deploy.errors import InvalidTarget

_OLD: Final = {"TLS 1.0": ssl.TLSVersion.TLSv1, "TLS 1.1": ssl.TLSVersion.TLSv1_1}
_RSA_MIN_BITS: Final = 2048
_EC_MIN_BITS: Final = 224


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFacts:
    """What a handshake told."""

    version: str
    """As `TLSv1.3`."""
    certificate: x509.Certificate
    distrust: str | None
    """Why the certificate is not believed; None if it is."""
    old_versions: tuple[str, ...]
    """Protocols older than TLS 1.2 that it accepts."""
    untested_versions: tuple[str, ...]
    """Those that this machine's OpenSSL cannot try."""
    static_rsa: bool
    """Whether it accepts ciphers without forward secrecy."""
    wants_client_certificate: bool
    """Whether it ends connections of callers without a certificate."""

    @property
    def days_left(self) -> float:
        """Days until the certificate ends; negative once it has."""
        return (self.certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds() / 86400

    @property
    def self_signed(self) -> bool:
        """Whether it vouches for itself."""
        return self.certificate.issuer == self.certificate.subject

    @property
    def weakness(self) -> str | None:
        """What is weak about its key or signature; None if nothing is."""
        key, hashed = self.certificate.public_key(), self.certificate.signature_hash_algorithm
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < _RSA_MIN_BITS:
            return f"an RSA key of {key.key_size} bits"
        if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < _EC_MIN_BITS:
            return f"an elliptic-curve key of {key.key_size} bits"
        return f"a signature with {hashed.name}" if hashed is not None and hashed.name in {"md5", "sha1"} else None


def look_at_tls(target: Target) -> TlsFacts | None:
    """Shake hands in several ways; None where there is no TLS. Raises: `OSError` where nobody listens."""
    context = _lenient()
    _show_certificate(context, target)
    try:
        with _connected(target, context) as tls:
            version, der = tls.version() or "unknown", tls.getpeercert(binary_form=True)
    except ssl.SSLError:
        return None
    except (ConnectionResetError, TimeoutError):  # a server of another protocol
        return None
    if der is None:
        return None
    old = {name: _accepts_version(target, number) for name, number in _OLD.items()}
    return TlsFacts(
        version=version,
        certificate=x509.load_der_x509_certificate(der),
        distrust=_distrust(target),
        old_versions=tuple(name for name, accepted in old.items() if accepted),
        untested_versions=tuple(name for name, accepted in old.items() if accepted is None),
        static_rsa=_accepts_static_rsa(target),
        wants_client_certificate=_wants_client_certificate(target),
    )


def check_files(target: Target) -> None:
    """Raise `InvalidTarget` where the authority or the client's certificate is none, before anything is asked."""
    for what, paths, load in (
        ("certificates of authorities", (target.root_certificates,), _trust),
        ("a client certificate and its key", (target.client_certificate, target.client_key), _show_certificate),
    ):
        try:
            load(_lenient(), target)
        except OSError as exc:
            found = " and ".join(str(path) for path in paths)
            raise InvalidTarget(f"expected {what} as PEM in {found}, found something else: {exc}") from exc


def _trust(context: ssl.SSLContext, target: Target) -> None:
    if target.root_certificates:
        context.load_verify_locations(target.root_certificates)


@contextlib.contextmanager
def _connected(target: Target, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection((target.host, target.port), timeout=target.timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=target.name) as tls,
    ):
        yield tls


def _lenient() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _show_certificate(context: ssl.SSLContext, target: Target) -> None:
    if target.client_certificate and target.client_key:
        context.load_cert_chain(target.client_certificate, target.client_key)


def _distrust(target: Target) -> str | None:
    context = ssl.create_default_context(cafile=str(target.root_certificates) if target.root_certificates else None)
    _show_certificate(context, target)
    try:
        with _connected(target, context):
            return None
    except ssl.SSLCertVerificationError as exc:
        return str(exc.verify_message)
    except OSError as exc:
        return str(exc)


def _accepts_version(target: Target, number: ssl.TLSVersion) -> bool | None:
    context = _lenient()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it is what is looked for
            context.minimum_version = context.maximum_version = number
            context.set_ciphers("ALL:@SECLEVEL=0")
    except (ssl.SSLError, ValueError):
        return None
    try:
        with _connected(target, context):
            return True
    except ssl.SSLError as exc:
        return None if "NO_PROTOCOLS_AVAILABLE" in str(exc) else False
    except OSError:
        return False


def _accepts_static_rsa(target: Target) -> bool:
    context = _lenient()
    try:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("kRSA:@SECLEVEL=0")
        with _connected(target, context):
            return True
    except OSError:
        return False


def _wants_client_certificate(target: Target) -> bool:
    """With TLS 1.3 the refusal comes after the handshake, when something is read."""
    try:
        with _connected(target, _lenient()) as tls:
            tls.settimeout(min(target.timeout_s, 1.0))
            tls.send(b"")
            return not tls.recv(1) and False
    except TimeoutError:
        return False
    except ssl.SSLError as exc:
        return "CERTIFICATE_REQUIRED" in str(exc).upper().replace(" ", "_") or "HANDSHAKE" in str(exc).upper()
    except OSError:
        return False

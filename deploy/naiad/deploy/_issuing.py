"""Makes authorities, and certificates that they sign."""

from __future__ import annotations

import ipaddress
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from naiad.deploy._x509 import Certificate, load_key
from naiad.deploy.errors import InvalidCertificate

__all__ = [
    "is_issued_by",
    "make_authority",
    "make_client_certificate",
    "make_placeholder_jwks",
    "make_revocations",
    "make_server_certificate",
]

_BACKDATED: Final = timedelta(minutes=5)
"""Clocks of others may be a little behind."""


def make_authority(name: str = "Naiad, for development only", *, days: float = 3650) -> Certificate:
    """Make an authority that signs certificates; whoever has its key can be anybody, so it stays out of containers."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, key, days, authority=None)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return _signed(builder, key, key)


def make_server_certificate(authority: Certificate, names: Sequence[str], *, days: float = 90) -> Certificate:
    """Make a certificate of a server; ``names`` are DNS names and IP addresses.

    Raises:
        InvalidCertificate: there is no name, or one is none.
    """
    return _issue(authority, names, days, ExtendedKeyUsageOID.SERVER_AUTH)


def make_client_certificate(authority: Certificate, names: Sequence[str], *, days: float = 90) -> Certificate:
    """Make a certificate of a caller; ``names`` are those of its identity (URIs or DNS names).

    Raises:
        InvalidCertificate: there is no name, or one is none.
    """
    return _issue(authority, names, days, ExtendedKeyUsageOID.CLIENT_AUTH)


def make_revocations(authority: Certificate, revoked: Iterable[Certificate] = (), *, days: float = 3650) -> bytes:
    """Make the list, as PEM, of the certificates of an authority that are no longer believed."""
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=authority.leaf.subject, last_update=now - _BACKDATED, next_update=now + timedelta(days=days)
    )
    for each in revoked:
        entry = x509.RevokedCertificateBuilder(serial_number=each.leaf.serial_number, revocation_date=now)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(_signing_key(authority), SHA256()).public_bytes(serialization.Encoding.PEM)


def make_placeholder_jwks() -> bytes:
    """Make a JSON Web Key Set (RFC 7517) that verifies nobody's tokens: its private key is gone already.

    The gateway refuses a set without keys, and with it the whole filter.
    """
    point = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    x, y = (urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode() for number in (point.x, point.y))
    key = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "naiad-placeholder", "x": x, "y": y}
    return json.dumps({"keys": [key]}, indent=2).encode() + b"\n"


def is_issued_by(certificate: Certificate, authority: Certificate) -> bool:
    """Tell whether the authority signed the certificate."""
    try:
        certificate.leaf.verify_directly_issued_by(authority.leaf)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _issue(authority: Certificate, names: Sequence[str], days: float, use: x509.ObjectIdentifier) -> Certificate:
    if not names:
        raise InvalidCertificate("expected at least one name for the certificate, found none")
    alternatives = [_name(name) for name in names]
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    builder = _builder(subject, key, days, authority=authority.leaf)
    builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    return _signed(builder, key, _signing_key(authority))


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: float, *, authority: x509.Certificate | None
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    ends = now + timedelta(days=days)
    signer = key.public_key() if authority is None else authority.public_key()
    assert isinstance(signer, ec.EllipticCurvePublicKey)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority is None else authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends) - _BACKDATED)
        .not_valid_after(ends if authority is None else min(ends, authority.not_valid_after_utc))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> Certificate:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate = builder.sign(signer, SHA256())
    return Certificate(
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM), key_pem=key.private_bytes(*form)
    )


def _signing_key(authority: Certificate) -> ec.EllipticCurvePrivateKey:
    key = load_key(authority.key_pem, "the authority's key")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidCertificate("expected an authority that `naiad deploy secrets` made, found one with another key")
    return key


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    if not name or name != "".join(name.split()):
        raise InvalidCertificate(f"expected a DNS name, an IP address or a URI, found {name!r}")
    try:
        return x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name)
    except ValueError as exc:
        raise InvalidCertificate(f"expected a DNS name, an IP address or a URI, found {name!r}: {exc}") from exc

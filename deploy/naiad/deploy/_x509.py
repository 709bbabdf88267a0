"""A certificate with its private key, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from naiad.deploy.errors import InvalidCertificate

__all__ = ["Certificate", "load_chain", "load_key", "read"]


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Certificate:
    """A certificate (with those between it and its authority) and its private key, as PEM."""

    certificate_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return f"Certificate({', '.join(self.names)}, ends {self.ends:%Y-%m-%d})"

    @classmethod
    def read(cls, certificate: str | Path, key: str | Path) -> Certificate:
        """Read both files, and check that they are each other's.

        Raises:
            InvalidCertificate: one cannot be read, is no PEM, or is not the other's.
        """
        found = cls(certificate_pem=read(Path(certificate)), key_pem=read(Path(key)))
        leaf = load_chain(found.certificate_pem, str(certificate))[0]
        if load_key(found.key_pem, str(key)).public_key() != leaf.public_key():
            raise InvalidCertificate(
                f"expected the private key of {certificate} in {key}, found another one's: "
                "in a file with several certificates, the server's own comes first"
            )
        return found

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate itself."""
        return load_chain(self.certificate_pem, "the certificate")[0]

    @property
    def ends(self) -> datetime:
        """When it, or one of those between, is no longer valid."""
        return min(each.not_valid_after_utc for each in load_chain(self.certificate_pem, "the certificate"))

    @property
    def names(self) -> tuple[str, ...]:
        """Its subject alternative names."""
        try:
            found = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ()
        return tuple(str(name.value) for name in found)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate, as hexadecimal digits."""
        return self.leaf.fingerprint(SHA256()).hex()


def read(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        InvalidCertificate: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InvalidCertificate(f"expected a PEM file, {path} cannot be read: {exc.strerror or exc}") from exc


def load_chain(pem: bytes, name: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, in its order; messages call it ``name``."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as exc:
        raise InvalidCertificate(f"expected certificates in PEM form in {name}, found none that can be read") from exc


def load_key(pem: bytes, name: str) -> PrivateKeyTypes:
    """Return the private key of a PEM file; messages call it ``name``, and never show it."""
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError as exc:
        do = f"take it off with `openssl pkey -in {name} -out …`"
        raise InvalidCertificate(f"expected a private key without a password in {name}: {do}") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise InvalidCertificate(f"expected a private key in PEM form in {name}, found none that can be read") from exc

"""Ed25519 signatures over `manifest.json`, which has the SHA-256 of every file of its version.

They lie beside it, in `manifest.sig`, by the id of the key that made them: a JSON file of plain signatures over the
manifest's bytes, so that other tools can check them too. One more signature never changes what was published.
"""

import base64
import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from naiad.export._repository import durable as _durable
from naiad.export.errors import InvalidKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PASSWORD_VARIABLE = "NAIAD_KEY_PASSWORD"  # noqa: S105 - the name of the variable
UNREADABLE = "(unreadable)"
"""Stands for a key in a `manifest.sig` that is none."""
State = Literal["valid", "missing", "unknown key", "invalid"]

_ID_LENGTH = 16
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, kw_only=True, slots=True)
class SignatureCheck:
    """Whether a version is signed by the key that was asked for."""

    state: State
    key_id: str
    """Of the key that was asked for."""
    problem: str
    """One sentence; empty where the signature is valid."""

    @property
    def ok(self) -> bool:
        """Whether the key signed exactly this manifest."""
        return self.state == "valid"


class Signer:
    """A private key that signs manifests."""

    def __init__(self, key: "Ed25519PrivateKey") -> None:
        self._key = key
        self.key_id = key_id(key.public_key())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Signer":
        """Read a private key, with the password in NAIAD_KEY_PASSWORD where it has one.

        Raises:
            InvalidKey: It is missing, not an Ed25519 key, or others than its owner may read it.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        file = Path(path)
        data = _read(file, "private")
        _require_private(file)
        password = os.environ.get(PASSWORD_VARIABLE)
        try:
            key = load_pem_private_key(data, None if password is None else password.encode())
        except TypeError as exc:  # a password is missing, or there is none to need it
            advice = f"give its password, and only if it has one, in {PASSWORD_VARIABLE}"
            raise InvalidKey(f"{file}: {exc}; {advice}") from exc
        except ValueError as exc:
            raise InvalidKey(f"{file} is not a private key in PEM, or its password is another: {exc}") from exc
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidKey(f"{file} is a key of another kind; expected Ed25519, as `naiad models keygen` makes them")
        return cls(key)

    def sign(self, manifest: bytes) -> bytes:
        """Return the signature of a manifest."""
        return self._key.sign(manifest)


class Verifier:
    """A public key that manifests are checked with."""

    def __init__(self, key: "Ed25519PublicKey") -> None:
        self._key = key
        self.key_id = key_id(key)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Verifier":
        """Read a public key.

        Raises:
            InvalidKey: It is missing, or not an Ed25519 key.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        data = _read(Path(path), "public")
        try:
            key = load_pem_public_key(data)
        except ValueError as exc:
            hint = "; this is the private key, which does not belong here" if b"PRIVATE KEY" in data else ""
            raise InvalidKey(f"{path} is not a public key in PEM{hint}") from exc
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidKey(f"{path} is a key of another kind; expected Ed25519, as `naiad models keygen` makes them")
        return cls(key)

    def check(self, manifest: bytes | None, signatures: Mapping[str, bytes]) -> SignatureCheck:
        """Return whether one of the signatures is this key's, and of this manifest."""
        from cryptography.exceptions import InvalidSignature

        if manifest is None or not signatures:
            return self._found("missing", "it is not signed; naiad models sign does that")
        if UNREADABLE in signatures:
            return self._found("invalid", "its manifest.sig is not a file of signatures: it was changed; sign it again")
        if self.key_id not in signatures:
            message = f"it is signed by the key {', '.join(signatures)} and not by {self.key_id}, which was given"
            return self._found("unknown key", message)
        try:
            self._key.verify(signatures[self.key_id], manifest)
        except InvalidSignature:
            message = f"the signature of the key {self.key_id} is not of this manifest.json: one of them was changed"
            return self._found("invalid", message)
        return self._found("valid", "")

    def _found(self, state: State, problem: str) -> SignatureCheck:
        return SignatureCheck(state=state, key_id=self.key_id, problem=problem)


def key_id(key: "Ed25519PublicKey") -> str:
    """Return the first 16 digits of the SHA-256 of a public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_ID_LENGTH]


def generate_keys(private: str | os.PathLike[str], public: str | os.PathLike[str]) -> str:
    """Write a new pair of keys, the private one readable by its owner alone, and return their id.

    Its password is that of NAIAD_KEY_PASSWORD, where it is set.

    Raises:
        InvalidKey: One of the files exists, or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, password = Ed25519PrivateKey.generate(), os.environ.get(PASSWORD_VARIABLE)
    encryption = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    pem, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write(Path(private), key.private_bytes(pem, plain, encryption), mode=0o600)
    try:
        _write(Path(public), key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    except InvalidKey:
        Path(private).unlink()
        raise
    return key_id(key.public_key())


def parse(data: bytes | None) -> dict[str, bytes]:
    """Return the signatures in `manifest.sig` by the id of their keys; what cannot be read is no signature."""
    if data is None:
        return {}
    try:
        found = json.loads(data).get("signatures", {})
        return {str(key): base64.b64decode(text, validate=True) for key, text in found.items()}
    except (ValueError, AttributeError, TypeError):
        return {UNREADABLE: b""}


def to_json(signatures: Mapping[str, bytes]) -> bytes:
    """Return the contents of `manifest.sig`."""
    values = {
        "algorithm": "ed25519",
        "signed": "manifest.json",
        "signatures": {key: base64.b64encode(signature).decode() for key, signature in signatures.items()},
    }
    return f"{json.dumps(values, indent=2)}\n".encode()


def _read(path: Path, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        reason = exc.strerror or exc
        raise InvalidKey(f"expected a {kind} key at {path}: {reason}; naiad models keygen makes one") from exc


def _require_private(path: Path) -> None:
    info = path.stat()
    # As ssh does: a key of somebody else's was given to us on purpose, by its group or in a container.
    if info.st_uid == os.geteuid() and info.st_mode & _OTHERS:
        raise InvalidKey(
            f"{path} may be read or changed by others (mode {stat.S_IMODE(info.st_mode):o}); make it yours alone: "
            f"chmod 600 {path}"
        )


def _write(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _durable.sync_directory(path.absolute().parent)
    except FileExistsError as exc:
        raise InvalidKey(f"{path} exists, and a key is never replaced: name another file") from exc
    except OSError as exc:
        with contextlib.suppress(OSError):
            path.unlink()  # what was written of it before the disk was full
        raise InvalidKey(f"cannot write the key {path}: {exc.strerror or exc}") from exc

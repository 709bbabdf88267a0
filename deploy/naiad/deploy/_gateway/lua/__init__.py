"""The Lua filter: the description as a Lua table, and the parts of the program after it."""

from collections.abc import Mapping, Sequence
from importlib.resources import files

from naiad.deploy.place import Place
from naiad.deploy.service import Rights, Service

__all__ = ["script"]

_PARTS = (
    "log",
    "refusals",
    "sha256",
    "secrets",
    "identity",
    "rights",
    "messages",
    "grpc",
    "stream",
    "http",
    "authorize",
)
_MIB = 1 << 20

_Value = str | int | bool | None | Mapping[str, "_Value"] | Sequence["_Value"]


def script(service: Service, place: Place) -> str:
    """Return the whole program."""
    parts = [f"local CONFIG = {_lua(_configuration(service, place))}\n"]
    parts += [files(__name__).joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in _PARTS]
    return "\n".join(parts)


def _configuration(service: Service, place: Place) -> dict[str, _Value]:
    most_mb = service.limits.request_mb
    return {
        "secrets": place.secrets_dir,
        "identities": {
            identity.name: _rights(identity.rights, min(identity.request_mb or most_mb, most_mb))
            for identity in service.identities
        },
        "anonymous": _rights(service.anonymous, most_mb) if service.anonymous else None,
        "certificates": {name: identity.name for identity in service.identities for name in identity.certificates},
        "tokens": {token: identity.name for identity in service.identities for token in identity.tokens},
        "issuers": [{"name": issuer.name, "claim": issuer.claim} for issuer in service.issuers],
    }


def _rights(rights: Rights, limit_mb: float) -> dict[str, _Value]:
    return {
        "infer": _models(rights.infer),
        "observe": _models(rights.observe),
        "admin": rights.admin,
        "max_bytes": int(limit_mb * _MIB),
    }


def _models(patterns: Sequence[str]) -> dict[str, _Value]:
    return {
        "all": "*" in patterns,
        "names": {name: True for name in patterns if "*" not in name},
        "patterns": [name.split("*") for name in patterns if "*" in name and name != "*"],
    }


def _lua(value: _Value, indent: str = "") -> str:
    inner = indent + "  "
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _quoted(value)
        case Mapping():
            rows = [f"{inner}[{_quoted(key)}] = {_lua(each, inner)},\n" for key, each in value.items()]
        case _:
            rows = [f"{inner}{_lua(each, inner)},\n" for each in value]
    return "{\n" + "".join(rows) + indent + "}" if rows else "{}"


def _quoted(text: str) -> str:
    """A Lua string; what is not plain becomes a decimal escape, so that no name can end it."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03d}" for byte in text.encode())
    return '"' + "".join(plain) + '"'

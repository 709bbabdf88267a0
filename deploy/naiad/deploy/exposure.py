"""Whether an address may be listened on: what others can reach needs TLS, and callers who say who they are."""

import ipaddress
import socket

from naiad.deploy.errors import UnsafeAddress
from naiad.deploy.service import Rights, Service


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to what listens on `host`, an address or a name.

    A name is loopback if every address it has is; one that has none, and an empty one (every interface), is not.
    """
    bare = host.strip().removeprefix("[").removesuffix("]")
    if not bare:
        return False
    try:
        return _is_loopback_address(bare)
    except ValueError:
        addresses = _addresses(bare)
        return bool(addresses) and all(map(_is_loopback_address, addresses))


def missing_protection(service: Service) -> tuple[str, ...]:
    """What a service lacks before others than this machine may reach its gateway; empty if it lacks nothing."""
    missing = []
    if not service.tls:
        missing.append("TLS (the service says `tls = false`, so keys and tensors cross the network in the clear)")
    if service.client_certificates != "required" and _grants(service.anonymous):
        missing.append("identity (the service has rights for `anonymous`, so anybody who reaches it may use it)")
    return tuple(missing)


def check_exposure(host: str, service: Service | None, *, insecure: bool = False) -> None:
    """Refuse an address that others can reach, unless what listens there is protected.

    `service` is what the gateway enforces; None if there is no gateway, and Triton itself would listen there, which
    `insecure` does not allow either: 2.51, the embedded one, has holes that run foreign code.

    Raises: `UnsafeAddress`, whose message says what is missing and how to get it.
    """
    if is_loopback(host):
        return
    if service is None:
        raise UnsafeAddress(
            f"Expected a loopback address such as 127.0.0.1, found {host!r}: the embedded Triton has no TLS and lacks "
            "security fixes, so it never listens beyond this machine. Put the gateway in front of it:\n"
            f"  naiad serve --gateway --host {host} --service deploy/service.toml"
        )
    missing = missing_protection(service)
    if missing and not insecure:
        raise UnsafeAddress(_refusal(host, missing))


def _refusal(host: str, missing: tuple[str, ...]) -> str:
    return (
        f"Expected a service with TLS and identity, because others can reach {host!r}; it lacks "
        f"{' and '.join(missing)}. To add them:\n"
        "  naiad deploy init                   writes deploy/service.toml, with TLS and without anonymous callers\n"
        "  naiad deploy secrets                makes a certificate, unless you have one\n"
        "  naiad deploy key add IDENTITY       makes a key, for an identity of the service\n"
        f"  naiad serve --gateway --host {host} --service deploy/service.toml\n"
        "--insecure listens there all the same; 127.0.0.1 needs none of this."
    )


def _grants(rights: Rights | None) -> bool:
    return rights is not None and bool(rights.infer or rights.observe or rights.admin)


def _is_loopback_address(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1 is loopback, and Python 3.11 says it is not
    return (mapped or address).is_loopback


def _addresses(name: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()

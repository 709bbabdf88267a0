"""Which addresses a service may listen on."""

import pytest

from naiad.deploy.errors import UnsafeAddress
from naiad.deploy.exposure import check_exposure, is_loopback, missing_protection
from naiad.deploy.service import Identity, Rights, Service

EVERYTHING = Rights(infer=("*",), observe=("*",))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "127.1", " 127.0.0.1 ", "0:0::1"],
)
def test_addresses_of_this_machine_alone_are_loopback(host):
    """In every way that one can be written."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "[::]", "", "0", "10.0.0.7", "192.0.2.1", "2001:db8::1", "fe80::1%lo", "::ffff:10.0.0.1",
     "::ffff:0.0.0.0", "no-such-host.invalid", "128.0.0.1", "*", "a" * 300, "\x00"],
)  # fmt: skip
def test_what_others_may_reach_is_not_loopback(host):
    """Nor is what nobody can say of: a name without an address, or nothing that is one."""
    assert not is_loopback(host)


def test_loopback_needs_nothing():
    """Anybody without TLS may be served there, by Triton itself, too."""
    check_exposure("127.0.0.1", Service(tls=False, anonymous=EVERYTHING))
    check_exposure("localhost", None)


def test_a_protected_service_may_listen_anywhere():
    """TLS, and rights for identities only."""
    service = Service(identities=(Identity(name="shop", rights=EVERYTHING),))
    assert missing_protection(service) == ()
    check_exposure("0.0.0.0", service)
    check_exposure("::", Service(client_certificates="required", anonymous=EVERYTHING))
    check_exposure("::", Service(anonymous=Rights()))


@pytest.mark.parametrize(
    ("service", "lacks", "not_said"),
    [
        (Service(tls=False), "TLS", "identity ("),
        (Service(anonymous=EVERYTHING), "identity (", "TLS ("),
        (Service(anonymous=Rights(admin=True), client_certificates="optional"), "identity (", "TLS ("),
        (
            Service(tls=False, anonymous=EVERYTHING),
            "TLS (the service says `tls = false`, so keys and tensors cross the network in the clear) and identity",
            "None",
        ),
    ],
)
def test_an_unprotected_one_may_not(service, lacks, not_said):
    """The message says what is missing and the commands that create it."""
    with pytest.raises(UnsafeAddress) as caught:
        check_exposure("0.0.0.0", service)
    message = str(caught.value)
    assert lacks in message
    assert not_said not in message
    for command in ("naiad deploy init", "naiad deploy secrets", "naiad deploy key add", "--insecure"):
        assert command in message
    assert isinstance(caught.value, ValueError)  # wrong use: exit code 2


def test_insecure_is_for_the_gateway_only():
    """Who insists may; but Triton itself never listens where others can reach it."""
    check_exposure("0.0.0.0", Service(tls=False), insecure=True)
    with pytest.raises(UnsafeAddress, match="never listens beyond this machine"):
        check_exposure("0.0.0.0", None, insecure=True)

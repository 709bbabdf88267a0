"""What names the servers of a client."""

import socket

import pytest

from naiad.client import InvalidInput, ServerUnavailable
from naiad.client._routing.endpoint import directory_of


@pytest.mark.parametrize(
    ("servers", "targets", "secure"),
    [
        ("a", ["a:8001"], False),
        ("grpc://a:1,b:2", ["a:1", "b:2"], False),
        ("grpcs://a,b:2/", ["a:8001", "b:2"], True),
        (["a:1", "grpc://b:2"], ["a:1", "b:2"], False),
        ("a:1,a:1", ["a:1"], False),
        ("grpc://[::1]:9,b", ["[::1]:9", "b:8001"], False),
        (lambda: ["a:1", "b:2"], ["a:1", "b:2"], False),
    ],
)
def test_several_servers_are_named_in_many_ways(servers, targets, secure):
    """With commas, as a list, by a function; each once."""
    found = directory_of(servers).lookup()
    assert [endpoint.target for endpoint in found] == targets
    assert {endpoint.secure for endpoint in found} == {secure}


def test_each_server_may_have_its_own_secret():
    """Embedded servers have one each."""
    directory = directory_of("grpc://:one@a:1,:two@b:2")
    assert [endpoint.admin_secret for endpoint in directory.lookup()] == ["one", "two"]
    assert directory.shown == "grpc://a:1,b:2"


@pytest.mark.parametrize("servers", [3, [], ["a", 3], ["a", ""], list, lambda: ["x/y"]])
def test_what_names_no_server_is_refused(servers):
    """Before anything is contacted, or by the look-up of a function's answer."""
    with pytest.raises(InvalidInput, match="expected"):
        directory_of(servers).lookup()


def test_a_name_stands_for_all_its_addresses():
    """Each is a server, whose certificate has the name."""
    wanted = {address[4][0] for address in socket.getaddrinfo("localhost", 7, type=socket.SOCK_STREAM)}
    found = directory_of("dns:///localhost:7").lookup()
    assert {endpoint.target.rpartition(":")[0].strip("[]") for endpoint in found} == wanted
    assert {endpoint.name for endpoint in found} == {"localhost"}
    assert directory_of("dnss:///localhost:7").lookup()[0].secure


def test_a_name_without_an_address_says_so():
    """The error is one that a later attempt may not have."""
    with pytest.raises(ServerUnavailable, match=r"the name 'no-such-host\.invalid' has no address") as caught:
        directory_of("dns:///no-such-host.invalid").lookup()
    assert caught.value.retryable

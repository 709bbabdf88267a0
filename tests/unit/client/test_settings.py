"""What a client is made from."""

import pytest

from naiad.client import TLS, Client, InvalidInput, Retry, Timeout
from naiad.client._routing.endpoint import parse_endpoint


@pytest.mark.parametrize(
    ("url", "target", "secure", "secret"),
    [
        ("grpc://gpu1:9000", "gpu1:9000", False, None),
        ("gpu1:9000", "gpu1:9000", False, None),
        ("gpu1", "gpu1:8001", False, None),
        ("grpcs://gpu1/", "gpu1:8001", True, None),
        ("grpc://:s%40crt@127.0.0.1:1", "127.0.0.1:1", False, "s@crt"),
        ("grpc://[::1]:8001", "[::1]:8001", False, None),
    ],
)
def test_addresses_are_read(url, target, secure, secret):
    """Scheme and port may be left out; the user part carries the secret."""
    endpoint = parse_endpoint(url)
    assert (endpoint.target, endpoint.secure, endpoint.admin_secret) == (target, secure, secret)


@pytest.mark.parametrize(
    "url", ["http://x:1", "grpc://", "grpc://x:port", "grpc://x:99999", "x/y", "a:1,", "a:1,b:x", ""]
)
def test_a_bad_address_is_refused_before_anything_is_contacted(url):
    """The message shows what an address looks like."""
    with pytest.raises(InvalidInput, match="expected an address like grpc://localhost:8001"):
        Client(url)


def test_a_secret_is_never_shown():
    """Neither repr nor an error about the address has it."""
    with Client("grpc://:hush@127.0.0.1:1") as triton:
        assert "hush" not in repr(triton) + triton.url
    with pytest.raises(InvalidInput) as caught:
        Client("ftp://:hush@127.0.0.1:1")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), True, "1"])
def test_a_time_out_is_positive_and_finite(value):
    """There is always a limit."""
    with pytest.raises(InvalidInput, match="number of seconds above 0 and finite"):
        Client(timeout=value)
    with pytest.raises(InvalidInput):
        Timeout(load_s=value)


def test_other_arguments_are_checked_too(tmp_path):
    """Attempts, certificates, headers and versions."""
    with pytest.raises(InvalidInput, match="at least 1"):
        Retry(attempts=0)
    with pytest.raises(InvalidInput, match="both certificate_chain and private_key"):
        TLS(certificate_chain="c.pem")
    with pytest.raises(InvalidInput, match="expected a PEM file at"):
        Client(tls=TLS(root_certificates=tmp_path / "none.pem"))
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(InvalidInput, match="-----BEGIN"):
        Client(tls=TLS(root_certificates=tmp_path / "empty.pem"))
    with pytest.raises(InvalidInput, match="lower-case"):
        Client(metadata={"Upper": "x"})
    with Client() as triton, pytest.raises(InvalidInput, match="whole number like 3"):
        triton.model("m", version="latest")


def test_an_unknown_keyword_of_a_request_is_named_with_those_that_exist():
    """It is a mistake in the code, so a TypeError as Python raises it."""
    with Client() as triton, pytest.raises(TypeError, match=r"unexpected keyword prority: expected some of .*priority"):
        triton.infer("m", {"x": [1.0]}, prority=1)

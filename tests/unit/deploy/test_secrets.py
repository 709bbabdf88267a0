"""What is made in the secrets directory, and what is left alone."""

import json
import os
import subprocess

import pytest

from naiad.deploy import InvalidCertificate, InvalidService, Issuer, KeyFile, OutputNotWritable, Pool, Service
from naiad.deploy.certificates import (
    Certificate,
    install_server_certificate,
    is_issued_by,
    make_authority,
    make_client_certificate,
    make_server_certificate,
    write_certificate,
)
from naiad.deploy.secrets import make_secrets, open_authority, renew_certificate


@pytest.fixture
def places(tmp_path):
    return tmp_path / "secrets", {"authority": tmp_path / "authority"}


def contents(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def made(secrets):
    return {each.path.name: each.state for each in secrets}


def test_a_first_run_makes_everything_and_a_second_nothing(places):
    """What is there stays, byte by byte."""
    directory, authority = places
    first = make_secrets(Service(), directory, **authority)
    assert made(first) == {
        "tls.crt": "made",
        "tls.key": "made",
        "api-keys": "made",
        "triton-admin-key": "made",
        "grafana-admin-password": "made",
        "alert-webhook": "placeholder",
    }
    before = contents(directory)
    assert set(made(make_secrets(Service(), directory, **authority)).values()) == {"there"}
    assert contents(directory) == before


def test_what_a_service_uses_decides_what_it_gets(places):
    """A placeholder is in the form that its reader takes."""
    directory, authority = places
    service = Service(
        client_certificates="optional",
        revocations=True,
        issuers=(Issuer(name="login", issuer="https://login.example.com"),),
        pools=(Pool(name="main", repository="s3://models/main"),),
    )
    found = made(make_secrets(service, directory, **authority))
    assert (found["clients.crt"], found["clients.crl"]) == ("made", "made")
    assert (found["login.json"], found["cloud-credentials"]) == ("placeholder", "placeholder")
    (key,) = json.loads((directory / "jwks/login.json").read_text())["keys"]
    assert "d" not in key  # the private part
    plain = directory.parent / "plain"
    assert "tls.crt" not in made(make_secrets(Service(tls=False), plain, **authority))


def test_a_list_of_revoked_certificates_needs_certificates_to_revoke():
    """Otherwise somebody believes that it does something."""
    with pytest.raises(InvalidService, match="revocations"):
        Service(revocations=True)


def test_only_the_owner_reads_what_is_made(places):
    """The authority's certificate is for everybody who is allowed into its directory."""
    directory, authority = places
    make_secrets(Service(), directory, **authority)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.rglob("*") if path.is_file()} == {0o600}
    assert (authority["authority"] / "authority.key").stat().st_mode & 0o777 == 0o600
    assert not (directory / "authority.key").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_makes_them_for_the_containers_user(places):
    """All of them, and those that are added later; the authority stays root's."""
    directory, authority = places
    service = Service(issuers=(Issuer(name="login", issuer="https://login.example.com"),))
    make_secrets(service, directory, **authority, owner=1000)
    KeyFile(directory / "api-keys").add("vision")
    renew_certificate(directory, **authority)
    owners = {path.stat().st_uid for path in [directory, *directory.rglob("*")]}
    assert owners == {1000}
    assert (authority["authority"] / "authority.key").stat().st_uid == 0


def test_version_control_leaves_them_alone(places):
    """Wherever they were put."""
    directory, authority = places
    make_secrets(Service(), directory, **authority)
    subprocess.run(["git", "init", "-q", directory.parent], check=True)
    seen = subprocess.run(
        ["git", "status", "--porcelain"], cwd=directory.parent, capture_output=True, text=True, check=True
    )
    assert seen.stdout == ""


def test_a_certificate_of_ones_own_is_left_alone_and_half_of_one_is_reported(places):
    """A pair that is not each other's would keep the gateway from serving."""
    directory, authority = places
    directory.mkdir()
    own = make_server_certificate(make_authority("own"), ["triton.example.com"])
    (directory / "tls.crt").write_bytes(own.certificate_pem)
    (directory / "tls.key").write_bytes(own.key_pem)
    make_secrets(Service(), directory, **authority)
    assert Certificate.read(directory / "tls.crt", directory / "tls.key") == own
    assert not authority["authority"].exists()
    (directory / "tls.key").unlink()
    with pytest.raises(InvalidCertificate, match=r"expected .*tls.key beside the other"):
        make_secrets(Service(), directory, **authority)


def test_a_first_certificate_that_was_interrupted_is_finished(places):
    """Between the two links there is one of them; what is there of both is what was meant."""
    directory, authority = places
    make_secrets(Service(), directory, **authority)
    meant = Certificate.read(directory / "tls.crt", directory / "tls.key")
    (directory / "tls.crt").unlink()
    make_secrets(Service(), directory, **authority)
    assert Certificate.read(directory / "tls.crt", directory / "tls.key") == meant


def test_a_certificate_is_renewed_with_its_names(places):
    """And by the same authority, so that callers need nothing new."""
    directory, authority = places
    make_secrets(Service(), directory, **authority, names=["triton.example.com"])
    old = Certificate.read(directory / "tls.crt", directory / "tls.key")
    assert {"triton.example.com", "localhost", "127.0.0.1", "gateway"} <= set(old.names)
    new = renew_certificate(directory, **authority, names=["10.0.0.7"])
    assert Certificate.read(directory / "tls.crt", directory / "tls.key") == new
    assert new.names == (*old.names, "10.0.0.7")
    assert new.key_pem != old.key_pem
    assert is_issued_by(new, open_authority(directory=authority["authority"], make=False)[0])


def test_a_certificate_of_another_authority_is_not_renewed(places):
    """The message says which command puts in place what that one has renewed."""
    directory, authority = places
    directory.mkdir()
    own = make_server_certificate(make_authority("own"), ["triton.example.com"])
    install_server_certificate(directory, own)
    with pytest.raises(InvalidCertificate, match="naiad deploy certificate install"):
        renew_certificate(directory, **authority)
    open_authority(authority["authority"])
    with pytest.raises(InvalidCertificate, match="found another one's"):
        renew_certificate(directory, **authority)
    assert Certificate.read(directory / "tls.crt", directory / "tls.key") == own


def test_an_authority_whose_key_is_lost_is_reported_and_kept(places):
    """A new one would make every certificate of the old one worthless."""
    directory, authority = places
    make_secrets(Service(), directory, **authority)
    key = authority["authority"] / "authority.key"
    key.unlink()
    with pytest.raises(InvalidCertificate, match=r"authority.key cannot be read"):
        renew_certificate(directory, **authority)
    assert not key.exists()


def test_a_callers_certificate_never_replaces_another(tmp_path):
    """It may be in use."""
    certificate = make_client_certificate(make_authority(), ["spiffe://example.com/vision"])
    paths = write_certificate(tmp_path / "vision", "client", certificate)
    assert Certificate.read(*paths) == certificate
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o644, 0o600]
    with pytest.raises(OutputNotWritable, match="it is there already"):
        write_certificate(tmp_path / "vision", "client", certificate)


def test_a_file_where_the_directory_should_be_is_reported(places):
    """Nothing is put beside it."""
    directory, authority = places
    directory.write_text("mine")
    with pytest.raises(OutputNotWritable):
        make_secrets(Service(), directory, **authority)
    assert directory.read_text() == "mine"

"""The files that a description becomes."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from naiad.deploy import Identity, Issuer, OutputNotWritable, Pool, Rights, Service, load_service
from naiad.deploy.render import compare, render, write

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def service():
    return load_service(ROOT / "deploy/service.toml")


@pytest.fixture(scope="module")
def files(service):
    return render(service)


def snapshot(root):
    return {path.relative_to(root).as_posix(): path.stat().st_ino for path in root.rglob("*") if path.is_file()}


def test_the_committed_files_are_those_of_the_description(service):
    """What people start from, audit and review is what the tests run; `naiad deploy render` makes it so."""
    assert compare(service, ROOT).paths == ()


def test_the_same_description_gives_the_same_files(files):
    """A difference in review is a difference in meaning."""
    assert render(load_service(ROOT / "deploy/service.toml")) == files


def test_every_rendered_file_is_readable_and_says_what_made_it(files):
    """Nobody edits it by mistake; JSON has no comments."""
    for name, text in files.items():
        if name.endswith(("yaml", "yml")):
            assert "naiad deploy render" in text.splitlines()[0]
            assert isinstance(yaml.load(text, Loader=Lenient), dict)
        assert text.endswith("\n")


class Lenient(yaml.SafeLoader):
    """Takes the tags of Compose for what they stand before."""


def untagged(loader, _suffix, node):
    kinds = {yaml.MappingNode: "construct_mapping", yaml.SequenceNode: "construct_sequence"}
    return getattr(loader, kinds.get(type(node), "construct_scalar"))(node)


Lenient.add_multi_constructor("!", untagged)


def test_no_rendered_file_holds_a_secret_or_a_path_of_this_machine(files):
    """They are committed, and rendered alike everywhere."""
    for name, text in files.items():
        assert str(ROOT) not in text, name
        assert os.uname().nodename not in text or len(os.uname().nodename) < 4, name
        assert "PRIVATE KEY" not in text, name


def test_only_what_differs_is_written(tmp_path, service, files):
    """A gateway that runs takes up what changed, and nothing else moves."""
    assert write(service, tmp_path).missing == tuple(files)
    before = snapshot(tmp_path)
    assert not write(service, tmp_path)
    assert snapshot(tmp_path) == before
    stricter = replace(service, identities=(replace(service.identities[0], rights=Rights(infer=("other",))),))
    difference = compare(stricter, tmp_path)
    assert "deploy/gateway/authorize.yaml" in difference.stale
    assert difference.missing == difference.left_over == ()
    assert write(stricter, tmp_path) == difference
    after = snapshot(tmp_path)
    assert {name for name in before if before[name] != after[name]} == set(difference.stale)


def test_what_an_earlier_description_made_goes_and_what_people_made_stays(tmp_path, service):
    """A left-over file would go on being read."""
    write(service, tmp_path)
    own = tmp_path / "deploy/gateway/own.yaml"
    own.write_text("mine: true\n")
    plain = replace(service, tls=False)
    assert write(plain, tmp_path).left_over == ("deploy/gateway/certificates.yaml",)
    assert not (tmp_path / "deploy/gateway/certificates.yaml").exists()
    assert own.exists()


def test_a_file_in_the_way_is_named(tmp_path):
    """And nothing of it is lost."""
    (tmp_path / "deploy").write_text("mine")
    with pytest.raises(OutputNotWritable, match="expected to write deploy"):
        write(Service(), tmp_path)
    assert (tmp_path / "deploy").read_text() == "mine"


@pytest.mark.parametrize(
    "service",
    [
        Service(),
        Service(tls=False, anonymous=Rights(infer=("*",))),
        Service(pools=(Pool(name="main", num_replicas=1), Pool(name="next", repository="s3://models/next"))),
        Service(
            client_certificates="required",
            issuers=(Issuer(name="login", issuer="https://login.example.com", audiences=("naiad",)),),
            identities=(Identity(name="a", certificates=("spiffe://x/a",), tokens=("login/a",), requests_per_s=0.5),),
        ),
    ],
)
def test_whatever_a_description_allows_is_rendered(service):
    """The smallest, one without TLS, one with several pools, one with every way to be somebody."""
    assert {"docker-compose.yml", "deploy/gateway/envoy.yaml", "deploy/monitoring/prometheus.yml"} <= set(
        render(service)
    )

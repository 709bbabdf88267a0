"""The rendering of identities, rights, limits and issuers."""

import re

import pytest
import yaml

from naiad.deploy._gateway.identity import filters, render_identity
from naiad.deploy._gateway.lua import script
from naiad.deploy.place import Place
from naiad.deploy.service import Identity, Issuer, Rights, Service

PLACE = Place(config_dir="/config", secrets_dir="/secrets")


def config(service: Service, name: str) -> dict:
    """The one filter's configuration in a file."""
    (extension,) = yaml.safe_load(render_identity(service, PLACE)[f"{name}.yaml"])["resources"]
    assert extension["name"] == name
    return extension["typed_config"]


def test_every_filter_has_its_file():
    """What the listener waits for is there, whatever the service needs."""
    names = [each["name"] for each in filters(Service(), PLACE)]
    assert names == ["tokens", "authorize", "limits"]
    assert list(render_identity(Service(), PLACE)) == [f"{name}.yaml" for name in names]
    for each in filters(Service(), PLACE):
        path = each["config_discovery"]["config_source"]["path_config_source"]["path"]
        assert path == f"/config/{each['name']}.yaml"
        assert each["config_discovery"]["type_urls"] == [config(Service(), each["name"])["@type"]]


def test_the_same_service_is_rendered_alike():
    """No times, no order of chance."""
    service = Service(identities=(Identity(name="a", rights=Rights(infer=("x", "y*"))), Identity(name="b")))
    assert render_identity(service, PLACE) == render_identity(service, PLACE)


def test_names_cannot_leave_their_quotes():
    """A path or a certificate's name with quotes, line breaks or other letters is only ever a text in the program."""
    evil = 'x"]=1}end--\\"ä'
    identity = Identity(name="a", certificates=(evil,))
    service = Service(identities=(identity,), client_certificates="optional")
    text = script(service, Place(config_dir="/c", secrets_dir='/s"\nos.exit()'))
    assert evil not in text
    assert '["x\\034]=1}end--\\092\\034\\195\\164"] = "a"' in text
    assert '["secrets"] = "/s\\034\\010os.exit()"' in text


@pytest.mark.parametrize("rate", [0.01, 0.5, 1, 7, 19.9, 20, 1000, 1_000_000])
def test_buckets_are_filled_at_the_rate(rate: float):
    """And not more often than Envoy can."""
    service = Service(identities=(Identity(name="a", requests_per_s=rate), Identity(name="free")))
    (descriptor,) = config(service, "limits")["descriptors"]
    bucket = descriptor["token_bucket"]
    interval_s = float(re.fullmatch(r"([0-9.]+)s", bucket["fill_interval"])[1])
    assert interval_s >= 0.05
    assert bucket["tokens_per_fill"] / interval_s == pytest.approx(rate, rel=1e-6)
    assert bucket["max_tokens"] >= 1


def test_bursts_are_as_described():
    """A second's worth, or what the identity says."""
    identities = (Identity(name="a", requests_per_s=7), Identity(name="b", requests_per_s=7, burst=100))
    service = Service(identities=identities, anonymous=Rights(), anonymous_requests_per_s=3)
    descriptors = config(service, "limits")["descriptors"]
    found = {each["entries"][0]["value"]: each["token_bucket"]["max_tokens"] for each in descriptors}
    assert found == {"a": 7, "b": 100, "anonymous": 3}


def test_each_issuer_is_a_provider_and_a_bad_token_is_left_to_the_filter():
    """Tokens end, their audience is checked, and nothing is refused before the filter that logs it."""
    issuers = (Issuer(name="corp", issuer="https://corp.test", audiences=("naiad",)), Issuer(name="b", issuer="b"))
    found = config(Service(issuers=issuers), "tokens")
    assert found["providers"]["corp"]["audiences"] == ["naiad"]
    assert found["providers"]["corp"]["local_jwks"]["filename"] == "/secrets/jwks/corp.json"
    assert all(provider["require_expiration"] for provider in found["providers"].values())
    (rule,) = found["rules"]
    assert rule["requires"]["requires_any"]["requirements"] == [
        {"provider_name": "corp"},
        {"provider_name": "b"},
        {"allow_missing_or_failed": {}},
    ]

"""What `naiad deploy check` and `render` ask the real Envoy."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from naiad.deploy import Canary, Endpoint, GatewayError, Identity, Issuer, Pool, Rights, Service, load_service
from naiad.deploy.compose import compose_place
from naiad.deploy.gateway import Gateway
from naiad.deploy.load import parse_service
from naiad.deploy.trial import try_gateway

ROOT = Path(__file__).parents[2]


def naiad(*args):
    return subprocess.run(
        [sys.executable, "-m", "naiad.cli", "deploy", *args], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "service",
    [
        load_service(ROOT / "deploy/service.toml"),
        Service(),
        Service(tls=False, anonymous=Rights(infer=("*",), observe=("*",), admin=True)),
        Service(
            client_certificates="required",
            revocations=True,
            issuers=(Issuer(name="login", issuer="https://login.example.com", audiences=("naiad", "other")),),
            identities=(
                Identity(name="a", certificates=("spiffe://x/a",), tokens=("login/a",), requests_per_s=0.5, burst=3),
                Identity(name="b@example.com", rights=Rights(infer=("a-*", "b"), observe=("*",)), request_mb=0.5),
            ),
        ),
    ],
    ids=["ours", "default", "open", "every-way-in"],
)
def test_envoy_takes_what_a_description_becomes(service):
    """Not only the first file, which is all that --mode validate reads: all of them."""
    try_gateway(service, compose_place(service))


def test_envoy_takes_a_canary_and_a_shadow():
    """With replicas of other pools, whose names nothing resolves here."""
    text = 'pools = [{ name = "main" }, { name = "next" }]\ncanary = { pool = "next", weight_percent = 5 }\n'
    service = parse_service(text + 'shadow = { pool = "next", percent = 12.5, models = ["digits"] }\n')
    try_gateway(service, compose_place(service))


def test_envoy_reads_names_as_the_names_they_are():
    """Its reader of YAML takes more words for truth values and numbers than Python's writer quotes."""
    odd = ("n", "Y", "on", "1e5", "0x1F", "08", "1.5", "~", "null")
    names = tuple(name for name in odd if name not in ("~",))
    service = Service(
        issuers=(Issuer(name="n", issuer="1e5", audiences=odd, claim="y"),),
        identities=tuple(
            Identity(name=name, rights=Rights(infer=names), requests_per_s=1, tokens=(f"n/{name}",)) for name in names
        ),
        pools=(Pool(name="y"), Pool(name="n")),
        canary=Canary(pool="n", weight_percent=1, models=names),
    )
    try_gateway(service, compose_place(service))


def test_what_envoy_refuses_is_told_in_its_words():
    """A port beyond all ports is in a file that --mode validate does not open."""
    service = Service(pools=(Pool(name="main"),))
    place = compose_place(service)
    wrong = replace(place, endpoints={"main": (Endpoint(name="main-0", host="main-0", grpc_port=70_000),)})
    with pytest.raises(GatewayError, match=r"PortValue|port_value|70000"):
        try_gateway(service, wrong)


def test_check_ends_with_what_it_found(tmp_path):
    """The description of the repository is right, and Envoy says so."""
    done = naiad("check", str(ROOT / "deploy/service.toml"))
    assert (done.returncode, "Envoy takes the gateway's configuration" in done.stdout) == (0, True), done.stderr
    done = naiad("render", str(ROOT / "deploy/service.toml"), "--output", str(tmp_path))
    assert (done.returncode, (tmp_path / "docker-compose.yml").exists()) == (0, True), done.stderr


def test_status_tells_what_a_gateway_tells(tmp_path):
    """By its own process's notes here, and by its metrics from elsewhere; replicas that do not answer are a failure."""
    service = Service(tls=False, anonymous=Rights(infer=("*",)))
    nobody = {"main": (Endpoint(name="main-0", host="127.0.0.1", grpc_port=1, http_port=2),)}
    with Gateway(service, endpoints=nobody) as gateway:
        done = naiad("status", "--json")
        (mine,) = [each for each in json.loads(done.stdout) if each["grpc_url"] == gateway.grpc_url]
        assert done.returncode == 1
        assert (mine["ok"], [each["name"] for each in mine["replicas"]]) == (False, ["main-0"])
        assert "unhealthy" in naiad("status").stdout
        done = naiad("status", "--metrics-url", gateway.metrics_url, "--json")
        assert done.returncode == 1
        (pool,) = json.loads(done.stdout)
        assert (pool["name"], pool["num_replicas"], pool["num_healthy"], pool["ok"]) == ("main", 1, 0, False)
        assert "main" in naiad("status", "--metrics-url", gateway.metrics_url).stdout

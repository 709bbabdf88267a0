"""The real Envoy takes what is rendered, for services that differ in every part."""

import pytest

from gateway_matrix import SERVICES, make_place
from naiad.deploy.trial import try_gateway


@pytest.mark.parametrize("name", SERVICES)
def test_envoy_accepts_every_service(name: str) -> None:
    """Validated, then started with all of its files; nothing is refused."""
    try_gateway(SERVICES[name], make_place(SERVICES[name]))


@pytest.mark.parametrize("name", ["default", "both"])
def test_envoy_accepts_names_and_a_collector(name: str) -> None:
    """As in containers: replicas and collector are looked up by name."""
    place = make_place(SERVICES[name], host="localhost", collector=("localhost", 4317))
    try_gateway(SERVICES[name], place)

"""Identity, rights and limits: the filters that look at a request before it is routed."""

from typing import Any

from naiad.deploy.place import Place
from naiad.deploy.service import Service


def render_identity(service: Service, place: Place) -> dict[str, str]:
    """Return `authorize.yaml`, `limits.yaml` and `tokens.yaml`, as far as the service needs them."""
    return {}


def filters(service: Service, place: Place) -> list[dict[str, Any]]:
    """Return the HTTP filters, in order; their configurations are the files of `render_identity` (ECDS)."""
    return []

"""`routes.yaml`: which pool answers what, how long it may take, and what is tried again.

Identity and model are known here: `authorize.yaml` has checked the request, and put the model into `x-naiad-model`.
"""

from naiad.deploy._gateway._document import Message, from_file, resources, seconds, typed
from naiad.deploy._gateway.clusters import Protocol, cluster_name
from naiad.deploy.place import Place
from naiad.deploy.service import Service

_MIB = 1 << 20
ROUTES = "routes"


def route_source(place: Place) -> Message:
    """How the listener finds the routes."""
    return {"route_config_name": ROUTES, "config_source": from_file(place.config_dir, "routes.yaml")}


def render_routes(service: Service, place: Place) -> dict[str, str]:
    """Return `routes.yaml`."""
    main = service.pools[0].name
    routes = [_route(service, main, "grpc"), _route(service, main, "http")]
    host = {"name": "service", "domains": ["*"], "routes": routes}
    configuration = typed("envoy.config.route.v3.RouteConfiguration", name=ROUTES, virtual_hosts=[host])
    return {"routes.yaml": resources([configuration])}


def _route(service: Service, pool: str, protocol: Protocol) -> Message:
    match: Message = {"prefix": "/"}
    if protocol == "grpc":
        match["grpc"] = {}
    return {
        "match": match,
        "route": {
            "cluster": cluster_name(pool, protocol),
            "timeout": seconds(service.limits.response_timeout_s),
        },
    }

"""The gateway's configuration: a service and a place in, Envoy's files out.

    envoy.yaml                    what Envoy reads once: administration, metrics, limits of the process
    listeners.yaml                TLS, HTTP, filters, the access log
    routes.yaml                   which pool answers what: models, canary, shadow, retries, time-outs
    clusters.yaml                 pools: balancing, health, limits
    endpoints-<pool>-grpc.yaml    replicas of a pool whose addresses are known; also -http
    authorize.yaml, limits.yaml, tokens.yaml    identity, rights and limits (`identity`)
    certificates.yaml, clients.yaml             where the certificates lie, that they may be replaced at any time

All but the first may be replaced while it runs, each by a rename.
"""

from naiad.deploy._gateway.bootstrap import render_bootstrap
from naiad.deploy._gateway.certificates import render_certificates
from naiad.deploy._gateway.clusters import render_clusters
from naiad.deploy._gateway.identity import render_identity
from naiad.deploy._gateway.listeners import render_listeners
from naiad.deploy._gateway.routes import render_routes
from naiad.deploy.place import Place
from naiad.deploy.service import Service

__all__ = ["render_gateway"]


def render_gateway(service: Service, place: Place) -> dict[str, str]:
    """Return the text of each file, by name, in the order in which a running gateway may be given them.

    Endpoints come before the clusters that need them, clusters before the routes, filters before the listeners.
    """
    return {
        **render_certificates(service, place),
        **render_clusters(service, place),
        **render_identity(service, place),
        **render_routes(service, place),
        **render_listeners(service, place),
        **render_bootstrap(service, place),
    }

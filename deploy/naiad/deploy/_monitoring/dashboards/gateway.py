"""Who calls, what is refused, and how is the gateway?"""

from naiad.deploy._monitoring.names import (
    DENIED,
    IDENTITIES,
    LIMITED,
    MEMORY_PERCENT,
    SERVICE,
    UNAUTHENTICATED,
    clusters,
    counted,
)
from naiad.deploy._monitoring.panels import Json, Panel, Query, Row, Variable, dashboard
from naiad.deploy.service import Service

RATE = "$__rate_interval"
IDENTITY = 'identity=~"$identity"'
CERTIFICATE_DAYS = "(envoy_listener_ssl_certificate_expiration_unix_time_seconds - time()) / 86400"


def gateway(service: Service) -> Json:
    """The page of the gateway."""
    return dashboard(
        uid="naiad-gateway",
        title=f"{service.name}: gateway",
        description="Identities and what they are refused; replicas as the gateway sees them; connections.",
        rows=[_identities(), _replicas(service), _connections(service), _process()],
        variables=[Variable(name="identity", metric=IDENTITIES)],
    )


def _identities() -> Row:
    kinds = {"no valid credential": UNAUTHENTICATED, "no right": DENIED, "over a limit": LIMITED}
    refusals = tuple(
        Query(expression=f"{counted(IDENTITIES, RATE, *kind)} or vector(0)", legend=name)
        for name, kind in kinds.items()
    )
    limited = counted(IDENTITIES, RATE, *(f"{IDENTITY},{each}" for each in LIMITED), by="identity")
    everything = counted(IDENTITIES, RATE, IDENTITY, by="identity")
    return Row(
        title="Callers",
        panels=(
            _panel(
                "Requests by identity",
                "All calls per second; “-” came without one.",
                "reqps",
                everything,
                "{{identity}}",
            ),
            Panel(
                title="Refusals",
                description="Calls per second that the gateway refused: 401, 403, 413 and 429, or their gRPC codes.",
                unit="reqps",
                queries=refusals,
            ),
            _panel(
                "Over a limit",
                "Share of an identity's calls that were over its rate or its size.",
                "percentunit",
                f"({limited} or {everything} * 0) / ({everything} > 0)",
                "{{identity}}",
            ),
        ),
    )


def _replicas(service: Service) -> Row:
    only = clusters(service)

    def upstream(metric: str) -> str:
        return f"sum by (envoy_cluster_name) (rate(envoy_cluster_{metric}{{{only}}}[{RATE}]))"

    cluster = "{{envoy_cluster_name}}"
    asked = f"{upstream('upstream_rq_total')} > 0"
    return Row(
        title="Replicas, as the gateway sees them",
        panels=(
            _panel(
                "Healthy",
                "Replicas that requests may go to.",
                "short",
                f"envoy_cluster_membership_healthy{{{only}}}",
                cluster,
            ),
            _panel(
                "Retries",
                "Share of requests that were repetitions.",
                "percentunit",
                f"{upstream('upstream_rq_retry')} / ({asked})",
                cluster,
            ),
            Panel(
                title="Ejections and failed health checks",
                description="Replicas left out for their failures, and checks of their health that failed, per second.",
                unit="short",
                queries=(
                    Query(
                        expression=upstream("outlier_detection_ejections_enforced_total"), legend=f"{cluster} ejected"
                    ),
                    Query(expression=upstream("health_check_failure"), legend=f"{cluster} check failed"),
                ),
            ),
            _panel(
                "In flight",
                "Requests that replicas work on.",
                "short",
                f"envoy_cluster_upstream_rq_active{{{only}}}",
                cluster,
            ),
            _panel(
                "Too many",
                "Requests refused as too many were in flight already.",
                "reqps",
                upstream("upstream_rq_pending_overflow"),
                cluster,
            ),
            _panel(
                "Failed connections",
                "Connections to replicas that could not be made.",
                "short",
                upstream("upstream_cx_connect_fail"),
                cluster,
            ),
        ),
    )


def _connections(service: Service) -> Row:
    traffic = (
        Query(expression=f"sum(rate(envoy_http_downstream_cx_rx_bytes_total{{{SERVICE}}}[{RATE}]))", legend="in"),
        Query(expression=f"sum(rate(envoy_http_downstream_cx_tx_bytes_total{{{SERVICE}}}[{RATE}]))", legend="out"),
    )
    panels = (
        _panel(
            "Connections",
            f"Of callers; at {service.limits.num_connections} further ones are refused.",
            "short",
            f"envoy_http_downstream_cx_active{{{SERVICE}}}",
            "connections",
        ),
        Panel(title="Bytes", description="To and from callers.", unit="Bps", queries=traffic),
    )
    return Row(title="Connections", panels=(*panels, *(_tls() if service.tls else ())))


def _tls() -> tuple[Panel, ...]:
    errors = "sum(rate(envoy_listener_ssl_connection_error[$__rate_interval]))"
    return (
        Panel(
            title="TLS",
            description="Handshakes per second that succeeded, and that failed.",
            unit="short",
            queries=(
                Query(expression=f"sum(rate(envoy_listener_ssl_handshake[{RATE}]))", legend="handshakes"),
                Query(expression=errors, legend="failed"),
            ),
        ),
        Panel(
            title="Certificate",
            description="Days until the certificate that callers see ends.",
            unit="d",
            kind="stat",
            width=4,
            height=4,
            warn=21,
            warn_below=True,
            queries=(Query(expression=CERTIFICATE_DAYS, legend="{{envoy_tls_certificate}}"),),
        ),
    )


def _process() -> Row:
    return Row(
        title="Process",
        panels=(
            _panel("Memory", "Of Envoy.", "bytes", "envoy_server_memory_physical_size", "memory"),
            _panel("Uptime", "Falls to zero at a start.", "s", "envoy_server_uptime", "uptime"),
            _panel(
                "Memory, as a share",
                "Of what it may have; at 95 % it accepts no more requests.",
                "percent",
                MEMORY_PERCENT,
                "memory",
            ),
        ),
    )


def _panel(title: str, text: str, unit: str, expression: str, legend: str) -> Panel:
    return Panel(title=title, description=text, unit=unit, queries=(Query(expression=expression, legend=legend),))

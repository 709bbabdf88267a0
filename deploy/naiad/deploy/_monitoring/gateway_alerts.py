"""Alerts about the gateway: whether it is there, what it refuses, what it has too much of."""

from naiad.deploy._monitoring.alert import Alert, Severity
from naiad.deploy._monitoring.names import (
    DENIED,
    FILTER_ERRORS,
    IDENTITIES,
    LIMITED,
    MEMORY_PERCENT,
    SERVICE,
    UNAUTHENTICATED,
    clusters,
    counted,
)
from naiad.deploy._monitoring.text import number
from naiad.deploy.service import Service

DAYS_LEFT: dict[Severity, int] = {"critical": 3, "warning": 21}
"""Days until a certificate ends that are too few."""
RETRIES = 0.05
CONNECTIONS = 0.8
REFUSALS_PER_S = 1.0
MEMORY = 85.0
"""Percent."""
LIMITED_RATIO = 0.1
LIMITED_PER_S = 0.1
NUM_REFUSED = 10
"""Refused in five minutes as too many were in flight; a few at a start are none that somebody should be woken for."""
CANARY_MARGIN = 0.01
REJECTIONS = (
    "envoy_cluster_manager_cds_update_rejected",
    "envoy_listener_manager_lds_update_rejected",
    "envoy_http_rds_update_rejected",
    "envoy_cluster_update_rejected",
    "envoy_sds_update_rejected",
    "envoy_sds_key_rotation_failed",
    "envoy_extension_config_discovery_http_filter_authorize_update_rejected",
    "envoy_extension_config_discovery_http_filter_limits_update_rejected",
    "envoy_extension_config_discovery_http_filter_tokens_update_rejected",
)
"""Counters of configurations that the gateway would not have."""


def gateway_alerts(service: Service) -> tuple[Alert, ...]:
    """All of them; what the service cannot have, such as certificates without TLS, has no alert."""
    certificates = (_expires("critical"), _expires("warning")) if service.tls else ()
    refused = (_certificates_refused(),) if service.tls and service.client_certificates != "none" else ()
    return (*_presence(), *certificates, *_callers(), *refused, *_load(service), *_canary(service))


def _presence() -> tuple[Alert, ...]:
    rejected = " + ".join(f"(sum(increase({name}[10m])) or vector(0))" for name in REJECTIONS)
    return (
        Alert(
            name="GatewayDown",
            expression='up{job="gateway"} == 0',
            hold_s=60,
            severity="critical",
            summary="The gateway is down",
            description="The gateway ({{ $labels.instance }}) has not answered Prometheus for a minute.",
        ),
        Alert(
            name="GatewayRestarts",
            expression='resets(envoy_server_uptime{job="gateway"}[30m]) > 2',
            severity="warning",
            summary="The gateway keeps restarting",
            description="The gateway started {{ $value }} times in half an hour; each cut its callers' connections.",
        ),
        Alert(
            name="ConfigRejected",
            expression=f"{rejected} > 0",
            severity="warning",
            summary="The gateway refused a configuration",
            description="In ten minutes the gateway refused {{ $value | humanize }} files of its configuration, and "
            "goes on with those it had.",
        ),
        Alert(
            name="FilterErrors",
            expression=f"sum(increase({FILTER_ERRORS}[5m])) > 0",
            severity="warning",
            summary="The gateway's filter fails",
            description="{{ $value | humanize }} requests in five minutes met an error in the filter that decides who "
            "may do what; they were refused.",
        ),
    )


def _expires(severity: Severity) -> Alert:
    days = DAYS_LEFT[severity]
    left = "min by (certificate) (label_replace(envoy_listener_ssl_certificate_expiration_unix_time_seconds, "
    left += '"certificate", "$1", "envoy_tls_certificate", "(.+)")) - time()'
    return Alert(
        name="CertificateExpires",
        expression=f"({left}) / 86400 < {days}",
        hold_s=60,
        severity=severity,
        summary="A certificate of the gateway ends in {{ $value | humanize }} days",
        description=f"{{{{ $labels.certificate }}}} has {{{{ $value | humanize }}}} days left, fewer than {days}; then "
        "calls fail. `certificate` is what callers see, `clients` the authority of their certificates.",
    )


def _callers() -> tuple[Alert, ...]:
    limited = counted(IDENTITIES, "5m", *LIMITED, by="identity")
    return (
        Alert(
            name="AuthenticationFailures",
            expression=f"{counted(IDENTITIES, '5m', *UNAUTHENTICATED)} > {REFUSALS_PER_S:g}",
            hold_s=300,
            severity="warning",
            summary="{{ $value | humanize }} calls a second without a valid credential",
            description="For five minutes {{ $value | humanize }} calls a second came without a key, or with one that "
            "is unknown, revoked or expired: somebody tries keys, or a caller missed a rotation.",
        ),
        Alert(
            name="CallsDenied",
            expression=f"{counted(IDENTITIES, '5m', *DENIED, by='identity')} > {REFUSALS_PER_S:g}",
            hold_s=300,
            severity="warning",
            summary="{{ $labels.identity }} keeps calling what it may not",
            description="For five minutes {{ $labels.identity }} made {{ $value | humanize }} calls a second that it "
            "has no right to.",
        ),
        Alert(
            name="RateLimited",
            expression=f"{limited} / {counted(IDENTITIES, '5m', '', by='identity')} > {LIMITED_RATIO:g} "
            f"and {limited} > {LIMITED_PER_S:g}",
            hold_s=600,
            severity="warning",
            summary="{{ $labels.identity }} is at its limit",
            description="For ten minutes {{ $value | humanizePercentage }} of the calls of {{ $labels.identity }} were "
            "over its rate or its size, and refused.",
        ),
    )


def _certificates_refused() -> Alert:
    kinds = ("fail_verify_error", "fail_verify_no_cert", "fail_verify_san")
    failed = " + ".join(f"sum(rate(envoy_listener_ssl_{kind}[5m]))" for kind in kinds)
    return Alert(
        name="CertificatesRefused",
        expression=f"{failed} > {REFUSALS_PER_S:g}",
        hold_s=300,
        severity="warning",
        summary="{{ $value | humanize }} connections a second with a certificate that is not believed",
        description="For five minutes {{ $value | humanize }} connections a second were refused for their client "
        "certificate: of another authority, revoked, expired, or none.",
    )


def _load(service: Service) -> tuple[Alert, ...]:
    only = clusters(service)
    retried = f"sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_rq_retry{{{only}}}[5m]))"
    asked = f"sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_rq_total{{{only}}}[5m]))"
    overflows = ("upstream_rq_pending_overflow", "upstream_rq_active_overflow", "upstream_rq_retry_overflow")
    refused = " + ".join(
        f"sum by (envoy_cluster_name) (increase(envoy_cluster_{name}{{{only}}}[5m]))" for name in overflows
    )
    connections = service.limits.num_connections
    return (
        Alert(
            name="RetriesHigh",
            expression=f"{retried} / ({asked} > 0) > {RETRIES:g}",
            hold_s=300,
            severity="warning",
            summary="{{ $value | humanizePercentage }} of what {{ $labels.envoy_cluster_name }} gets are repetitions",
            description="For five minutes {{ $value | humanizePercentage }} of the requests that replicas were sent "
            "were repetitions: callers do not see the failures behind them yet.",
        ),
        Alert(
            name="GatewayOverload",
            expression=f"{refused} > {NUM_REFUSED}",
            hold_s=60,
            severity="critical",
            summary="The gateway refuses requests: {{ $labels.envoy_cluster_name }} has too many already",
            description="In five minutes {{ $value | humanize }} requests to {{ $labels.envoy_cluster_name }} were "
            f"refused as {service.limits.num_pending} were in flight or waiting already.",
        ),
        Alert(
            name="ConnectionsHigh",
            expression=f"sum(envoy_http_downstream_cx_active{{{SERVICE}}}) > {number(CONNECTIONS * connections)}",
            hold_s=300,
            severity="warning",
            summary="The gateway has {{ $value }} connections",
            description=f"Callers hold {{{{ $value }}}} connections; at {connections} further ones are refused.",
        ),
        Alert(
            name="GatewayMemory",
            expression=f"max({MEMORY_PERCENT}) > {MEMORY:g}",
            hold_s=120,
            severity="warning",
            summary="The gateway uses {{ $value }} % of its memory",
            description=f"The gateway uses {{{{ $value }}}} % of the {service.limits.memory_mb} MiB that it may have; "
            "from 90 % on it ends the largest streams, from 95 % on it accepts no requests.",
        ),
    )


def _canary(service: Service) -> tuple[Alert, ...]:
    if service.canary is None or not service.canary.weight_percent:
        return ()
    pool, weight = service.canary.pool, service.canary.weight_percent
    counter = "envoy_cluster_upstream_rq_total"
    asked = f'sum(increase({counter}{{envoy_cluster_name=~"{pool}-(grpc|http)"}}[15m]))'
    others = f'sum(increase({counter}{{envoy_cluster_name=~"{service.pools[0].name}-(grpc|http)"}}[15m]))'
    return (
        Alert(
            name="CanaryIdle",
            expression=f"{asked} == 0 and {others} * {number(weight / 100)} > 50",
            severity="warning",
            summary=f"The canary {pool} gets no requests",
            description=f"Pool {pool} should get {weight:g} % of the requests, and got none in a quarter of an hour.",
        ),
        _canary_fails(pool, service.pools[0].name),
    )


def _canary_fails(pool: str, main: str) -> Alert:
    """Worse than the pool beside it by a margin, on enough requests to know (30 min at 0.03/s are 50)."""
    ratio = "model_pool:naiad_error_ratio:rate30m"
    worse = f'{ratio}{{pool="{pool}"}} > on (model) group_left () (2 * {ratio}{{pool="{main}"}} + {CANARY_MARGIN:g})'
    enough = f'model_pool:naiad_requests:rate30m{{pool="{pool}"}} > 0.03'
    return Alert(
        name="CanaryFails",
        expression=f"{worse} and {enough}",
        hold_s=120,
        severity="warning",
        summary=f"{{{{ $labels.model }}}} fails more often on the canary {pool} than on {main}",
        description=f"{{{{ $value | humanizePercentage }}}} of what {pool} got for {{{{ $labels.model }}}} in "
        f"half an hour failed: more than twice as many as on {main}, and {CANARY_MARGIN:.0%}.",
    )

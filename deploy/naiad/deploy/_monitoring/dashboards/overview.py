"""Is the service well? Traffic, errors, latency, saturation, replicas."""

from naiad.deploy._monitoring.names import PENDING, SERVICE, error_ratio, quantile, requests
from naiad.deploy._monitoring.panels import Json, Panel, Query, Row, dashboard
from naiad.deploy.service import Service

RATE = "$__rate_interval"


def overview(service: Service) -> Json:
    """The first page."""
    rows = [_now(service), _traffic(), _saturation(), _replicas()]
    rows += [_canary(service)] if service.canary else []
    return dashboard(
        uid="naiad-overview",
        title=f"{service.name}: overview",
        description="Traffic, errors, latency and saturation of the whole service, as its callers see it.",
        rows=[*rows, _budgets(service)] if service.objectives else rows,
    )


def _now(service: Service) -> Row:
    num_replicas = sum(pool.num_replicas for pool in service.pools)
    return Row(
        title="Now",
        panels=(
            _stat("Requests", "Inferences per second.", "reqps", requests(RATE, by="")),
            _stat(
                "Errors",
                "Inferences that failed by the service's fault.",
                "percentunit",
                error_ratio("5m", by=""),
                0.01,
            ),
            _stat(
                "p99",
                "Latency that 99 % of all inferences stay below, at the gateway.",
                "ms",
                quantile(0.99, "5m", by=""),
            ),
            _stat(
                "Replicas",
                f"Replicas that the gateway sends requests to; the description says {num_replicas}.",
                "short",
                "sum(pool:naiad_replicas_admitted:count)",
                num_replicas,
                below=True,
            ),
            _stat("Alerts", "Alerts that fire.", "short", 'count(ALERTS{alertstate="firing"}) or vector(0)', 1),
            _stat(
                "Gateway", "1 while Prometheus reaches the gateway.", "short", 'min(up{job="gateway"})', 1, below=True
            ),
        ),
    )


def _traffic() -> Row:
    quantiles = (
        Query(expression=quantile(share, RATE), legend=f"{{{{model}}}} {name}") for name, share in _SHARES.items()
    )
    return Row(
        title="Traffic",
        panels=(
            Panel(
                title="Requests by model",
                description="Inferences per second that the gateway answered.",
                unit="reqps",
                queries=(Query(expression=requests(RATE), legend="{{model}}"),),
            ),
            Panel(
                title="Errors by model",
                description="Share of inferences that failed by the service's fault, not by the caller's.",
                unit="percentunit",
                queries=(Query(expression=error_ratio(RATE), legend="{{model}}"),),
            ),
            Panel(
                title="Latency by model",
                description="Half and 99 % of the inferences stay below, from the first byte in to the last byte out.",
                unit="ms",
                queries=tuple(quantiles),
            ),
        ),
    )


def _saturation() -> Row:
    return Row(
        title="Saturation",
        panels=(
            Panel(
                title="Busy instances by model",
                description="Model instances that compute at a time, over all replicas. At the number that there are, "
                "more requests only wait longer.",
                unit="short",
                queries=(
                    Query(expression="sum by (model) (replica:triton_busy_instances:mean5m)", legend="{{model}}"),
                ),
            ),
            Panel(
                title="Wait in the queue",
                description="How long a request that arrives now waits: those who wait, over those served per second.",
                unit="s",
                queries=(Query(expression="max by (model) (replica:triton_wait_s:estimate1m)", legend="{{model}}"),),
            ),
            Panel(
                title="In flight and waiting",
                description="Requests at the gateway, and those of them that wait in Triton's queues.",
                unit="short",
                queries=(
                    Query(expression=f"sum(envoy_http_downstream_rq_active{{{SERVICE}}})", legend="at the gateway"),
                    Query(expression=f"sum({PENDING})", legend="in queues"),
                ),
            ),
        ),
    )


def _replicas() -> Row:
    return Row(
        title="Replicas",
        panels=(
            Panel(
                title="Replicas that answer",
                description="By pool: those that Prometheus reaches, and those that the gateway sends requests to.",
                unit="short",
                queries=(
                    Query(expression="pool:triton_up:count", legend="{{pool}} up"),
                    Query(expression="pool:naiad_replicas_admitted:count", legend="{{pool}} admitted"),
                ),
            ),
            Panel(
                title="Requests by replica",
                description="What each replica answered per second. Replicas of a pool should be alike.",
                unit="reqps",
                queries=(
                    Query(expression="sum by (pool, replica) (replica:triton_requests:rate5m)", legend="{{replica}}"),
                ),
            ),
            Panel(
                title="CPU by replica",
                description="Use of the processors of the machine that a replica runs on.",
                unit="percentunit",
                most=1,
                queries=(Query(expression="nv_cpu_utilization", legend="{{replica}}"),),
            ),
        ),
    )


def _canary(service: Service) -> Row:
    return Row(
        title="Canary",
        panels=(
            Panel(
                title="Requests by pool",
                description="Inferences per second, over half an hour.",
                unit="reqps",
                width=12,
                queries=(Query(expression="sum by (pool) (model_pool:naiad_requests:rate30m)", legend="{{pool}}"),),
            ),
            Panel(
                title="Errors by pool",
                description="Share of inferences that failed by the service's fault, over half an hour; at twice "
                "the main pool's an alert tells.",
                unit="percentunit",
                width=12,
                queries=(Query(expression="model_pool:naiad_error_ratio:rate30m", legend="{{model}} {{pool}}"),),
            ),
        ),
    )


def _budgets(service: Service) -> Row:
    """What is left of the objectives' budgets, over the last three days."""
    return Row(
        title="Objectives, over three days",
        panels=tuple(
            Panel(
                title=f"Error budget left: {objective.model}",
                description=f"{objective.error_percent:g} % of its inferences may fail; below zero more did.",
                unit="percentunit",
                kind="stat",
                width=6,
                height=4,
                warn=0,
                warn_below=True,
                queries=(
                    Query(
                        expression=f'1 - model:naiad_error_ratio:rate3d{{model="{objective.model}"}} '
                        f"/ {objective.error_percent / 100:.10g}"
                    ),
                ),
            )
            for objective in service.objectives
        ),
    )


def _stat(
    title: str, text: str, unit: str, expression: str, warn: float | None = None, *, below: bool = False
) -> Panel:
    return Panel(
        title=title,
        description=text,
        unit=unit,
        kind="stat",
        width=4,
        height=4,
        warn=warn,
        warn_below=below,
        queries=(Query(expression=expression),),
    )


_SHARES = {"p50": 0.5, "p99": 0.99}

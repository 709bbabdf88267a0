"""What does a model do? Latency, batches, where the time goes, failures."""

from naiad.deploy._monitoring.names import DURATION, INFERENCES, PENDING, quantile, requests
from naiad.deploy._monitoring.panels import Json, Panel, Query, Row, Variable, dashboard
from naiad.deploy.service import Service

RATE = "$__rate_interval"
MODEL = 'model=~"$model"'
HERE = f'{MODEL},replica=~"$replica"'


def model(service: Service) -> Json:
    """The page of one model or several."""
    return dashboard(
        uid="naiad-model",
        title=f"{service.name}: models",
        description="Latency at the gateway; batches, queues, computing and failures in Triton.",
        rows=[_callers(), _triton(), _failures()],
        variables=[
            Variable(name="model", metric="nv_inference_request_success"),
            Variable(name="replica", metric="nv_inference_request_success"),
        ],
    )


def _callers() -> Row:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    quantiles = tuple(
        Query(expression=quantile(share, RATE, MODEL), legend=f"{{{{model}}}} {name}") for name, share in shares.items()
    )
    buckets = f"sum by (le) (increase({DURATION}_bucket{{{INFERENCES},{MODEL}}}[{RATE}]))"
    answers = requests(RATE, MODEL, by="model, code, grpc_code")
    return Row(
        title="What callers see",
        panels=(
            Panel(
                title="Requests by answer",
                description="Inferences per second by HTTP status and gRPC status (0 is OK).",
                unit="reqps",
                queries=(Query(expression=answers, legend="{{model}} {{code}} {{grpc_code}}"),),
            ),
            Panel(title="Latency", description="At the gateway.", unit="ms", queries=quantiles),
            Panel(
                title="Latencies",
                description="How many inferences took how long (µs).",
                unit="short",
                kind="heatmap",
                queries=(Query(expression=buckets, legend="{{le}}"),),
            ),
        ),
    )


def _triton() -> Row:
    return Row(
        title="What Triton does",
        panels=(
            Panel(
                title="Where the time goes",
                description="Mean of a request's time in Triton: waiting, copying in, computing, copying out.",
                unit="ms",
                stacked=True,
                queries=tuple(_part(name) for name in ("queue", "compute_input", "compute_infer", "compute_output")),
            ),
            _lines(
                "Batch size", "Rows that are computed at once, on average.", "short", "replica:triton_batch_size:mean5m"
            ),
            _lines("Waiting", "Requests in the queue.", "short", PENDING),
            _lines(
                "Busy instances",
                "Instances that compute at a time; at the number that the configuration gives, the model is saturated.",
                "short",
                "replica:triton_busy_instances:mean5m",
            ),
            _lines("Wait", "How long a request that arrives now waits.", "s", "replica:triton_wait_s:estimate1m"),
            _lines("Requests by replica", "Requests that succeeded.", "reqps", "replica:triton_requests:rate5m"),
        ),
    )


def _failures() -> Row:
    def counter(name: str, by: str) -> str:
        return f"sum by ({by}) (rate({name}{{{HERE}}}[{RATE}]))"

    cache = tuple(
        Query(expression=counter(f"nv_cache_num_{kind}_per_model", "model"), legend=f"{{{{model}}}} {kind}")
        for kind in ("hits", "misses")
    )
    return Row(
        title="Failures and cache",
        panels=(
            Panel(
                title="Failures by reason",
                description="BACKEND: a process died or the model raised; REJECTED: a queue was full or a request too "
                "late; CANCELED: by the caller; OTHER: also what fails inside an ensemble, again.",
                unit="reqps",
                width=12,
                queries=(
                    Query(
                        expression=counter("nv_inference_request_failure", "model, reason"),
                        legend="{{model}} {{reason}}",
                    ),
                ),
            ),
            Panel(
                title="Response cache",
                description="Hits and misses per second, of models that ask for a cache.",
                unit="ops",
                width=12,
                queries=cache,
            ),
        ),
    )


def _part(name: str) -> Query:
    spent = f"sum(rate(nv_inference_{name}_duration_us{{{HERE}}}[{RATE}]))"
    answered = f"sum(rate(nv_inference_request_success{{{HERE}}}[{RATE}]))"
    return Query(expression=f"{spent} / 1000 / ({answered} > 0)", legend=name.replace("_", " "))


def _lines(title: str, text: str, unit: str, metric: str) -> Panel:
    query = Query(expression=f"{metric}{{{HERE}}}", legend="{{model}} {{replica}}")
    return Panel(title=title, description=text, unit=unit, queries=(query,))

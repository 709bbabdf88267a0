"""What is measured, by its name: the gateway's own metrics (`naiad.deploy._gateway.metrics`), and Triton's.

Latency comes from the gateway, as Triton has no histogram of it; batches, queues and what kind of failure it was come
from Triton.
"""

from naiad.deploy._monitoring.text import number
from naiad.deploy.service import Service

REQUESTS = "envoy_naiad_requests"
DURATION = "envoy_naiad_request_duration_us"
IDENTITIES = "envoy_naiad_identity_requests"

INFERENCES = 'right="infer"'
"""Requests that promises are about."""
WITHIN_LIMITS = 'grpc_code!="8",code!~"413|429"'
"""Not those that the gateway refused for their size or their rate: they would make every ratio look better."""

FAULTS = ('grpc_code=~"2|4|13|14|15"', 'grpc_code="",code=~"5.."')
"""Answers that are the service's fault. By gRPC: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS; the
others say what the caller did (wrong input, no right, over its limit, cancelled)."""
UNAUTHENTICATED = ('grpc_code="16"', 'grpc_code="",code="401"')
DENIED = ('grpc_code="7"', 'grpc_code="",code="403"')
LIMITED = ('grpc_code="8"', 'grpc_code="",code=~"413|429"')
"""Over a rate or a size."""

SERVICE = 'envoy_http_conn_manager_prefix="service"'
"""Callers' connections and requests; Prometheus's own at the gateway are not in it."""

FILTER_ERRORS = "envoy_http_lua_errors"
"""Errors of the gateway's own filter, which decides who may do what; each is a request refused."""
MEMORY_PERCENT = "envoy_overload_envoy_resource_monitors_fixed_heap_pressure"
"""Use of the memory that the gateway may have."""

REPLICA = "model, version, pool, replica"
"""Labels of a model on a replica."""
BACKEND_FAILURES = 'nv_inference_request_failure{reason="BACKEND"}'
PENDING = "nv_inference_pending_request_count"

GPU = (
    "nv_gpu_utilization",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_memory_total_bytes",
    "nv_gpu_power_usage",
    "nv_gpu_power_limit",
    "nv_energy_consumption",
)
"""Metrics that Triton has on a machine with NVIDIA GPUs only (by its documentation; not under MIG)."""


def counted(metric: str, window: str, *alternatives: str, by: str = "", function: str = "rate") -> str:
    """The sum of what a counter gained, over several selections of its series that do not overlap."""
    parts = " or ".join(f"{function}({metric}{{{each}}}[{window}])" for each in alternatives)
    return f"sum by ({by}) ({parts})" if by else f"sum({parts})"


def requests(window: str, only: str = "", *, by: str = "model", function: str = "rate") -> str:
    """Inferences per second that were answered, well or not; those over a limit were not."""
    return counted(REQUESTS, window, both(INFERENCES, WITHIN_LIMITS, only), by=by, function=function)


def faults(window: str, only: str = "", *, by: str = "model", function: str = "rate") -> str:
    """Inferences per second that failed by the service's fault."""
    return counted(REQUESTS, window, *(both(INFERENCES, only, each) for each in FAULTS), by=by, function=function)


def error_ratio(window: str, only: str = "", *, by: str = "model") -> str:
    """The share of inferences that failed by the service's fault; 0 where none did, nothing where there were none."""
    everything = requests(window, only, by=by)
    return f"({faults(window, only, by=by)} or {everything} * 0) / ({everything} > 0)"


def quantile(share: float, window: str, only: str = "", *, by: str = "model") -> str:
    """The latency in ms that this share of inferences stayed below, interpolated between the histogram's buckets."""
    grouped = both(by, "le")
    buckets = f"sum by ({grouped}) (rate({DURATION}_bucket{{{both(INFERENCES, only)}}}[{window}]))"
    return f"histogram_quantile({number(share)}, {buckets}) / 1000"


def clusters(service: Service) -> str:
    """A matcher of the gateway's metrics about replicas; it has other clusters, for itself and for traces."""
    pools = "|".join(pool.name for pool in service.pools)
    return f'envoy_cluster_name=~"({pools})-(grpc|http)"'


def both(*matchers: str) -> str:
    """Several matchers, or labels, at once; those that are empty do not count."""
    return ",".join(matcher for matcher in matchers if matcher)

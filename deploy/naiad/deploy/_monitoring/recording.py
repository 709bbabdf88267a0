"""Recording rules: what dashboards and alerts ask again and again, computed once."""

from typing import Any

from naiad.deploy._monitoring.names import PENDING, REPLICA, error_ratio, faults, quantile, requests
from naiad.deploy._monitoring.targets import Pace
from naiad.deploy._monitoring.text import duration
from naiad.deploy.service import Service

ERROR_WINDOWS = ("5m", "30m", "1h", "6h", "3d")
"""Windows of the error ratio: pairs of them tell a burst from a leak (`objectives`)."""
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

Rule = dict[str, Any]


def groups(service: Service, pace: Pace) -> list[dict[str, Any]]:
    """The groups of `rules/recording.yml`."""
    short = [_record(f"model:naiad_error_ratio:rate{window}", error_ratio(window)) for window in ERROR_WINDOWS[:2]]
    long = [_record(f"model:naiad_error_ratio:rate{window}", error_ratio(window)) for window in ERROR_WINDOWS[2:]]
    return [
        {
            "name": "naiad-gateway",
            "rules": [_record("model:naiad_requests:rate5m", requests("5m")), *short, *_latency()],
        },
        {"name": "naiad-long", "interval": duration(4 * pace.evaluate_s), "rules": long},
        {"name": "naiad-triton", "rules": [*_triton(), *_replicas(service), *_canary(service)]},
    ]


def _latency() -> list[Rule]:
    return [_record(f"model:naiad_duration_ms:{name}_5m", quantile(share, "5m")) for name, share in QUANTILES.items()]


def _triton() -> list[Rule]:
    """What Triton's counters say about each model on each replica."""
    executions = f"sum by ({REPLICA}) (rate(nv_inference_exec_count[5m]))"
    answered = f"sum by ({REPLICA}) (rate(nv_inference_request_success[5m]))"
    rows = f"sum by ({REPLICA}) (rate(nv_inference_count[5m]))"
    return [
        _record("replica:triton_requests:rate5m", answered),
        _record("replica:triton_batch_size:mean5m", f"{rows} / ({executions} > 0)"),
        _record("replica:triton_queue_ms:mean5m", f"{_spent('queue')} / 1000 / ({answered} > 0)"),
        _record("replica:triton_compute_ms:mean5m", f"{_computed()} / 1000 / ({answered} > 0)"),
        # Every request of a batch is given the whole time of the batch: a batch of 8 counts its second eight times.
        _record("replica:triton_busy_instances:mean5m", f"{_computed()} / 1e6 / ({answered} > 0) * {executions}"),
        # Little's law: those who wait, over those who are served per second, is how long they wait. Unlike the mean
        # of the queue times it also counts those who have not been served yet.
        _record("replica:triton_wait_s:estimate1m", _wait()),
    ]


def _spent(where: str) -> str:
    return f"sum by ({REPLICA}) (rate(nv_inference_{where}_duration_us[5m]))"


def _computed() -> str:
    return f"({' + '.join(_spent(f'compute_{part}') for part in ('input', 'infer', 'output'))})"


def _wait() -> str:
    waiting = f"sum by ({REPLICA}) (avg_over_time({PENDING}[1m]))"
    return f"{waiting} / (sum by ({REPLICA}) (rate(nv_inference_request_success[1m])) > 0)"


def _replicas(service: Service) -> list[Rule]:
    """How many replicas of each pool answer Prometheus, and how many the gateway sends requests to."""
    pools = "|".join(pool.name for pool in service.pools)

    def held(state: str) -> str:
        members = f'envoy_cluster_membership_{state}{{envoy_cluster_name=~"({pools})-grpc"}}'
        return f'sum by (pool) (label_replace({members}, "pool", "$1", "envoy_cluster_name", "(.+)-grpc"))'

    return [
        _record("pool:triton_up:count", 'sum by (pool) (up{job="triton"})'),
        _record("pool:naiad_replicas:count", held("total")),
        _record("pool:naiad_replicas_admitted:count", held("healthy")),
    ]


def _canary(service: Service) -> list[Rule]:
    """How often the answers of the canary and of the main pool are failures, for the models that both serve."""
    if service.canary is None:
        return []
    source = '"pool", "$1", "cluster", "(.+?)(-or-main)?-(grpc|http)"'
    by = "model, cluster"
    failed = f"sum by (model, pool) (label_replace({faults('30m', by=by)}, {source}))"
    asked = f"sum by (model, pool) (label_replace({requests('30m', by=by)}, {source}))"
    return [
        _record("model_pool:naiad_requests:rate30m", asked),
        _record("model_pool:naiad_error_ratio:rate30m", f"({failed} or {asked} * 0) / ({asked} > 0)"),
    ]


def _record(name: str, expression: str) -> Rule:
    return {"record": name, "expr": expression}

"""Alerts about the replicas: whether they are there, and whether they do what they are asked."""

from naiad.deploy._monitoring.alert import Alert
from naiad.deploy._monitoring.names import BACKEND_FAILURES, PENDING, REPLICA
from naiad.deploy.service import Service

WAIT_S = 1.0
"""Seconds in a replica's queue that are too many."""
MEMORY_SHARE = 0.95


def replica_alerts(service: Service) -> tuple[Alert, ...]:
    """All of them."""
    return (*_presence(service), *_work(), _memory())


def _presence(service: Service) -> tuple[Alert, ...]:
    shadow = f'{{pool!="{service.shadow.pool}"}}' if service.shadow else ""
    return (
        Alert(
            name="ReplicaDown",
            expression='up{job="triton"} == 0',
            hold_s=120,
            severity="warning",
            summary="Replica {{ $labels.replica }} of pool {{ $labels.pool }} is down",
            description="{{ $labels.replica }} ({{ $labels.instance }}) has not answered Prometheus for two minutes: "
            "the other replicas carry its load.",
        ),
        Alert(
            name="NoReplicas",
            expression=f"pool:naiad_replicas_admitted:count{shadow} == 0",
            hold_s=30,
            severity="critical",
            summary="Pool {{ $labels.pool }} has no replica that can be asked",
            description="The gateway holds {{ $value }} replicas of {{ $labels.pool }} healthy: its requests fail.",
        ),
        Alert(
            name="ReplicaNotReady",
            expression="pool:naiad_replicas:count - pool:naiad_replicas_admitted:count > 0",
            hold_s=300,
            severity="warning",
            summary="The gateway sends nothing to {{ $value }} replicas of pool {{ $labels.pool }}",
            description="For five minutes {{ $value }} replicas of pool {{ $labels.pool }} were not ready (a model is "
            "loading, or did not load), ejected for their failures, or drained.",
        ),
        Alert(
            name="ReplicaUnstable",
            expression='changes(up{job="triton"}[30m]) > 5',
            severity="warning",
            summary="Replica {{ $labels.replica }} keeps going away",
            description="{{ $labels.replica }} went away or came back {{ $value }} times in half an hour.",
        ),
    )


def _work() -> tuple[Alert, ...]:
    failures = f"sum by ({REPLICA}) (increase({BACKEND_FAILURES}[2m]))"
    idle = f"sum by ({REPLICA}) (increase(nv_inference_exec_count[5m])) == 0"
    where = "{{ $labels.model }} on {{ $labels.replica }}"
    return (
        Alert(
            name="StubDead",
            expression=f"{failures} > 0",
            hold_s=180,
            severity="critical",
            summary=f"The backend of {where} is dead or broken",
            description=f"{where} failed {{{{ $value | humanize }}}} requests in its backend in two minutes, and has "
            "gone on for three: the process that runs the model is gone, or raises. Triton does not start it again, "
            "and still says that it is ready.",
        ),
        Alert(
            name="BackendFails",
            expression=f"{failures} > 0",
            severity="warning",
            summary=f"Requests failed in the backend of {where}",
            description=f"{where} failed {{{{ $value | humanize }}}} requests in its backend in two minutes: a process "
            "died and was replaced, or the model raised.",
        ),
        Alert(
            name="Stuck",
            expression=f"sum by ({REPLICA}) ({PENDING}) > 0 and {idle}",
            hold_s=120,
            severity="critical",
            summary=f"{where} does nothing with what waits",
            description=f"{{{{ $value }}}} requests wait for {where}, which has executed none in five minutes.",
        ),
        Alert(
            name="QueueLong",
            expression=f"replica:triton_wait_s:estimate1m > {WAIT_S:g}",
            hold_s=120,
            severity="warning",
            summary=f"Requests for {where} wait for seconds",
            description=f"At its present rate a request for {where} waits {{{{ $value | humanizeDuration }}}}, "
            f"more than {WAIT_S:g} s: more arrives than the replicas can do.",
        ),
    )


def _memory() -> Alert:
    return Alert(
        name="GpuMemory",
        expression=f"nv_gpu_memory_used_bytes / (nv_gpu_memory_total_bytes > 0) > {MEMORY_SHARE:g}",
        hold_s=300,
        severity="warning",
        summary="The memory of a GPU of {{ $labels.replica }} is almost full",
        description="{{ $value | humanizePercentage }} of the memory of {{ $labels.gpu_uuid }} is in use: the next "
        "model, instance or larger batch may not fit.",
    )

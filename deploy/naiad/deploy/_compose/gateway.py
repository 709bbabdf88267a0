"""The gateway: the only container that callers reach."""

from math import ceil
from typing import Final

from naiad.deploy._compose import images
from naiad.deploy._compose.container import SECRETS, USER, container, health, mount, scratch
from naiad.deploy._compose.document import Fields
from naiad.deploy.place import Place
from naiad.deploy.service import Service

RUNNER: Final = "deploy/containers/run_gateway.sh"
_GOODBYE_S: Final = 5
"""Seconds in which clients are told to leave before the listeners close."""
_GRACE_S: Final = 10
_OVERHEAD_MB: Final = 256
"""What Envoy needs beside the heap whose size it limits itself."""
_READY: Final = (
    "exec 3<>/dev/tcp/127.0.0.1/{port}"
    " && printf 'GET /ready HTTP/1.1\\r\\nHost: gateway\\r\\nConnection: close\\r\\n\\r\\n' >&3"
    ' && read -r _ status _ <&3 && [ "$status" = 200 ]'
)


def gateway(service: Service, place: Place) -> Fields:
    """The container; it drains when it is asked to end, and becomes unhealthy at the start of that."""
    drain_s = ceil(service.limits.response_timeout_s) + _GOODBYE_S
    everywhere = "0.0.0.0" if service.tls else "127.0.0.1"  # noqa: S104 - without TLS only this host may call
    return container(
        images.GATEWAY,
        user=USER,
        memory=f"{service.limits.memory_mb + _OVERHEAD_MB}m",
        num_processes=256,
        stop_s=drain_s + _GRACE_S,
        entrypoint=["bash", "/naiad/run_gateway.sh", place.admin, str(drain_s)],
        command=arguments(place),
        # Not that it waits for them: what depends on others is stopped first, and drains while they still answer.
        depends_on={
            replica.host: {"condition": "service_started"} for pool in place.endpoints.values() for replica in pool
        },
        networks=["inference", "edge"],
        ports=[f"${{NAIAD_ADDRESS:-{everywhere}}}:${{NAIAD_GRPC_PORT:-{place.port}}}:{place.port}"],
        volumes=[
            mount(f"./{RUNNER}", "/naiad/run_gateway.sh"),
            mount("./deploy/gateway", place.config_dir),
            mount(SECRETS, place.secrets_dir),
        ],
        tmpfs=[scratch("/tmp", size="16m")],  # noqa: S108
        # Two file descriptors for every request: of the caller and of the replica.
        ulimits={"nofile": max(65536, 4 * service.limits.num_connections)},
        healthcheck=health(["bash", "-c", _READY.format(port=place.metrics_port)], start_s=30),
    )


def arguments(place: Place) -> list[str]:
    """Envoy's command line; its parser takes no `--name=value`."""
    config = ["--config-path", f"{place.config_dir}/envoy.yaml"]
    drain = ["--drain-time-s", str(_GOODBYE_S), "--drain-strategy", "immediate"]
    log = ["--file-flush-interval-msec", "1000"]  # a crash loses a second of the access log at most, not ten
    return ["envoy", *config, "--disable-hot-restart", *drain, *log, "--log-level", "info"]

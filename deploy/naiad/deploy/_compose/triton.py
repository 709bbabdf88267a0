"""A replica: NVIDIA's Triton in a container that only the gateway and the monitoring reach."""

from posixpath import isabs, join, normpath
from typing import Any, Final

from naiad.deploy._compose import images
from naiad.deploy._compose.container import USER, container, health, mount, scratch, secret_file, volume
from naiad.deploy._compose.document import Fields
from naiad.deploy._compose.run_triton import PLACEHOLDER
from naiad.deploy.service import Pool, Service

KEY: Final = "triton-admin-key"
CLOUD_CREDENTIALS: Final = "cloud-credentials"
RUNNER: Final = "deploy/containers/run_triton.py"
_RESTRICTED: Final = "model-repository,shared-memory,trace,logging"
_GRACE_S: Final = 10
"""Seconds beyond Triton's own time-out until it is killed."""
_RESPONSES: Final = 1024
"""Answers that one stream may hold for a caller who does not fetch them (25.03 and later)."""


_HEALTH: Final = "http://127.0.0.1:8000/v2/health"
_HUNG_S: Final = 60
"""Seconds without an answer until a server that answered before is killed; the gateway has left it by then."""
_SPANS: Final = "http://collector:4318/v1/traces"


def host(pool: Pool, index: int) -> str:
    """The name of a replica's container, and of its host on the internal network."""
    return f"triton-{pool.name}-{index}"


def remote(pool: Pool) -> bool:
    """Whether the pool's repository is fetched over the network."""
    return "://" in (pool.repository or "")


def replica(service: Service, pool: Pool, index: int, *, gpus: list[str] | None) -> Fields:
    """The container of one replica; `gpus` are the ids of its own, None for all that there are."""
    triton = service.triton
    return container(
        images.triton(triton.release),
        user=USER,
        memory="${NAIAD_TRITON_MEMORY:-32g}",
        num_processes=4096,
        stop_s=triton.exit_timeout_s + _GRACE_S,
        command=command(service, pool, index),  # after the image's entrypoint, which looks at the driver
        networks=["inference", "storage"] if remote(pool) else ["inference"],
        secrets=[KEY, *([CLOUD_CREDENTIALS] if remote(pool) else [])],
        environment=_environment(pool),
        volumes=_volumes(pool, index),
        # Python models are unpacked and run here; a repository on the network is fetched to disk, not to memory.
        **({} if remote(pool) else {"tmpfs": [scratch("/tmp", size="1g", executable=True)]}),  # noqa: S108
        shm_size=f"{triton.shared_memory_mb}m",
        ulimits={"memlock": -1, "stack": 64 << 20},
        deploy={"resources": {"reservations": {"devices": [_devices(gpus)]}}},
        healthcheck=health(["curl", "--fail", "--silent", f"{_HEALTH}/ready"], start_s=120),
    )


def command(service: Service, pool: Pool, index: int, *, gpus: bool = True) -> list[str]:
    """What the container runs: Triton, by the runner that puts in the key of its restricted APIs."""
    runner = ["python3", "/naiad/run_triton.py", secret_file(KEY), f"{_HEALTH}/live", str(_HUNG_S)]
    return [
        *runner,
        *_triton(service, pool),
        *_tracing(host(pool, index)),
        *([] if gpus else ["--allow-gpu-metrics=false"]),
    ]


def _triton(service: Service, pool: Pool) -> list[str]:
    explicit = service.triton.model_control == "explicit"
    return [
        "tritonserver",
        f"--model-repository={pool.repository if remote(pool) else '/models'}",
        f"--model-control-mode={service.triton.model_control}",
        *(["--load-model=*"] if explicit else []),
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        "--exit-on-error=true",
        f"--exit-timeout-secs={service.triton.exit_timeout_s}",
        f"--grpc-max-response-pool-size={_RESPONSES}",
        f"--grpc-restricted-protocol={_RESTRICTED}:admin-key={PLACEHOLDER}",
        f"--http-restricted-api={_RESTRICTED}:admin-key={PLACEHOLDER}",
        "--log-format=ISO8601",
    ]


def _tracing(name: str) -> list[str]:
    """Where spans would go; none are made until an administrator sets `trace_level` for a model.

    Triton then traces every request that has a trace's id, those included that the gateway has not chosen.
    """
    settings = ["mode=opentelemetry", f"opentelemetry,url={_SPANS}", f"opentelemetry,resource=service.name={name}"]
    return [f"--trace-config={setting}" for setting in settings]


def _environment(pool: Pool) -> dict[str, str]:
    credentials = {"TRITON_CLOUD_CREDENTIAL_PATH": secret_file(CLOUD_CREDENTIALS)} if remote(pool) else {}
    # A backend that runs ONNX Runtime's own builds would report models and the machine to its maker.
    return {"HOME": "/tmp", "ORT_DISABLE_TELEMETRY": "1", **credentials}  # noqa: S108 - the container's own


def _volumes(pool: Pool, index: int) -> list[Fields]:
    runner = mount(f"./{RUNNER}", "/naiad/run_triton.py")
    if remote(pool):
        return [runner, volume(f"fetched-{pool.name}-{index}", "/tmp")]  # noqa: S108
    return [runner, mount(_local(pool), "/models")]


def _local(pool: Pool) -> str:
    """The repository's path for Compose, whose paths begin at the root; the description lies in `deploy`."""
    if pool.repository is None:
        return "${NAIAD_MODEL_REPOSITORY:-./model_repository}"
    return pool.repository if isabs(pool.repository) else "./" + normpath(join("deploy", pool.repository))


def _devices(gpus: list[str] | None) -> dict[str, Any]:
    chosen = {"count": "${NAIAD_GPU_COUNT:-all}"} if gpus is None else {"device_ids": gpus}
    return {"driver": "nvidia", **chosen, "capabilities": ["gpu"]}

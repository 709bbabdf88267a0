"""A service as containers: `docker-compose.yml` for machines with NVIDIA GPUs, an override for those without."""

from importlib.resources import files
from itertools import count
from typing import Final

from naiad.deploy._compose import gateway, triton
from naiad.deploy._compose.container import SECRETS
from naiad.deploy._compose.document import Fields, Override, document
from naiad.deploy._compose.monitoring import PASSWORD, TRACES, WEBHOOK, monitoring, traces_volume
from naiad.deploy._compose.tools import tools
from naiad.deploy.place import Endpoint, Place
from naiad.deploy.service import Pool, Service

__all__ = ["compose_place", "render_compose"]

MAIN: Final = "docker-compose.yml"
CPU: Final = "deploy/compose.cpu.yml"

_INTERNAL: Final = {"internal": True}

_MAIN_EXPLAINED: Final = """
Replicas of Triton on NVIDIA GPUs, a gateway in front of them, and what watches them.

  naiad deploy secrets                       makes the keys and certificates that are missing
  docker compose up --detach --wait          starts everything, and waits until every model is ready
  docker compose run --rm tools audit …      runs naiad on the internal network
  docker compose down                        drains and stops it

Needs the NVIDIA driver and the NVIDIA Container Toolkit on the host; without GPUs:
  docker compose -f docker-compose.yml -f deploy/compose.cpu.yml up --detach --wait

NAIAD_MODEL_REPOSITORY  the repository of models (./model_repository)
NAIAD_SECRETS           the directory with keys and certificates (./deploy/secrets), readable by
NAIAD_UID, NAIAD_GID    the user that the containers run as (1000)
NAIAD_ADDRESS           the address at which callers reach the gateway
NAIAD_GRPC_PORT         the gateway's port, for gRPC and HTTP
NAIAD_GPU_COUNT         how many GPUs a replica sees, where they share them (all)
NAIAD_TRITON_MEMORY     how much memory of the host a replica may use (32g)
NAIAD_GRAFANA_PORT      Grafana's port on this host only (3000)
"""

_CPU_EXPLAINED: Final = """
The same service on a machine without GPUs, for trying it out:

  docker compose -f docker-compose.yml -f deploy/compose.cpu.yml up --detach --wait
"""


def compose_place(service: Service) -> Place:
    """Where the gateway of the containers runs: everything has a name on the internal network."""
    return Place(
        config_dir="/etc/naiad/gateway",
        secrets_dir="/etc/naiad/secrets",
        endpoints={
            pool.name: tuple(
                Endpoint(name=f"{pool.name}-{index}", host=triton.host(pool, index))
                for index in range(pool.num_replicas)
            )
            for pool in service.pools
        },
        collector=("collector", 4317),
    )


def render_compose(service: Service) -> dict[str, str]:
    """Return the Compose files and what their containers run, by their paths from the project's root."""
    return {
        MAIN: document(_main(service), _MAIN_EXPLAINED),
        CPU: document(_without_gpus(service), _CPU_EXPLAINED),
        **{path: _program(path) for path in (triton.RUNNER, gateway.RUNNER)},
    }


def _program(path: str) -> str:
    return (files("naiad.deploy") / "_compose" / path.rpartition("/")[2]).read_text()


def _main(service: Service) -> Fields:
    return {
        "name": service.name,
        "services": {
            **_replicas(service),
            "gateway": gateway.gateway(service, compose_place(service)),
            **monitoring(),
            "tools": tools(),
        },
        "networks": _networks(service),
        "volumes": {"prometheus": {}, TRACES: traces_volume()} | {name: {} for name in _fetched(service)},
        "secrets": {name: {"file": f"{SECRETS}/{name}"} for name in _secrets(service)},
    }


def _replicas(service: Service) -> dict[str, Fields]:
    """All replicas; where each has GPUs of its own, they are dealt out in the order of the pools."""
    per_replica, first = service.triton.gpus_per_replica, count()
    return {
        triton.host(pool, index): triton.replica(
            service,
            pool,
            index,
            gpus=None if per_replica == "all" else [str(next(first)) for _ in range(per_replica)],
        )
        for pool in service.pools
        for index in range(pool.num_replicas)
    }


def _networks(service: Service) -> dict[str, Fields]:
    """Who reaches whom: what has no need of the world outside is on networks without a way there."""
    outside = ["edge", "dashboards", "alerts", *(["storage"] if any(map(triton.remote, service.pools)) else [])]
    return {name: dict(_INTERNAL) for name in ("inference", "monitoring")} | {name: {} for name in outside}


def _fetched(service: Service) -> list[str]:
    return [
        f"fetched-{pool.name}-{index}"
        for pool in service.pools
        if triton.remote(pool)
        for index in range(pool.num_replicas)
    ]


def _secrets(service: Service) -> list[str]:
    cloud = [triton.CLOUD_CREDENTIALS] if any(map(triton.remote, service.pools)) else []
    return [triton.KEY, *cloud, PASSWORD, WEBHOOK]


def _without_gpus(service: Service) -> Fields:
    return {
        "services": {
            triton.host(pool, index): _small_replica(service, pool, index)
            for pool in service.pools
            for index in range(pool.num_replicas)
        }
        | {"prometheus": {"mem_limit": "512m"}, "grafana": {"mem_limit": "256m"}, "collector": {"mem_limit": "256m"}}
    }


def _small_replica(service: Service, pool: Pool, index: int) -> Fields:
    return {
        "command": triton.command(service, pool, index, gpus=False),
        "deploy": Override({}),
        "mem_limit": "${NAIAD_TRITON_MEMORY:-4g}",
        "shm_size": "256m",
    }

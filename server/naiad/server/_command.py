"""Puts together Triton's command line and environment, from start to end."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from naiad.server import _gpus, _machine, _pools
from naiad.server._gpus import Chosen
from naiad.server._home import Home
from naiad.server._ports import LOOPBACK

ADMIN_KEY: Final = "admin-key"
_RESTRICTED: Final = "model-repository,shared-memory,trace,logging"
_PASSED_ON: Final = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "USER",
)
_PASSED_ON_PREFIXES: Final = (
    *("CUDA_", "NVIDIA_", "NCCL_", "CUBLAS_", "CUDNN_", "OMP_"),
    *("ORT_", "PYTORCH_", "TORCH_", "TF_", "TRITON_", "AWS_", "OTEL_"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """Where one server listens, always on loopback."""

    grpc: int
    http: int
    metrics: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a server is started with, apart from its ports and its models."""

    home: Home
    private: Path
    repository: str
    """A path, or a URL with the endpoint in it."""
    region_prefix: str
    admin_secret: str
    auto_complete: bool
    response_cache_bytes: int
    exit_timeout_s: int
    gpus: Chosen
    cuda_memory_pool_bytes: int | None
    pinned_memory_pool_bytes: int | None
    extra_args: tuple[str, ...]


_MALLOC: Final = {"MALLOC_MMAP_THRESHOLD_": 64 << 20, "MALLOC_TRIM_THRESHOLD_": 128 << 20}
"""glibc would map each large tensor freshly and return it at once: a page fault for every 4 KiB of it (mallopt(3))."""


def command(settings: Settings, ports: Ports, models: Sequence[str]) -> list[str]:
    """The command line; paths in it have no spaces where Triton would hand them to a shell."""
    return [
        str(settings.home.server),
        f"--model-repository={settings.repository}",
        f"--backend-directory={settings.private / 'be'}",
        *_listening(ports),
        *_guarding(settings.admin_secret),
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        # A model that does not load is reported by us, with the reason.
        "--exit-on-error=false",
        # Stubs that start at once on few cores can stall each other for longer than Triton tolerates.
        f"--model-load-thread-count={min(4, os.cpu_count() or 1)}",
        *([] if settings.auto_complete else ["--disable-auto-complete-config"]),
        f"--exit-timeout-secs={settings.exit_timeout_s}",
        f"--backend-config=python,shm-region-prefix-name={settings.region_prefix}",
        *_caching(settings),
        *_computing(settings),
        *settings.extra_args,
    ]


def environment(settings: Settings) -> dict[str, str]:
    """The whole environment of the server and its stubs; nothing else of ours leaks in."""
    ours = {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    libraries = [settings.private / "lib", *settings.home.libraries]
    inherited = os.environ.get("LD_LIBRARY_PATH", "")
    ours["LD_LIBRARY_PATH"] = os.pathsep.join([*map(str, libraries), *filter(None, [inherited])])
    ours |= {name: os.environ.get(name, str(size)) for name, size in _MALLOC.items()}
    ours.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else it reports models and this machine to its maker
    ours["PATH"] = os.pathsep.join(_search_path(settings.private))
    if settings.gpus.visible is not None:
        ours[_gpus.VISIBLE] = settings.gpus.visible
    return ours


def admin_headers(secret: str) -> Mapping[str, str]:
    """What an HTTP request needs for the restricted APIs."""
    return {ADMIN_KEY: secret}


def _search_path(private: Path) -> list[str]:
    bash = _machine.bash()
    found = [str(bash.parent)] if bash else []
    return list(dict.fromkeys([str(private / "env" / "bin"), "/usr/local/bin", "/usr/bin", "/bin", *found]))


def _listening(ports: Ports) -> list[str]:
    return [
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={ports.grpc}",
        f"--http-address={LOOPBACK}",
        f"--http-port={ports.http}",
        f"--metrics-address={LOOPBACK}",
        f"--metrics-port={ports.metrics}",
    ]


def _guarding(secret: str) -> list[str]:
    return [
        f"--grpc-restricted-protocol={_RESTRICTED}:{ADMIN_KEY}={secret}",
        f"--http-restricted-api={_RESTRICTED}:{ADMIN_KEY}={secret}",
    ]


def _computing(settings: Settings) -> list[str]:
    if not settings.gpus.gpus:
        return ["--allow-gpu-metrics=false"]
    pools = _pools.arguments(
        settings.gpus.gpus, cuda_bytes=settings.cuda_memory_pool_bytes, pinned_bytes=settings.pinned_memory_pool_bytes
    )
    return ["--allow-gpu-metrics=true", *pools]


def _caching(settings: Settings) -> list[str]:
    if not settings.response_cache_bytes:
        return []
    return [
        f"--cache-config=local,size={settings.response_cache_bytes}",
        f"--cache-directory={settings.home.caches}",
    ]

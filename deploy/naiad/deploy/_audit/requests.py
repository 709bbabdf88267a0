"""The requests of an audit. None changes anything: they read, or name a model that cannot exist."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

ODD_MODEL: Final = f"naiad_audit_{secrets.token_hex(8)}"
"""A model that no repository has; loading it fails, unloading it does nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """An API, as both protocols call it."""

    api: str
    method: str
    """Of `inference.GRPCInferenceService`."""
    build: Callable[[Any], Any]
    """Makes the message, from the module of the protocol's messages."""
    verb: str
    path: str
    content: bytes | None = None


LIVE: Final = "live"
READY: Final = "ready"
METADATA: Final = "metadata"
INDEX: Final = "index"
LOAD: Final = "load"
UNLOAD: Final = "unload"
INFER: Final = "infer"
SYSTEM_MEMORY: Final = "system shared memory"
CUDA_MEMORY: Final = "CUDA shared memory"
TRACE: Final = "trace settings"
LOG: Final = "log settings"
STATISTICS: Final = "statistics"

REQUESTS: Final = (
    Request(api=LIVE, method="ServerLive", build=lambda m: m.ServerLiveRequest(), verb="GET", path="/v2/health/live"),
    Request(
        api=READY, method="ServerReady", build=lambda m: m.ServerReadyRequest(), verb="GET", path="/v2/health/ready"
    ),
    Request(api=METADATA, method="ServerMetadata", build=lambda m: m.ServerMetadataRequest(), verb="GET", path="/v2"),
    Request(
        api=INDEX,
        method="RepositoryIndex",
        build=lambda m: m.RepositoryIndexRequest(),
        verb="POST",
        path="/v2/repository/index",
    ),
    Request(
        api=LOAD,
        method="RepositoryModelLoad",
        build=lambda m: m.RepositoryModelLoadRequest(model_name=ODD_MODEL),
        verb="POST",
        path=f"/v2/repository/models/{ODD_MODEL}/load",
    ),
    Request(
        api=UNLOAD,
        method="RepositoryModelUnload",
        build=lambda m: m.RepositoryModelUnloadRequest(model_name=ODD_MODEL),
        verb="POST",
        path=f"/v2/repository/models/{ODD_MODEL}/unload",
    ),
    Request(
        api=INFER,
        method="ModelInfer",
        build=lambda m: m.ModelInferRequest(model_name=ODD_MODEL),
        verb="POST",
        path=f"/v2/models/{ODD_MODEL}/infer",
        content=b'{"inputs":[]}',
    ),
    Request(
        api=SYSTEM_MEMORY,
        method="SystemSharedMemoryStatus",
        build=lambda m: m.SystemSharedMemoryStatusRequest(),
        verb="GET",
        path="/v2/systemsharedmemory/status",
    ),
    Request(
        api=CUDA_MEMORY,
        method="CudaSharedMemoryStatus",
        build=lambda m: m.CudaSharedMemoryStatusRequest(),
        verb="GET",
        path="/v2/cudasharedmemory/status",
    ),
    Request(
        api=TRACE, method="TraceSetting", build=lambda m: m.TraceSettingRequest(), verb="GET", path="/v2/trace/setting"
    ),
    Request(api=LOG, method="LogSettings", build=lambda m: m.LogSettingsRequest(), verb="GET", path="/v2/logging"),
    Request(
        api=STATISTICS,
        method="ModelStatistics",
        build=lambda m: m.ModelStatisticsRequest(),
        verb="GET",
        path="/v2/models/stats",
    ),
)


def large_message(messages: Any, size_bytes: int) -> bytes:
    """An inference request of that size for a model that no repository has."""
    request = messages.ModelInferRequest(model_name=ODD_MODEL, raw_input_contents=[bytes(size_bytes)])
    data: bytes = request.SerializeToString()
    return data

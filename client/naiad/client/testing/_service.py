"""The methods of ``inference.GRPCInferenceService``: a parsed request in, a response message out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from naiad.client.testing._inference import Inference
from naiad.client.testing._repository import Repository, datatype_of, not_served
from naiad.client.testing._requests import METHODS, Request
from naiad.client.testing._settings import FIELDS, LogSettings, TraceSettings
from naiad.client.testing._shared_memory import SharedMemory
from naiad.client.testing._status import Refusal, invalid

SERVER_VERSION: Final = "2.51.0"  # the release whose words these are
ADMIN_HEADER: Final = "triton-grpc-protocol-admin-key"
_EXTENSIONS: Final = (
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)
_RESTRICTED: Final = ("Repository", "SystemShared", "CudaShared", "TraceSetting", "LogSettings")


class Service:
    """What the server knows, and how it answers each method."""

    def __init__(self, repository: Repository, admin_secret: str | None) -> None:
        from tritonclient.grpc import service_pb2

        self.repository = repository
        self.regions = SharedMemory()
        self._admin_secret = admin_secret
        self._trace, self._log = TraceSettings(), LogSettings()
        self._pb = service_pb2

    def answer(self, request: Request) -> Any:
        """Answer a method with one request and one response.

        Raises:
            Refusal: the server says no.
        """
        self._check_allowed(request)
        method: Callable[[Request], Any] = getattr(self, f"_{request.method}")
        return method(request)

    def infer(self, request: Request) -> Inference:
        """Find the model of a request and return what runs it.

        Raises:
            Refusal: the server says no.
        """
        self._check_allowed(request)
        message = request.message
        served, version = self.repository.find(message.model_name, message.model_version)
        return Inference(request, served, version, self.regions)

    def _check_allowed(self, request: Request) -> None:
        if request.method.startswith(_RESTRICTED) and self._admin_secret not in (
            None,
            request.metadata.get(ADMIN_HEADER),
        ):
            raise Refusal(f"This protocol is restricted, expecting header '{ADMIN_HEADER}'", "UNAVAILABLE")

    def check_draining(self, request: Request, stage: str) -> None:
        """Refuse what a server refuses that was told to stop; ``stage`` is ``"waiting"`` or ``"unloading"``.

        Raises:
            Refusal: it would be refused.
        """
        method = request.method
        if method in ("ServerLive", "ServerReady"):
            raise Refusal("Server exiting", "UNAVAILABLE")
        if method in ("ModelReady", "ModelStatistics") or method.startswith("Repository"):
            raise Refusal("Server not ready", "UNAVAILABLE")
        if method not in ("ModelInfer", "ModelStreamInfer", "ModelMetadata", "ModelConfig"):
            return
        served, version = self.repository.find(request.model or "", request.version or "")
        if stage == "unloading":
            raise not_served(served.name, version if request.version else "", served.model.versions)
        if method == "ModelConfig":
            return
        if method == "ModelMetadata":
            raise Refusal("Server not ready", "UNAVAILABLE")
        stopping = "Server is stopping, scheduler for model has stopped accepting new inference requests"
        raise Refusal(invalid(stopping, request.request_id).message, "UNAVAILABLE")

    def _ServerLive(self, _: Request) -> Any:  # noqa: N802  (named as the protocol names them)
        return self._pb.ServerLiveResponse(live=True)

    def _ServerReady(self, _: Request) -> Any:  # noqa: N802
        return self._pb.ServerReadyResponse(ready=True)

    def _ServerMetadata(self, _: Request) -> Any:  # noqa: N802
        return self._pb.ServerMetadataResponse(name="triton", version=SERVER_VERSION, extensions=_EXTENSIONS)

    def _ModelReady(self, request: Request) -> Any:  # noqa: N802
        ready = self.repository.ready(request.message.name, request.message.version)
        return self._pb.ModelReadyResponse(ready=ready)

    def _ModelMetadata(self, request: Request) -> Any:  # noqa: N802
        message = request.message
        served, version = self.repository.find(message.name, message.version)
        response = self._pb.ModelMetadataResponse(
            name=served.name,
            versions=[version] if message.version else served.model.versions,
            platform=served.config.platform or served.config.backend,
        )
        for tensors, described in ((served.config.input, response.inputs), (served.config.output, response.outputs)):
            for tensor in tensors:
                described.add(name=tensor.name, datatype=datatype_of(tensor), shape=served.shape(tensor))
        return response

    def _ModelConfig(self, request: Request) -> Any:  # noqa: N802
        served, _ = self.repository.find(request.message.name, request.message.version)
        return self._pb.ModelConfigResponse(config=served.config)

    def _ModelInfer(self, request: Request) -> Any:  # noqa: N802
        inference = self.infer(request)
        if inference.served.model.decoupled:
            raise Refusal("ModelInfer RPC doesn't support models with decoupled transaction policy", "UNIMPLEMENTED")
        (answer,) = inference.run()
        return answer

    def _ModelStatistics(self, request: Request) -> Any:  # noqa: N802
        name, version = request.message.name, request.message.version
        response = self._pb.ModelStatisticsResponse()
        for served in self.repository:
            if name not in ("", served.name):
                continue
            for number, counters in served.counters.items():
                if version in ("", number):
                    counters.fill(response.model_stats.add(name=served.name, version=number))
        if name and not response.model_stats:
            if any(served.name == name for served in self.repository):
                raise invalid(f"requested model version is not available for model '{name}'")
            raise invalid(f"requested model '{name}' is not available")
        return response

    def _RepositoryIndex(self, request: Request) -> Any:  # noqa: N802
        _check_repository(request.message)
        response = self._pb.RepositoryIndexResponse()
        for name, version, state, reason in self.repository.index():
            if state == "READY" or not request.message.ready:
                response.models.add(name=name, version=version, state=state, reason=reason)
        return response

    def _RepositoryModelLoad(self, request: Request) -> Any:  # noqa: N802
        _check_repository(request.message)
        config = None
        for key, value in request.message.parameters.items():
            if key == "config":
                config = value.string_param
            elif not key.startswith("file:"):
                raise invalid(f"unrecognized load parameter '{key}'.")
        self.repository.load(request.message.model_name, config)
        return self._pb.RepositoryModelLoadResponse()

    def _RepositoryModelUnload(self, request: Request) -> Any:  # noqa: N802
        _check_repository(request.message)
        self.repository.unload(request.message.model_name)
        return self._pb.RepositoryModelUnloadResponse()

    def _SystemSharedMemoryStatus(self, request: Request) -> Any:  # noqa: N802
        response = self._pb.SystemSharedMemoryStatusResponse()
        for region in self.regions.status(request.message.name):
            entry = response.regions[region.name]
            entry.name, entry.key = region.name, region.key
            entry.offset, entry.byte_size = region.offset, region.size_bytes
        return response

    def _SystemSharedMemoryRegister(self, request: Request) -> Any:  # noqa: N802
        message = request.message
        self.regions.register(message.name, message.key, message.offset, message.byte_size)
        return self._pb.SystemSharedMemoryRegisterResponse()

    def _SystemSharedMemoryUnregister(self, request: Request) -> Any:  # noqa: N802
        self.regions.unregister(request.message.name)
        return self._pb.SystemSharedMemoryUnregisterResponse()

    def _CudaSharedMemoryStatus(self, request: Request) -> Any:  # noqa: N802
        if request.message.name:
            raise Refusal(f"Unable to find cuda shared memory region: '{request.message.name}'", "NOT_FOUND")
        return self._pb.CudaSharedMemoryStatusResponse()

    def _CudaSharedMemoryRegister(self, _: Request) -> Any:  # noqa: N802
        raise invalid("failed to register shared memory region: invalid args")  # as a Triton without a GPU

    def _CudaSharedMemoryUnregister(self, _: Request) -> Any:  # noqa: N802
        return self._pb.CudaSharedMemoryUnregisterResponse()

    def _TraceSetting(self, request: Request) -> Any:  # noqa: N802
        model = request.message.model_name
        if model and not any(served.name == model for served in self.repository):
            raise invalid(f"Request for unknown model : {model}")
        changes = {key: list(setting.value) for key, setting in request.message.settings.items()}
        response = self._pb.TraceSettingResponse()
        for key, text in self._trace.change(model, changes).items():
            response.settings[key].value.append(text)
        return response

    def _LogSettings(self, request: Request) -> Any:  # noqa: N802
        response = self._pb.LogSettingsResponse()
        for key, value in self._log.change(request.message.settings).items():
            setattr(response.settings[key], FIELDS[type(value)], value)
        return response


def _check_repository(message: Any) -> None:
    if message.repository_name:
        raise Refusal("'repository_name' specification is not supported", "UNIMPLEMENTED")


def request_types() -> Mapping[str, Any]:
    """Return the message type of each method's request."""
    from tritonclient.grpc import service_pb2

    return {name: getattr(service_pb2, f"{name.replace('Stream', '')}Request") for name in METHODS}

"""Opens a model for an instance on a GPU."""

from pathlib import Path
from typing import Any

from _ort_accelerators import on_stream, providers
from _ort_binding import NO_GRAPH, options_for_graph, tensors_on_host
from _ort_config import ModelConfig
from _ort_cuda import open_cuda
from _ort_cuda_graphs import check_graphs
from _ort_datatypes import STRING
from _ort_device_execution import DeviceExecutor
from _ort_errors import (
    EnvironmentLacksError,
    InactiveProviderError,
    ModelFileError,
    UnsupportedError,
    mismatch,
)
from _ort_execution import Executor
from _ort_graph import graph_of
from _ort_libraries import load_libraries, why_not_active
from _ort_parameters import SessionSettings
from _ort_session import available_providers, open_session, run_options
from _ort_signature import signature_of
from _ort_validation import validate


def gpu_executor(config: ModelConfig, settings: SessionSettings, path: Path, index: int) -> Executor:
    """The executor of an instance on one GPU.

    Raises ``LoadError``; where a shared library is missing, ``EnvironmentLacksError`` that names it.
    """
    wanted = providers(config, cuda=settings.cuda, gpu=True, device_id=index, available=available_providers())
    load_libraries(config.name, [name for name, _ in wanted])
    device = open_cuda(config.name, index)
    placed = on_stream(wanted, device.stream, cuda_graph=settings.cuda_graph)
    try:
        session = open_session(config, settings, path, placed)
    except InactiveProviderError as exc:
        library = why_not_active(config.name, exc.provider)
        if library is None:
            raise
        raise EnvironmentLacksError(library) from exc
    except ModelFileError as exc:
        if not settings.cuda_graph:
            raise
        raise _refused(config, exc) from exc
    graph = graph_of(session)
    validate(config, graph)
    signature = signature_of(config, graph)
    on_host = tensors_on_host(session)
    if settings.cuda_graph:
        check_graphs(config, signature, on_host)
    options, idle_s = _plain_options(settings), config.max_sequence_idle_s
    if any(spec.data_type.triton == STRING for spec in signature.inputs.values()):
        # ONNX Runtime binds no strings, so it copies what it is given, and what it gives, by itself.
        return Executor(session, signature, options, idle_s)
    return DeviceExecutor(
        session,
        signature,
        device,
        on_host=on_host,
        outputs_on_device=settings.outputs_on_device,
        graphs=settings.cuda_graph,
        run_options=options,
        run_entries=settings.run_entries,
        max_sequence_idle_s=idle_s,
    )


def _plain_options(settings: SessionSettings) -> Any:
    return options_for_graph(NO_GRAPH, settings.run_entries) if settings.cuda_graph else run_options(settings)


def _refused(config: ModelConfig, error: ModelFileError) -> UnsupportedError:
    """ONNX Runtime's own reason; to record graphs it wants every node on the GPU."""
    message = mismatch(
        f"model '{config.name}', CUDA graphs",
        expected="a model that ONNX Runtime opens for them",
        found=f"its error: {error}",
        advice="if it is about graph capture, remove the parameter naiad.cuda_graph",
    )
    return UnsupportedError(message)

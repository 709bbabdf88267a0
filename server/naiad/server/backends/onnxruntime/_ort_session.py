"""Opens ONNX Runtime sessions."""

import functools
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from _ort_accelerators import CPU, Provider, missing_provider, providers
from _ort_config import ModelConfig
from _ort_errors import EnvironmentLacksError, InactiveProviderError, ModelFileError, mismatch
from _ort_parameters import SessionSettings


def check_environment(numpy_version: str = np.__version__) -> None:
    """Refuse numpy 2 and newer: Triton's stub reads only numpy 1's arrays and silently corrupts the others."""
    if int(numpy_version.partition(".")[0]) >= 2:
        message = mismatch(
            "the Python environment of Triton's stub",
            expected="numpy 1.26, the newest whose arrays Triton's stub reads correctly",
            found=f"numpy {numpy_version}, with which every tensor would be silently wrong",
            advice="start the server with `naiad serve`, which gives the stub an environment of its own, "
            "or put a numpy<2 first on the stub's path",
        )
        raise EnvironmentLacksError(message)


def model_file(version_dir: str, config: ModelConfig) -> Path:
    """The ONNX file of a version; a directory of the configured name holds it as model.onnx."""
    path = Path(version_dir, config.filename)
    path = path / "model.onnx" if path.is_dir() else path
    if not path.is_file():
        found = sorted(each.name for each in Path(version_dir).iterdir()) if Path(version_dir).is_dir() else []
        message = mismatch(
            f"model '{config.name}'",
            expected=f"an ONNX file at {path}",
            found=f"only {', '.join(found)}" if found else "no file there",
            advice="export the model into this directory or correct default_model_filename",
        )
        raise ModelFileError(message)
    return path


def graph_session(config: ModelConfig, path: Path) -> Any:
    """A session good for reading the graph only: on the CPU and not optimised, so that it opens fast."""
    settings = SessionSettings(graph_level="ORT_DISABLE_ALL", op_libraries=config.op_libraries)
    return _open(config, path, settings, ((CPU, {}),))


def serving_session(config: ModelConfig, settings: SessionSettings, path: Path) -> Any:
    """The session of an instance on the CPU. Raises ``LoadError``: see ``providers``."""
    wanted = providers(config, cuda=settings.cuda, gpu=False, device_id=0, available=available_providers())
    return open_session(config, settings, path, wanted)


def open_session(config: ModelConfig, settings: SessionSettings, path: Path, wanted: Collection[Provider]) -> Any:
    """A session on all of the providers.

    Raises ``InactiveProviderError`` where ONNX Runtime would quietly serve from the CPU what should run elsewhere,
    ``ModelFileError`` with its message where it refuses the model.
    """
    session = _open(config, path, settings, wanted)
    active = session.get_providers()
    for name, _ in wanted:
        if name not in active:
            raise InactiveProviderError(missing_provider(config, name, active), name)
    return session


def available_providers() -> list[str]:
    """What this build of ONNX Runtime offers."""
    found: list[str] = runtime().get_available_providers()
    return found


@functools.cache
def runtime() -> Any:
    """The module ``onnxruntime``, or an ``EnvironmentLacksError`` that says how to get it."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it looks once, when it is imported
    try:
        import onnxruntime
    except ImportError as exc:
        message = mismatch(
            "the Python environment of Triton's stub",
            expected="the package onnxruntime",
            found=str(exc),
            advice="install naiad[server] in the environment that starts the server",
        )
        raise EnvironmentLacksError(message) from exc
    return onnxruntime


def run_options(settings: SessionSettings) -> Any:
    """Options for every run, or ``None`` where there are none to set."""
    if not settings.run_entries:
        return None
    options = runtime().RunOptions()
    for key, value in settings.run_entries.items():
        options.add_run_config_entry(key, value)
    return options


def _open(config: ModelConfig, path: Path, settings: SessionSettings, wanted: Collection[Provider]) -> Any:
    options = _session_options(config, settings)
    try:
        # Without its fallback, which would retry on the CPU and print the error instead of raising it.
        return runtime().InferenceSession(
            str(path), sess_options=options, providers=list(wanted), enable_fallback=False
        )
    except Exception as exc:
        message = mismatch(
            f"model '{config.name}'",
            expected=f"a valid ONNX model in {path} ({path.stat().st_size} bytes) that ONNX Runtime can open",
            found=_first_line(exc),
            advice="export the model again; check that external data files lie beside it, and 'session.…' parameters",
        )
        raise ModelFileError(message) from exc


def _session_options(config: ModelConfig, settings: SessionSettings) -> Any:
    ort = runtime()
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, settings.graph_level)
    options.execution_mode = getattr(ort.ExecutionMode, "ORT_PARALLEL" if settings.parallel else "ORT_SEQUENTIAL")
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    if settings.memory_arena is not None:
        options.enable_cpu_mem_arena = settings.memory_arena
    if settings.memory_pattern is not None:
        options.enable_mem_pattern = settings.memory_pattern
    for key, value in settings.entries.items():
        options.add_session_config_entry(key, value)
    for library in settings.op_libraries:
        _register(config, options, library)
    return options


def _register(config: ModelConfig, options: Any, library: str) -> None:
    try:
        options.register_custom_ops_library(library)
    except Exception as exc:
        message = mismatch(
            f"model '{config.name}', model_operations.op_library_filename",
            expected=f"a library of ONNX Runtime operators at '{library}'",
            found=_first_line(exc),
            advice="give the absolute path of a library built for this version of ONNX Runtime",
        )
        raise ModelFileError(message) from exc


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]

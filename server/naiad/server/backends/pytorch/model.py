"""Triton's Python-based backend ``pytorch``: serves packages of PyTorch's ahead-of-time compiler (``model.pt2``).

NVIDIA's C++ backend of that name serves them since Triton 26.05; this one refuses everything else that it serves.
Triton copies this folder into its backend directory, starts one process per model instance with it, and calls the
class below. Tensors pass as DLPack, without numpy, so that PyTorch's numpy may be another than Triton's.
"""

import contextlib
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import triton_python_backend_utils as pb_utils
from _pt2_config import ModelConfig, parse
from _pt2_errors import DeviceLost, LoadError, mismatch


class TritonPythonModel:
    """One instance of one version of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Leave the configuration as it is: a package does not say what types it takes."""
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the package and check the configuration against it."""
        try:
            self._executor, self._mode = _executor(args)
        except LoadError as exc:
            raise pb_utils.TritonModelException(str(exc)) from None
        gc.collect()
        gc.freeze()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request, with an error where that is the answer."""
        try:
            with self._mode():
                responses: list[Any] = self._executor.execute(requests)
        except DeviceLost as exc:
            _end(exc)
        return responses

    def finalize(self) -> None:
        """Give the package's memory back."""
        del self._executor
        gc.collect()


def _executor(args: Mapping[str, str]) -> Any:
    model_config = pb_utils.ModelConfig(args["model_config"]).as_dict()
    config = parse(model_config)
    try:
        import torch
    except ImportError as exc:
        message = mismatch(
            "the Python environment of Triton's stub",
            expected="the package torch, which serves model.pt2",
            found=str(exc),
            advice="install naiad[export], or torch, in the environment that starts the server",
        )
        raise LoadError(message) from exc
    from _pt2_package import package_file
    from _pt2_shapes import shapes_beside

    _set_threads(torch, config)
    path = package_file(pb_utils.get_model_dir(), config)
    gpu = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
    plain = config.parameters.get("INFERENCE_MODE", "true").lower() in ("false", "0")
    return _assembled(config, path, shapes_beside(path), gpu), torch.no_grad if plain else torch.inference_mode


def _assembled(config: ModelConfig, path: Path, shapes: Any, gpu: int | None) -> Any:
    """The executor of an instance on the processor, or on a GPU by its number."""
    from _pt2_device import Cpu, open_cuda
    from _pt2_execution import Executor
    from _pt2_graphs import CudaRecorder, Graphs
    from _pt2_package import Package

    if gpu is None:
        return Executor(config, Package(config, path), shapes, Cpu())
    device = open_cuda(config.name, gpu, outputs_on_host=config.outputs_on_host, fixed_shapes=config.cuda_graph)
    package = Package(config, path, gpu=gpu)
    if not config.cuda_graph:
        return Executor(config, package, shapes, device)

    def run_plainly(error: Exception) -> None:
        device.check(error)
        _log(f"model '{config.name}' cannot be recorded as a CUDA graph, and runs without: {error}")

    return Executor(config, package, shapes, device, Graphs(package.run, CudaRecorder(), run_plainly))


def _end(error: DeviceLost) -> NoReturn:
    """End this process, since no other can be had for the GPU; whatever supervises Triton replaces it."""
    _log(f"{error}; this process ends, so that another takes its place")
    os._exit(1)


def _log(message: str) -> None:
    # Not through Triton's logger: its messages are sent by a thread, which would not outlive the process.
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def _set_threads(torch: Any, config: ModelConfig) -> None:
    for key, function in (
        ("INTRA_OP_THREAD_COUNT", torch.set_num_threads),
        ("INTER_OP_THREAD_COUNT", torch.set_num_interop_threads),
    ):
        text = config.parameters.get(key, "0")
        if not text.isdigit():
            message = mismatch(
                f"model '{config.name}', parameter '{key}'",
                expected="a whole number",
                found=repr(text),
                advice="correct it in config.pbtxt",
            )
            raise LoadError(message)
        if int(text):
            with contextlib.suppress(RuntimeError):  # PyTorch lets it be set once, before the first use
                function(int(text))

"""Triton's Python-based backend ``onnxruntime``: serves ONNX models as NVIDIA's C++ backend of that name does.

Triton copies this folder into its backend directory, starts one process per model instance with it, and calls
the class below. The modules ``_ort_*`` beside it do the work.
"""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import triton_python_backend_utils as pb_utils
from _ort_completion import Completion, complete, is_complete
from _ort_config import parse
from _ort_errors import DeviceLostError, LoadError
from _ort_execution import Executor
from _ort_graph import graph_of
from _ort_parameters import settings_of
from _ort_session import check_environment, graph_session, model_file, run_options, serving_session
from _ort_signature import signature_of
from _ort_support import check_supported
from _ort_validation import validate


class TritonPythonModel:
    """One instance of one version of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in inputs, outputs and batching from the graph, where config.pbtxt leaves them out."""
        try:
            _complete(auto_complete_model_config)
        except LoadError as exc:
            raise pb_utils.TritonModelException(str(exc)) from None
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the session and check the configuration against it."""
        try:
            self._executor = _executor(args)
        except LoadError as exc:
            raise pb_utils.TritonModelException(str(exc)) from None
        # What is loaded stays; without this, every collection walks through all of it.
        gc.collect()
        gc.freeze()
        gc.disable()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request, with an error where that is the answer."""
        try:
            responses = self._executor.execute(requests)
        except DeviceLostError as exc:
            _end(exc)
        if self._executor.failed:
            # Exceptions leave reference cycles, and nothing else collects them.
            gc.collect()
        return responses

    def finalize(self) -> None:
        """Give the session's memory back."""
        del self._executor
        gc.collect()


def _executor(args: Mapping[str, str]) -> Executor:
    check_environment()
    config = parse(pb_utils.ModelConfig(args["model_config"]).as_dict())
    gpu = args["model_instance_kind"] == "GPU"
    check_supported(config, gpu=gpu)
    settings = settings_of(config)
    path = model_file(pb_utils.get_model_dir(), config)
    if gpu:
        from _ort_gpu import gpu_executor

        return gpu_executor(config, settings, path, int(args["model_instance_device_id"]))
    session = serving_session(config, settings, path)
    graph = graph_of(session)
    validate(config, graph)
    return Executor(session, signature_of(config, graph), run_options(settings), config.max_sequence_idle_s)


def _end(error: DeviceLostError) -> NoReturn:
    """End this process, since no other can be had for the GPU; the supervisor replaces it."""
    # Not through Triton's logger: its messages are sent by a thread, which would not outlive the process.
    sys.stderr.write(f"{error}; this process ends, so that another takes its place\n")
    sys.stderr.flush()
    os._exit(1)


def _complete(target: Any) -> None:
    check_environment()
    config = parse(target.as_dict())
    if is_complete(config):
        return
    path = model_file(pb_utils.get_model_dir(), config)
    completion = complete(config, graph_of(graph_session(config, path)))
    _write(target, completion)


def _write(target: Any, completion: Completion) -> None:
    target.set_max_batch_size(completion.max_batch_size)
    if completion.dynamic_batching:
        target.set_dynamic_batching()
    # Not add_input and add_output: those refuse the reshape of a tensor that has nothing but a batch dimension.
    fields = target.as_dict()
    fields["input"] = [*fields["input"], *completion.inputs]
    fields["output"] = [*fields["output"], *completion.outputs]

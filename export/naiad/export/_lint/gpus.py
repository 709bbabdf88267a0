"""Rules about the memory of a GPU and CUDA graphs: parameters of the Python backend and of Naiad's own backends.

Source: `python_be.cc` in Triton's Python backend, which refuses any value of `FORCE_CPU_ONLY_INPUT_TENSORS` but yes and
no; Naiad's onnxruntime and pytorch backends, which run in it. NVIDIA's C++ backends pass over all three.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from naiad.export._lint import configuration
from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import Problem, advice, fails, not_embedded

FORCE_CPU_INPUTS: Final = "FORCE_CPU_ONLY_INPUT_TENSORS"
CUDA_GRAPH: Final = "naiad.cuda_graph"
OUTPUT_MEMORY: Final = "naiad.output_memory"
_NAIADS: Final[Mapping[str, tuple[str, ...]]] = {CUDA_GRAPH: ("true", "false"), OUTPUT_MEMORY: ("auto", "gpu", "cpu")}


def input_memory(entry: Entry) -> Iterator[Problem]:
    """Inputs stay in the memory of the GPU with no, and are copied to the host with yes; there is no other word."""
    text = _value(entry, FORCE_CPU_INPUTS)
    if text is None or text in ("yes", "no"):
        return
    field, message = f"parameters.{FORCE_CPU_INPUTS}", f"expected yes or no, found {text!r}"
    fix = "write no to take inputs in the memory of the GPU, else yes"
    if entry.config.backend == configuration.PYTHON:
        yield fails(field, message, fix)
    elif entry.is_onnx or entry.config.backend == configuration.PYTORCH:
        yield not_embedded(field, message, fix)


def memory_words(entry: Entry) -> Iterator[Problem]:
    """Naiad's parameters for GPUs have a few words each."""
    for key, words in _NAIADS.items():
        text = _value(entry, key)
        if text is not None and text not in words:
            message = f"expected {' or '.join(words)}, found {text!r}"
            yield not_embedded(f"parameters.{key}", message, "correct the word, or remove the parameter")


def memory_without_a_gpu(entry: Entry) -> Iterator[Problem]:
    """Parameters for GPUs do something where an instance may be on one, in a backend that reads them."""
    for key, without in ((CUDA_GRAPH, "false"), (OUTPUT_MEMORY, "auto")):
        text = _value(entry, key)
        if text is None or text == without:
            continue
        if not entry.is_onnx and entry.config.backend != configuration.PYTORCH:
            message = "only Naiad's onnxruntime and pytorch backends read it"
            yield advice(f"parameters.{key}", message, "remove it")
        elif not entry.may_use_gpu:
            message = "every instance is KIND_CPU, where it has no effect"
            yield advice(f"parameters.{key}", message, "remove it, or use KIND_GPU or KIND_AUTO")


def graphs_of_fixed_shapes(entry: Entry) -> Iterator[Problem]:
    """A CUDA graph is captured for each set of shapes: where more than the batch varies, for ever new ones."""
    if _value(entry, CUDA_GRAPH) != "true" or not entry.may_use_gpu:
        return
    varying = [
        f"{tensor.name} {list(tensor.dims)}"
        for tensor in (*entry.config.input, *entry.config.output)
        if -1 in tensor.dims
    ]
    if varying:
        message = (
            f"expected fixed dims beside the batch, found {', '.join(varying)}: each set of shapes is captured anew"
        )
        yield advice(f"parameters.{CUDA_GRAPH}", message, "fix the dims, or set it to false")


def graphs_of_sequences(entry: Entry) -> Iterator[Problem]:
    """A CUDA graph replays on the same memory; the states of sequences come from changing places."""
    if _value(entry, CUDA_GRAPH) == "true" and entry.config.HasField("sequence_batching"):
        message = "on a GPU naiad serve refuses CUDA graphs of a model with sequence_batching"
        yield not_embedded(f"parameters.{CUDA_GRAPH}", message, "set it to false, or remove sequence_batching")


def graphs_twice(entry: Entry) -> Iterator[Problem]:
    """CUDA graphs are asked for once: by the parameter, or by the option of the provider."""
    if _value(entry, CUDA_GRAPH) != "true" or not entry.is_onnx:
        return
    for each in entry.config.optimization.execution_accelerators.gpu_execution_accelerator:
        for key in ("enable_cuda_graph", "trt_cuda_graph_enable"):
            if str(each.parameters.get(key, "0")).lower() in ("1", "true"):
                field = f"optimization.execution_accelerators.{each.name}.{key}"
                message = f"parameters.{CUDA_GRAPH} captures already"
                yield advice(field, message, "keep one of the two")


def _value(entry: Entry, key: str) -> Any:
    """Return the text of a parameter; None where there is none."""
    return entry.config.parameters[key].string_value if key in entry.config.parameters else None


RULES = (
    input_memory,
    memory_words,
    memory_without_a_gpu,
    graphs_of_fixed_shapes,
    graphs_of_sequences,
    graphs_twice,
)

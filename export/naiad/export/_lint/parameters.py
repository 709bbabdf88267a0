"""Rules about `parameters` of the onnxruntime backend, whose C++ code passes over every key that it does not know.

Source: `ModelState::ModelState` and `LoadModel` in `onnxruntime.cc`.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from naiad.export._lint import values
from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import Problem, advice, fails, not_embedded

SHRINKAGE: Final = "memory.enable_memory_arena_shrinkage"
DEVICE_INITIALIZERS: Final = "session.use_device_allocator_for_initializers"
_CHECKS: Final[dict[str, values.Check]] = {
    "execution_mode": values.numbered(0, 1),
    "intra_op_thread_count": values.integer,
    "inter_op_thread_count": values.integer,
    "enable_mem_arena": values.truth,
    "enable_mem_pattern": values.truth,
    SHRINKAGE: values.anything,
    DEVICE_INITIALIZERS: values.one_of("0", "1"),
    "cudnn_conv_algo_search": values.numbered(0, 1, 2),
    "gpu_mem_limit": values.unsigned,
    "arena_extend_strategy": values.numbered(0, 1),
    "do_copy_in_default_stream": values.provider_truth,
}
GPU_KEYS: Final = frozenset(
    {"cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream"}
)
"""Read by GPU instances only; Naiad's own backend checks them everywhere."""
_CORE_KEYS = ("TRITON_", "EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS")
_OWN_NAMESPACES = ("session", "memory", "ep", "optimization")


def known_keys(entry: Entry) -> Iterator[Problem]:
    """A key that the backend does not know does nothing; one with a dot is taken for the user's own note."""
    if not entry.is_onnx:
        return
    for key in entry.config.parameters:
        namespace, dot, _ = key.partition(".")
        note = bool(dot) and namespace not in _OWN_NAMESPACES
        if key in _CHECKS or key.startswith(_CORE_KEYS) or note:
            continue
        near = difflib.get_close_matches(key, list(_CHECKS), n=1)
        fix = f"did you mean {near[0]}?" if near else f"remove it, or name a note of your own 'notes.{key}'"
        if namespace == "session" and dot:
            message = "NVIDIA's backend passes over it; only Naiad's own hands it to ONNX Runtime"
            yield advice(f"parameters.{key}", message, fix)
        else:
            message = "NVIDIA's backend passes over this key, and naiad serve refuses it"
            yield not_embedded(f"parameters.{key}", message, fix)


def parameter_values(entry: Entry) -> Iterator[Problem]:
    """Values are of the kind that their key takes."""
    if not entry.is_onnx:
        return
    for key, value in entry.config.parameters.items():
        if key not in _CHECKS:
            continue
        text, field = value.string_value, f"parameters.{key}"
        expected = _CHECKS[key](text)
        if expected:
            yield fails(field, f"expected {expected}, found {text!r}", "correct the value")
        elif _CHECKS[key] in (values.integer, values.unsigned) and values.has_rest(text):
            yield not_embedded(field, f"{text!r} is read up to its first letter", "give the number alone")


def device_initializers(entry: Entry) -> Iterator[Problem]:
    """A key that older releases pass over."""
    if DEVICE_INITIALIZERS in entry.config.parameters and not entry.target.supports("device_initializers"):
        message = f"{entry.target} passes over it"
        yield advice(f"parameters.{DEVICE_INITIALIZERS}", message, "serve with 25.02 or later")


def negative_threads(entry: Entry) -> Iterator[Problem]:
    """A negative number of threads is ONNX Runtime's default, as 0 is."""
    for key in ("intra_op_thread_count", "inter_op_thread_count"):
        text = entry.config.parameters[key].string_value if key in entry.config.parameters else ""
        if entry.is_onnx and text.strip().startswith("-"):
            yield advice(f"parameters.{key}", f"{text} means all cores, as 0 does", "give the number of threads")


def parallel_mode(entry: Entry) -> Iterator[Problem]:
    """Threads between operators are used in parallel mode only."""
    parameters = entry.config.parameters
    if entry.is_onnx and "inter_op_thread_count" in parameters and "execution_mode" not in parameters:
        message = "it has no effect while operators run one after the other"
        yield advice("parameters.inter_op_thread_count", message, "set execution_mode to 1 too, or remove it")


def operator_libraries(entry: Entry) -> Iterator[Problem]:
    """Libraries with operators are there, as far as one can tell from here."""
    for name in entry.config.model_operations.op_library_filename if entry.is_onnx else ():
        if not Path(name).is_file():
            fix = "see to it that every server has it, and give its absolute path"
            yield advice("model_operations.op_library_filename", f"{name!r} is not on this machine", fix)


RULES = (
    known_keys,
    parameter_values,
    device_initializers,
    negative_threads,
    parallel_mode,
    operator_libraries,
)

"""The ``parameters`` and the graph level of a configuration, as settings of an ONNX Runtime session."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from _ort_config import ModelConfig
from _ort_errors import ConfigurationError, UnsupportedError, mismatch

T = TypeVar("T")

ARENA_SHRINKAGE: Final = "memory.enable_memory_arena_shrinkage"
GRAPH_LEVELS: Final[Mapping[int, str]] = {-1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
"""Triton's ``optimization.graph.level``; every other number means ``ORT_ENABLE_ALL``."""

OUTPUT_MEMORY: Final = "naiad.output_memory"
CUDA_GRAPH: Final = "naiad.cuda_graph"
CUDA_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
}
"""CUDA options that config.pbtxt numbers and ONNX Runtime names."""

_TRUTHS: Final = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
# Read by Triton's core or its Python backend, not by us.
_TRITONS_OWN: Final = frozenset({"EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS"})
_SESSION_PREFIX: Final = "session."
_OUR_NAMESPACES: Final = ("session", "memory", "ep", "optimization")
_KNOWN: Final = (
    "execution_mode",
    "intra_op_thread_count",
    "inter_op_thread_count",
    "enable_mem_arena",
    "enable_mem_pattern",
    ARENA_SHRINKAGE,
    "session.use_device_allocator_for_initializers",
    "cudnn_conv_algo_search",
    "gpu_mem_limit",
    "arena_extend_strategy",
    "do_copy_in_default_stream",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionSettings:
    """Settings of a session; ``None`` and 0 threads leave ONNX Runtime's default."""

    graph_level: str = "ORT_ENABLE_ALL"
    parallel: bool = False
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    memory_arena: bool | None = None
    memory_pattern: bool | None = None
    entries: Mapping[str, str] = field(default_factory=dict)
    run_entries: Mapping[str, str] = field(default_factory=dict)
    cuda: Mapping[str, str] = field(default_factory=dict)
    outputs_on_device: bool = True
    """Whether an instance on a GPU leaves its outputs there."""
    cuda_graph: bool = False
    """Whether an instance on a GPU records its runs and replays them."""
    op_libraries: tuple[str, ...] = ()


def settings_of(config: ModelConfig) -> SessionSettings:
    """The settings that ``config`` asks for.

    Raises ``ConfigurationError`` for a value that does not fit its parameter, ``UnsupportedError`` for a
    parameter that is none of ours. A name with a dot in another namespace (``my_team.owner``) is the user's.
    """
    reader = _Reader(config)
    reader.refuse_unknown()
    mode = reader.read("execution_mode", _choice("0", "1"), "0")
    return SessionSettings(
        graph_level=_graph_level(config),
        parallel=mode == "1",
        intra_op_threads=max(0, reader.read("intra_op_thread_count", _integer, 0)),
        inter_op_threads=max(0, reader.read("inter_op_thread_count", _integer, 0)),
        memory_arena=reader.read("enable_mem_arena", _boolean, None),
        memory_pattern=reader.read("enable_mem_pattern", _boolean, None),
        entries={key: value for key, value in config.parameters.items() if key.startswith(_SESSION_PREFIX)},
        run_entries={key: value for key, value in config.parameters.items() if key == ARENA_SHRINKAGE},
        cuda=_cuda_options(reader),
        # "auto" is "gpu" on a GPU: Triton copies to the host what its next reader wants there, and nothing else.
        outputs_on_device=reader.read(OUTPUT_MEMORY, _choice("auto", "gpu", "cpu"), "auto") != "cpu",
        cuda_graph=reader.read(CUDA_GRAPH, _boolean, False) or _graph_asked_of_accelerator(config),
        op_libraries=config.op_libraries,
    )


class _Reader:
    """Reads typed values out of string parameters, with one form of error."""

    def __init__(self, config: ModelConfig) -> None:
        self._model = config.name
        self.parameters = config.parameters

    def read(self, key: str, convert: Callable[[str], T], default: Any) -> Any:
        text = self.parameters.get(key)
        if text is None:
            return default
        try:
            return convert(text)
        except ValueError as exc:
            message = mismatch(
                f"model '{self._model}', parameter '{key}'",
                expected=exc,
                found=repr(text),
                advice="correct it in config.pbtxt",
            )
            raise ConfigurationError(message) from None

    def refuse_unknown(self) -> None:
        for key in self.parameters:
            if key not in _KNOWN and not _is_foreign(key):
                raise UnsupportedError(self._unknown(key))

    def _unknown(self, key: str) -> str:
        near = difflib.get_close_matches(key, _KNOWN, n=1)
        guess = f"did you mean '{near[0]}'? Otherwise " if near else ""
        return mismatch(
            f"model '{self._model}', parameter '{key}'",
            expected=f"one of {', '.join(_KNOWN)} or a 'session.…' entry of ONNX Runtime",
            found=f"'{key}', which this backend would ignore",
            advice=f"{guess}remove it, or give a note of your own a name with a dot, such as 'notes.{key}'",
        )


def _is_foreign(key: str) -> bool:
    namespace, dot, _ = key.partition(".")
    if key in _TRITONS_OWN or key.startswith(("TRITON_", _SESSION_PREFIX)):
        return True
    return bool(dot) and namespace not in _OUR_NAMESPACES


def _graph_asked_of_accelerator(config: ModelConfig) -> bool:
    """ONNX Runtime's own option: it replays only what lies in the same memory every time, so it means ours."""
    accelerators = (config.optimization.get("execution_accelerators") or {}).get("gpu_execution_accelerator", ())
    return any(
        _TRUTHS.get(str((each.get("parameters") or {}).get(key, "0")).lower(), False)
        for each in accelerators
        for key in ("enable_cuda_graph", "trt_cuda_graph_enable")
    )


def _graph_level(config: ModelConfig) -> str:
    level = (config.optimization.get("graph") or {}).get("level", 0)
    return GRAPH_LEVELS.get(int(level), "ORT_ENABLE_ALL")


def _cuda_options(reader: _Reader) -> dict[str, str]:
    options = {}
    for key, names in CUDA_CHOICES.items():
        number = reader.read(key, _choice(*map(str, range(len(names)))), None)
        if number is not None:
            options[key] = names[int(number)]
    limit = reader.read("gpu_mem_limit", _integer, None)
    if limit is not None:
        options["gpu_mem_limit"] = str(limit)
    in_default_stream = reader.read("do_copy_in_default_stream", _boolean, None)
    if in_default_stream is not None:
        options["do_copy_in_default_stream"] = str(int(in_default_stream))
    return options


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def _boolean(text: str) -> bool:
    value = _TRUTHS.get(text.strip().lower())
    if value is None:
        raise ValueError("1, 0, true, false, on or off")
    return value


def _choice(*values: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text.strip() not in values:
            raise ValueError(" or ".join(values))
        return text.strip()

    return convert

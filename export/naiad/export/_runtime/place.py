"""Where graphs are run: the CPU, or a GPU through one of ONNX Runtime's execution providers."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
PROVIDERS = {"cuda": CUDA_PROVIDER, "tensorrt": TENSORRT_PROVIDER}
"""By accelerator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Execution providers, the best first, and the memory that tensors are bound in."""

    name: str
    """In words: `ONNX Runtime's CUDA provider on NVIDIA H200`."""
    providers: tuple[tuple[str, Mapping[str, str]], ...] = ((CPU_PROVIDER, {}),)
    memory: str = ""
    """`cuda`, or `cpu`: tensors are bound there before a run, so that copies are not timed; empty for no binding."""
    on_gpu: bool = False
    engines: Path | None = None
    """A directory for TensorRT's engines, by the content of the graph: ONNX Runtime itself looks at names only."""

    @property
    def engines_are_built(self) -> bool:
        """Whether TensorRT builds an engine for each graph, which takes long."""
        return self.providers[0][0] == TENSORRT_PROVIDER

    def options(self, path: Path | None) -> list[tuple[str, dict[str, str]]]:
        """Return the providers with their options for the graph in a file; None for one that is in no file."""
        return [(name, dict(options) | self._cached(name, path)) for name, options in self.providers]

    def _cached(self, provider: str, path: Path | None) -> dict[str, str]:
        if provider != TENSORRT_PROVIDER or self.engines is None:
            return {}
        if path is None:
            return {"trt_engine_cache_enable": "0", "trt_timing_cache_enable": "0"}
        digest = hashlib.sha256()
        for part in sorted(path.parent.glob(f"{path.name}*")):
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        cache = self.engines / digest.hexdigest()[:16]
        cache.mkdir(parents=True, exist_ok=True)
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_path": str(self.engines),
        }


CPU = Place(name="ONNX Runtime on the CPU")

PlaceOf = Callable[[str], Place]
"""Gives the place for a precision: its providers compute as they will for a graph of that precision."""


def on_cpu(precision: str) -> Place:
    """Return the CPU, for every precision."""
    del precision
    return CPU

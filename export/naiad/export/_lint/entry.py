"""One entry of a model repository, as the rules look at it."""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from naiad.export._check.targets import Target
from naiad.export._lint import configuration, versions
from naiad.export._lint.graph import Graph, UnreadableGraph, read
from naiad.export._lint.problem import CONFIG


class Entry:
    """A model's directory with its configuration as Triton's core completes it; files are read when they are needed."""

    def __init__(
        self,
        directory: Path,
        *,
        target: Target,
        auto_complete: bool = False,
        sibling: "Callable[[str], Entry | None] | None" = None,
    ) -> None:
        self.directory = directory
        self.name = directory.name
        self.target = target
        self.auto_complete = auto_complete
        """Whether the server completes configurations from the model's file, as NVIDIA's containers do by default."""
        self._sibling = sibling
        self._graphs: dict[Path, Graph | UnreadableGraph] = {}

    def sibling(self, name: str) -> "Entry | None":
        """Return another entry of the same repository; None where there is none."""
        return self._sibling(name) if self._sibling else None

    @cached_property
    def has_config(self) -> bool:
        """Whether there is a configuration, readable or not."""
        return (self.directory / CONFIG).is_file()

    @cached_property
    def parsed(self) -> configuration.Parsed:
        """What the file says, or why it cannot be read; a missing one is empty where the server completes it."""
        if not self.has_config and self.auto_complete:
            return configuration.parse("")
        try:
            return configuration.parse((self.directory / CONFIG).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            return configuration.Parsed(config=None, error=f"it cannot be read ({exc})")

    @cached_property
    def fields(self) -> Any:
        """The ModelConfig with what Triton's core completes; None where there is none."""
        names = sorted(path.name for path in self.directory.iterdir() if path.is_dir())
        return self.parsed.config and configuration.complete(self.parsed.config, self.directory, tuple(names))

    @cached_property
    def config(self) -> Any:
        """The ModelConfig with what core and backend complete; None where there is none."""
        if self.fields is not None and self.auto_complete:
            for _, found in self.graphs():
                configuration.complete_tensors(self.fields, found)
        return self.fields

    @cached_property
    def versions(self) -> tuple[versions.VersionName, ...]:
        """The version directories."""
        return versions.read(self.directory)

    @cached_property
    def served(self) -> tuple[int, ...]:
        """The versions that would be loaded, ascending."""
        return versions.served(self.fields.version_policy, self.versions)

    @property
    def batched(self) -> bool:
        """Whether tensors have a batch dimension that `dims` leaves out."""
        return bool(self.config.max_batch_size > 0)

    @property
    def is_ensemble(self) -> bool:
        """Whether it is an ensemble, or says so."""
        return bool(self.fields.platform == "ensemble" or self.fields.HasField("ensemble_scheduling"))

    @property
    def is_onnx(self) -> bool:
        """Whether the onnxruntime backend would load it."""
        return bool(self.fields.backend == configuration.ONNXRUNTIME)

    @property
    def may_use_gpu(self) -> bool:
        """Whether an instance would use a GPU where there is one."""
        groups = self.fields.instance_group
        return not groups or any(group.kind != group.KIND_CPU for group in groups)

    def model_path(self, number: int) -> Path:
        """Return the file of a version that the backend opens; a directory of that name holds it as `model.onnx`."""
        path = self.directory / str(number) / str(self.fields.default_model_filename)
        return path / configuration.FILENAMES[configuration.ONNXRUNTIME] if self.is_onnx and path.is_dir() else path

    def relative(self, path: Path) -> str:
        """Return a path as it is shown."""
        return path.relative_to(self.directory).as_posix() if path.is_relative_to(self.directory) else str(path)

    def graph(self, number: int) -> Graph | UnreadableGraph | None:
        """Return the graph of a version, why it cannot be read, or None where there is no file."""
        path = self.model_path(number)
        if path not in self._graphs and path.is_file():
            try:
                self._graphs[path] = read(path, tuple(self.fields.model_operations.op_library_filename))
            except UnreadableGraph as exc:
                self._graphs[path] = exc
        return self._graphs.get(path)

    def graphs(self) -> Iterator[tuple[int, Graph]]:
        """Give the graphs of the versions that would be served, where they can be read."""
        for number in self.served if self.is_onnx else ():
            if isinstance(found := self.graph(number), Graph):
                yield number, found

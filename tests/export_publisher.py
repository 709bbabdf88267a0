"""Publishes versions without PyTorch: `python export_publisher.py REPOSITORY MODEL COUNT SIZE` prints each number.

As a module it gives the same to tests in their own process.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tritonclient.grpc import model_config_pb2

from naiad.export import Repository, Version
from naiad.export.repository import Candidate


def publish(
    repository: str | Path | Repository,
    model: str = "some",
    *,
    size: int = 1000,
    dims: int = 4,
    labels: tuple[str, ...] = (),
    settings: dict[str, object] | None = None,
    promote: bool = True,
) -> Version:
    """Publish `size` random bytes in place of a graph."""
    repo = repository if isinstance(repository, Repository) else Repository(repository)
    with repo.stage() as stage:
        files, label_files = stage / "files", stage / "labels"
        files.mkdir()
        label_files.mkdir()
        (files / "model.onnx").write_bytes(os.urandom(size))
        (files / "golden.npz").write_bytes(os.urandom(100))
        config = model_config_pb2.ModelConfig(name=model, backend="onnxruntime", max_batch_size=8)
        config.input.add(name="x", data_type=model_config_pb2.TYPE_FP32, dims=[dims])
        config.output.add(name="y", data_type=model_config_pb2.TYPE_FP32, dims=[3])
        if labels:
            config.output[0].label_filename = "labels.txt"
            (label_files / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
        candidate = Candidate(
            model=model, config=config, files=files, labels=label_files, settings=settings or {}, manifest={}
        )
        return repo.publish(candidate, promote=promote)


def publish_again(repository: str | Path | Repository, model: str, *, promote: bool = False) -> Version:
    """Publish a copy of the newest version."""
    repo = repository if isinstance(repository, Repository) else Repository(repository)
    number = repo.versions(model)[-1]
    with repo.stage() as stage, repo.files(model, number) as source:
        files, label_files = stage / "files", stage / "labels"
        label_files.mkdir()
        files.mkdir()
        for name in ("model.onnx", "golden.npz"):
            shutil.copy(source / name, files)
        config = repo.config(model)
        for output in config.output:
            if output.label_filename:
                shutil.copy(repo.path / model / output.label_filename, label_files)
        manifest = {
            key: value
            for key, value in repo.manifest(model, number).items()
            if key not in {"model", "version", "files"}
        }
        candidate = Candidate(
            model=model, config=config, files=files, labels=label_files, settings={}, manifest=manifest
        )
        return repo.publish(candidate, promote=promote)


if __name__ == "__main__":
    for _ in range(int(sys.argv[3])):
        print(publish(Repository(sys.argv[1]), sys.argv[2], size=int(sys.argv[4])).number, flush=True)

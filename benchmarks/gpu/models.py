"""Publishes a variant with `naiad.export`: a task of the environment."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from gpu import nets
from gpu.plan import Scale, Variant
from naiad.export import ExportError, PrecisionRefused, export

_SAMPLE_ROWS = 4
_TOLERANCE = {"rtol": 0.1, "atol": 0.1, "cosine": 0.99}
"""Random weights have no margins: what is asked here is that the served net is the same one."""


def publish_all(
    wanted: Sequence[Variant], scale: Scale, folder: Path, device: str, jobs: int
) -> Iterator[tuple[Variant, dict[str, Any], float]]:
    """Publish each in a process of its own, `jobs` at once; gives results and seconds as they come.

    A result is what `publish` gives, or `error` with `refused`: whether the export says that the precision is not for
    this runtime or device, as opposed to failing.
    """
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {pool.submit(_timed, variant, scale, folder / variant.name, device): variant for variant in wanted}
        for future in as_completed(futures):
            try:
                result, seconds = future.result()
            except Exception as exc:  # noqa: BLE001 - a process that died, too: it is told to who asked
                result, seconds = {"error": f"{type(exc).__name__}: {exc}", "refused": False}, 0.0
            yield futures[future], result, seconds


def _timed(variant: Variant, scale: Scale, repository: Path, device: str) -> tuple[dict[str, Any], float]:
    begun = time.monotonic()
    try:
        result = publish(variant, scale, repository, device)
    except PrecisionRefused as exc:
        result = {"error": f"{type(exc).__name__}: {exc}", "refused": True}
    except ExportError as exc:
        result = {"error": f"{type(exc).__name__}: {exc}", "refused": False}
    return result, time.monotonic() - begun


def publish(variant: Variant, scale: Scale, repository: Path, device: str) -> dict[str, Any]:
    """Publish the net in a repository of its own, verified against fp32; gives its size and what was found on the way.

    Raises: `ExportError`.
    """
    shutil.rmtree(repository, ignore_errors=True)
    aoti = variant.runtime == "aoti"
    version = export(
        nets.build(variant.net, scale.sizes),
        variant.name,
        samples=[nets.inputs(variant.net, scale.sizes, _SAMPLE_ROWS)],
        repository=repository,
        max_batch_size=max(scale.batches),
        precision=variant.precision,
        allow_slower=not aoti,
        accelerator="aoti" if aoti else device,
        device=device,
        tolerance=_TOLERANCE,
    )
    report = version.report
    assert report is not None
    return {
        "size_bytes": report.size_bytes,
        "findings": [f"{finding.check}: {finding.message}" for finding in report.findings],
        "config": (repository / variant.name / "config.pbtxt").read_text(),
    }

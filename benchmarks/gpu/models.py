"""Publishes a variant with `naiad.export`: a task of the environment."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from gpu import nets
from gpu.plan import Scale, Variant
from naiad.export import export

_SAMPLE_ROWS = 4
_TOLERANCE = {"rtol": 0.1, "atol": 0.1, "cosine": 0.99}
"""Random weights have no margins: what is asked here is that the served net is the same one."""


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

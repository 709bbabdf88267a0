"""Publishes a variant with `naiad.export`: a task of the environment."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from gpu import nets
from gpu.plan import Scale, Variant
from naiad.export import export

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_SAMPLE_ROWS = 4
_TOLERANCE = {"rtol": 0.1, "atol": 0.1, "cosine": 0.99}
"""Random weights have no margins: what is asked here is that the served net is the same one."""


def publish(variant: Variant, scale: Scale, repository: Path, device: str) -> dict[str, Any]:
    """Publish the net in a repository of its own; gives the size of its file and what was found on the way.

    `aoti` compiles the net after it was cast, inputs and outputs keep their types. Raises: `ExportError`.
    """
    shutil.rmtree(repository, ignore_errors=True)
    net = nets.build(variant.net, scale.sizes)
    aoti = variant.runtime == "aoti"
    if aoti:
        net = net.to(_DTYPES[variant.precision])
    version = export(
        net,
        variant.name,
        samples=[nets.inputs(variant.net, scale.sizes, _SAMPLE_ROWS)],
        repository=repository,
        max_batch_size=max(scale.batches),
        precision="fp32" if aoti else variant.precision,
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

"""A script that is small enough to export in a moment: numbers to a total, and an optional step that adds to it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from naiad.export import Repository, Version, export_pipeline
from naiad.export.steps import Function, Model, Script, Step
from pipeline_helpers import net

SCALE = 1.0
LARGE = 4.0

Array = np.ndarray[Any, Any]


def control(vector: Array, *, models: Any) -> dict[str, Array]:
    """The sum of each row, with more where it is large and the step `extra` is there."""
    if np.isnan(vector).any():
        raise ValueError("there is no number in a row")
    total = models.net(vector=vector)["scores"][:, :1]
    extra, large = models.get("extra"), total[:, 0] > LARGE
    if extra is not None and large.any():
        total[large] += extra(total=total[large])["more"]
    return {"total": np.float32(SCALE) * total, "asked": np.full(len(vector), extra is not None)}


def extra(total: Array) -> dict[str, Array]:
    """Half of the total, and how much more there is."""
    if (total > 1e6).any():
        raise ValueError("the total is too large")
    if (total > 1e5).any():
        raise RuntimeError("this should not happen")
    return {"more": total / 2 + np.float32(SCALE)}


def steps(directory: Path, script: Any = control, **more: Any) -> list[Step]:
    """Three steps; `directory` gets the graph of the first."""
    called: dict[str, Any] = {"calls": ("net",), "optional": ("extra",)} | more
    return [Model("net", net(directory)), Function("extra", extra), Script("control", script, **called)]


def numbers() -> list[dict[str, Array]]:
    """Rows of two numbers, some of which have a large sum."""
    return [{"vector": np.arange(12, dtype=np.float32).reshape(6, 2) / 2}]


def publish(repository: Path | str, script: Any = control, name: str = "sums", **more: Any) -> Repository:
    """Export the pipeline."""
    publish_version(repository, script, name, **more)
    return Repository(repository)


def publish_version(repository: Path | str, script: Any = control, name: str = "sums", **more: Any) -> Version:
    """Export the pipeline, and return its version; what is no argument of the step is one of the export."""
    order = {"samples": numbers(), "max_batch_size": 8} | more
    of_step = {key: order.pop(key) for key in ("calls", "optional") if key in order}
    with tempfile.TemporaryDirectory() as directory:
        chosen = order.pop("steps", None) or steps(Path(directory), script, **of_step)
        return export_pipeline(chosen, name, repository=repository, **order)


def in_python(vector: Array, *, scale: float = SCALE, with_extra: bool = True) -> list[float]:
    """The totals that the pipeline answers."""
    total = vector.sum(axis=1)
    large = (total > LARGE) & with_extra
    return [float(value) for value in scale * np.where(large, total + total / 2 + scale, total)]


def lengths(text: Array) -> dict[str, Array]:
    """The length of each text, a scalar a row, and the text in capitals."""
    rows = [each.decode() for each in text.ravel()]
    return {
        "length": np.array([len(row) for row in rows], np.int64),
        "loud": np.array([row.upper() for row in rows])[:, None],
    }


def spaces(length: Array) -> dict[str, Array]:
    """Half of each length, scalars to scalars."""
    return {"half": length // 2}


def read(text: Array, *, models: Any) -> dict[str, Array]:
    """What the steps say of a text, scalars a row among it."""
    found = models.lengths(text=text)
    return {"loud": found["loud"], "half": models.spaces(length=found["length"])["half"], "length": found["length"]}


def text_steps() -> list[Step]:
    """A script about text and scalars."""
    called = [Function("lengths", lengths), Function("spaces", spaces)]
    return [*called, Script("read", read, calls=("lengths", "spaces"))]


def texts() -> list[dict[str, Array]]:
    """Texts of several lengths."""
    return [{"text": np.array(["one", "two words", "ä €", "", "five and more"], object)[:, None]}]

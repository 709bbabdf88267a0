"""Class names: a text file in the model's directory for each output that has them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from naiad.export.errors import InvalidExport

Labels = Mapping[str, Sequence[str]]


def by_output(
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None, outputs: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Return the class names by output, from those of the only output.

    Raises:
        InvalidExport: They are not by output, and there are several.
    """
    if labels is None:
        return {}
    if isinstance(labels, Mapping):
        return {name: tuple(map(str, names)) for name, names in labels.items()}
    if len(outputs) != 1:
        raise InvalidExport(
            f"the model has the outputs {list(outputs)}; give labels by output, as in {{'probs': [...]}}"
        )
    return {outputs[0]: tuple(map(str, labels))}


def name_labels(config: Any, labels: Labels) -> None:
    """Name a label file for each output in `labels`.

    Raises:
        InvalidExport: There is no such output, the number of classes differs, or a label is empty or has a line break.
    """
    outputs = {output.name: output for output in config.output}
    for index, (name, names) in enumerate(labels.items()):
        if name not in outputs:
            raise InvalidExport(f"labels are given for the output {name!r}; the model has {list(outputs)}")
        if any(not label or "\n" in label for label in names):
            raise InvalidExport(f"a label of output {name!r} is empty or has a line break")
        size = outputs[name].dims[-1]
        if size not in (-1, len(names)):
            raise InvalidExport(f"output {name!r} has {size} classes; {len(names)} labels were given")
        suffix = "" if len(labels) == 1 else "_" + (re.sub(r"\W+", "_", name) or str(index))
        outputs[name].label_filename = f"labels{suffix}.txt"


def write_labels(directory: Path, config: Any, labels: Labels) -> None:
    """Write the label files that the configuration names."""
    directory.mkdir(exist_ok=True)
    for output in config.output:
        if output.label_filename:
            text = "".join(f"{label}\n" for label in labels[output.name])
            (directory / output.label_filename).write_text(text, encoding="utf-8")

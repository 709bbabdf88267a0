"""A function step as the files of a version: `model.py`, `step.py`, `step.json`, `requirements.txt`, its files.

A script has `calling.py` and `calls.json`, too; the versions that it calls are filled in when it is published.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from naiad.export._pipeline import source as _source
from naiad.export._pipeline.reference import Stage
from naiad.export._pipeline.samples import Case
from naiad.export._pipeline.shapes import Shapes
from naiad.export._repository import calls as _wired
from naiad.export._repository import golden as _golden
from naiad.export.errors import InvalidRecipe
from naiad.export.steps import Function

_SERVED = Path(__file__).parent / "served"
_CALLING = "calling.py"
_OURS = {"__pycache__", "model.py", "step.py", "step.json", "requirements.txt", "manifest.json", _golden.FILE}
_OF_SCRIPTS = {_CALLING, _wired.FILE}


def package(
    pipeline: str,
    stage: Stage,
    shapes: Shapes,
    cases: Sequence[Case],
    directory: Path,
    calls: Mapping[str, Mapping[str, Any]],
) -> tuple[str, ...]:
    """Fill an empty directory with what the Python backend needs, and return the requirements.

    `calls` has what a script calls, by step, as `calls.json` has it.

    Raises:
        InvalidRecipe: The function's code, an option or a file cannot travel.
    """
    step = stage.step
    assert isinstance(step, Function)
    code = _source.take(step.function, step.name)
    about = {
        "pipeline": pipeline,
        "step": step.name,
        "function": code.function,
        "inputs": list(stage.inputs),
        "outputs": {
            result: {"datatype": shapes.datatypes[tensor], "dims": shapes.dims[tensor]}
            for result, tensor in stage.outputs.items()
        },
        "batched": shapes.batched,
        "options": dict(step.options),
        "files": _copy_files(step, directory),
        "imports": code.imports,
    }
    requirements = tuple(dict.fromkeys([*code.requirements, *step.requires]))
    shutil.copyfile(_SERVED / "model.py", directory / "model.py")
    if calls:
        shutil.copyfile(_SERVED / _CALLING, directory / _CALLING)
        (directory / _wired.FILE).write_text(_json(step, calls), encoding="utf-8")
    # An empty file where Python would put bytecode: a published version stays as it is, and none is read from there.
    (directory / "__pycache__").touch()
    (directory / "step.py").write_text(code.text, encoding="utf-8")
    (directory / "step.json").write_text(_json(step, about), encoding="utf-8")
    (directory / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    pairs = [(stage.takes(case.tensors), stage.gives(case.tensors)) for case in cases]
    _golden.write_pairs(directory / _golden.FILE, pairs)
    return requirements


def _copy_files(step: Function, directory: Path) -> dict[str, str]:
    copied: dict[str, str] = {}
    for argument, file in step.files.items():
        path = Path(file)
        if not path.is_file() or path.name in _OURS | _OF_SCRIPTS or path.name in copied.values():
            raise InvalidRecipe(
                f"step {step.name!r} has the file {path} for {argument!r}; expected a file, of another name than the "
                f"others and {', '.join(sorted(_OURS | _OF_SCRIPTS))}"
            )
        shutil.copyfile(path, directory / path.name)
        copied[argument] = path.name
    return copied


def _json(step: Function, about: object) -> str:
    try:
        return json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as exc:
        raise InvalidRecipe(
            f"the options of step {step.name!r} cannot travel: {exc}; expected what JSON holds, or files"
        ) from exc

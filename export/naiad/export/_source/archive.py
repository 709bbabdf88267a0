"""What a `.pt2` file would run when it is read: pickles that need more than tensors, and formulas that are code.

`torch.export.load` falls back to unpickling anything, and evaluates its formulas with sympy, which evaluates Python
(torch/_export/serde/serialize.py). So the members of the archive are looked at first.
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_ARITHMETIC = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Constant,
    ast.keyword,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
    ast.expr_context,
)
_OBJECTS = ("custom_obj", "opaque")
_CLASS = re.compile(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)")


def needs_trust(path: Path) -> str | None:
    """Return what reading the file would run, in a phrase, or None where that is nothing.

    Raises:
        OSError: The file cannot be read.
        zipfile.BadZipFile: It is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        return next(_found(archive), None)


def _found(archive: zipfile.ZipFile) -> Iterator[str]:
    pickled = {name for name in archive.namelist() if name.endswith(".pt")}
    for name in archive.namelist():
        if Path(name).name.startswith(_OBJECTS):
            yield f"the object {Path(name).name}"
        elif name.endswith(".json"):
            document = json.loads(archive.read(name))
            folder = name.rpartition("/")[0]
            pickled |= {f"{folder}/{member}" for member in _pickled_members(document)}
            yield from (f"the formula {text!r:.80}" for text in _formulas(document) if not _is_formula(text))
    for name in sorted(pickled & set(archive.namelist())):
        try:
            torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
        except Exception as exc:  # noqa: BLE001 - what its strict reader cannot read, the other would unpickle
            asked = _CLASS.search(str(exc))
            yield asked[1] if asked else f"the pickle {Path(name).name}"


def _pickled_members(document: Any) -> Iterator[str]:
    for each in _dicts(document):
        if each.get("use_pickle") and isinstance(each.get("path_name"), str):
            yield each["path_name"]


def _formulas(document: Any) -> Iterator[str]:
    for each in _dicts(document):
        if isinstance(each.get("expr_str"), str):
            yield each["expr_str"]


def _is_formula(text: str) -> bool:
    """Whether a text is arithmetic on numbers and on classes of sympy, whose names begin with a capital."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        return False
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if not node.id.isalnum() or (id(node) in called and not node.id[0].isupper()):
                return False
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not re.fullmatch(r"\w+", node.value):
                return False
        elif not isinstance(node, (*_ARITHMETIC, ast.Call)):
            return False
    return True


def _dicts(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        yield document
        for value in document.values():
            yield from _dicts(value)
    elif isinstance(document, list):
        for value in document:
            yield from _dicts(value)

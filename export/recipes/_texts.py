"""What recipes of text classifiers share: labelled texts, and the step from a label's number to its name.

The texts are those of a CSV, or without one sentences that every machine has. A CSV has the columns `text` and `label`,
in UTF-8, one example a row; texts may hold commas, quotes and line breaks where they are quoted. Other columns are
ignored.
"""

from __future__ import annotations

import ast
import atexit
import csv
import functools
import importlib.util
import io
import itertools
import random
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LIBRARIES = ("numpy", "scipy", "sklearn", "torch")
"""Whose documentation the sentences of `docstrings()` are from; each is a label."""

ANY_WORDS = {"settings": {"model_warmup": None}}
"""For a model that takes numbers of words: warm-up data are one version's, and another's may know fewer words."""

_PER_LIBRARY, _PER_FILE = 1200, 25
_NAMED = re.compile(r"numpy|scipy|scikit|sklearn|torch|\bnp\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])")
_PROSE = re.compile(r"(?!.*(---|\.\. ))[A-Z][^|>=_*:\[\]]{38,240}[.!?]")


class Text(NamedTuple):
    """A text and what it is."""

    text: str
    label: str


class Split(NamedTuple):
    """What is learned from, and what only judges what was learned."""

    train: list[Text]
    held_out: list[Text]


_chosen: Split | None = None


def texts_of(data: str) -> Split:
    """Return the texts of a CSV file, or of `docstrings()` without one; `samples` and `held_out` are of the same then.

    Raises:
        ValueError: The file is not as described above; the message has the line.
    """
    global _chosen  # samples() and held_out() of a recipe take no options
    _chosen = split(read(data))
    return _chosen


def _texts() -> Split:
    return _chosen or texts_of("")


def samples() -> list[dict[str, np.ndarray]]:
    """Return texts that were learned from, and what is odd: nothing, no known word, another script, many words."""
    texts = [text for text, _ in _texts().train[:60]]
    return [{"text": column([*texts, "", "1 ?", "Ångström ΣΊΣΥΦΟΣ 𝒳 東京 naïve", " ".join(texts)])}]


def held_out() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return texts that nothing was learned from, and their labels."""
    texts, labels = zip(*_texts().held_out, strict=True)
    return {"text": column(texts)}, np.array(labels)


def evaluate(predict) -> dict[str, float]:
    """Return the share of held-out texts whose label is right."""
    inputs, labels = held_out()
    found = np.array([each.decode() for each in predict(inputs)["label"].ravel()])
    return {"accuracy": float((found == labels).mean())}


def column(texts: Sequence[str]) -> np.ndarray:
    """Return texts as the input of a pipeline, [rows, 1]."""
    return np.array([[text.encode()] for text in texts], object)


def label(best: np.ndarray, confidence: np.ndarray, *, labels: list[str]) -> dict[str, np.ndarray]:
    """Return the names of labels by their numbers, and the probabilities as they are: the last step of a pipeline."""
    return {"label": np.array(labels, object)[best][:, None], "probability": confidence}


def new_folder() -> Path:
    """Return a folder for files that travel with a pipeline; it is removed when Python ends."""
    path = Path(tempfile.mkdtemp(prefix="naiad-texts-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def read(data: str = "") -> list[Text]:
    """Return the texts of a CSV file, or `docstrings()` without one.

    Raises:
        ValueError: The file is not as described above; the message has the line.
    """
    return read_csv(Path(data).expanduser()) if data else list(docstrings())


def split(texts: Sequence[Text], seed: int = 0) -> Split:
    """Hold out a quarter of the texts of each label, at least one."""
    by_label: dict[str, list[Text]] = defaultdict(list)
    for text in texts:
        by_label[text.label].append(text)
    shuffle = _shuffle(seed)
    found = Split([], [])
    for _, group in sorted(by_label.items()):
        shuffle(group)
        held_out = max(1, len(group) // 4)
        found.held_out.extend(group[:held_out])
        found.train.extend(group[held_out:])
    for part in found:
        shuffle(part)
    return found


def _shuffle(seed: int = 0) -> Callable[[list[Any]], None]:
    return random.Random(seed).shuffle  # noqa: S311 - an order, and no secret


def read_csv(path: Path) -> list[Text]:
    """Return the texts of a CSV file in its order.

    Raises:
        ValueError: It is not as described above; the message has the line.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; expected a CSV with the columns text and label")
    rows = csv.reader(io.StringIO(_decoded(path), newline=""), strict=True)
    before = csv.field_size_limit(2**31 - 1)
    try:
        texts = list(_rows(path, rows))
    except csv.Error as exc:
        raise ValueError(f"{path}:{rows.line_num}: {exc}; expected fields with commas in quotes") from None
    finally:
        csv.field_size_limit(before)
    _check_labels(path, texts)
    return texts


def write_csv(path: Path, texts: Sequence[Text]) -> None:
    """Write texts as `read_csv` reads them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Text._fields)
        writer.writerows(texts)


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    if (nul := content.find(b"\0")) >= 0:
        raise ValueError(f"{path}:{_line(content, nul)}: a NUL byte; expected text in UTF-8, and this looks binary")
    try:
        return content.decode("utf-8-sig")  # spreadsheets put a mark in front
    except UnicodeDecodeError as exc:
        where = f"{path}:{_line(content, exc.start)}"
        byte = content[exc.start]
        raise ValueError(f"{where}: byte 0x{byte:02x} is not UTF-8; expected a CSV saved as UTF-8") from None


def _line(content: bytes, at: int) -> int:
    return content.count(b"\n", 0, at) + 1


def _rows(path: Path, rows: Iterator[list[str]]) -> Iterator[Text]:
    columns = next(rows, [])
    missing = [name for name in Text._fields if name not in columns]
    if missing:
        found = ", ".join(columns) or "nothing"
        raise ValueError(f"{path}:1: there is no column {missing[0]}; expected text and label, found {found}")
    text, label = columns.index("text"), columns.index("label")
    first = 2
    for row in rows:
        if row and len(row) != len(columns):
            raise ValueError(
                f"{path}:{first}: {len(row)} fields where the first line has {len(columns)}; a text with commas, "
                "quotes or line breaks needs quotes around it"
            )
        if row and not row[label].strip():
            raise ValueError(f"{path}:{first}: the label is empty; expected one in each row")
        if row:
            yield Text(row[text], row[label].strip())
        first = rows.line_num + 1  # type: ignore[attr-defined]  # a row may take several lines


def _check_labels(path: Path, texts: Sequence[Text]) -> None:
    if not texts:
        raise ValueError(f"{path}:2: there are no rows below the names of the columns; expected texts with labels")
    labels = [text.label for text in texts]
    if len(set(labels)) < 2:
        raise ValueError(f"{path}:2: all {len(labels)} rows have the label {labels[0]!r}; expected at least two labels")
    for label, num_rows in Counter(labels).items():
        if num_rows < 2:
            raise ValueError(f"{path}: the label {label!r} has one row; expected two: one to learn from, one to judge")


@functools.cache
def docstrings() -> tuple[Text, ...]:
    """Return sentences of the documentation of four libraries, the same on each machine that has the same versions.

    Left out are sentences that name a library, those in more than one, and whatever is not prose.
    """
    found = {library: _sentences(library) for library in LIBRARIES}
    counts = defaultdict(int)
    for sentence in itertools.chain.from_iterable(found.values()):
        counts[sentence.casefold()] += 1
    texts = [Text(one, library) for library, ones in found.items() for one in ones if counts[one.casefold()] == 1]
    _shuffle()(texts)
    return tuple(texts)


def _sentences(library: str) -> list[str]:
    """Return some sentences of a library, from files in an order that is random and always the same."""
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the package {library} is not installed; expected it, or a CSV of your own: data=FILE.csv")
    folder = Path(spec.submodule_search_locations[0])
    files = sorted(path for path in folder.rglob("*.py") if not {"tests", "testing", "conftest.py"} & set(path.parts))
    _shuffle()(files)
    found: dict[str, None] = {}
    for path in files:
        found |= dict.fromkeys(itertools.islice(_prose(path), _PER_FILE))
        if len(found) >= _PER_LIBRARY:
            break
    return list(found)[:_PER_LIBRARY]


def _prose(path: Path) -> Iterator[str]:
    """Return the sentences of the documentation in a Python file, in its order."""
    with_docs = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, with_docs) and (documentation := ast.get_docstring(node)):
            for paragraph in documentation.split("\n\n"):
                for sentence in _SENTENCE_END.split(" ".join(paragraph.split())):
                    if _PROSE.fullmatch(sentence) and not _NAMED.search(sentence):
                        yield sentence

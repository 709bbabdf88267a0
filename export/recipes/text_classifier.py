"""Texts to labels by the words in them, as one pipeline: scikit-learn learns it, PyTorch and Triton serve it.

Input `text`: BYTES [batch, 1], UTF-8. Outputs `label`: BYTES [batch, 1]; `probability`: FP32 [batch, 1]. What is
learned is a CSV's, option `data`, with the columns text and label; without one, which library a sentence is from.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import numpy as np
import torch
from _texts import ANY_WORDS, label, new_folder, texts_of
from _texts import evaluate as evaluate
from _texts import held_out as held_out
from _texts import samples as samples
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from torch import nn

from naiad.export.steps import Function, Model

MAX_BATCH_SIZE = 64

_chosen = {"data": "", "words": 5000, "ngrams": 1, "dimensions": 300}


def pipeline(data: str = "", words: int = 5000, ngrams: int = 1, dimensions: int = 300):
    """Return three steps: which words and how often, the model, the label's name."""
    _chosen.update(data=str(data), words=words, ngrams=ngrams, dimensions=dimensions)
    classifier = fitted()
    travels, varies = {"vocabulary": vocabulary_file(classifier[0])}, {1: "length"}
    return [
        # Lengths in steps of 32: requests of a similar length are computed together. They vary whatever the samples do.
        Function(
            "words",
            count,
            files=travels,
            options={"multiple_of": 32},
            dynamic={"words": varies, "counts": varies},
        ),
        Model("model", BagOfWords(classifier), outputs=["best", "confidence"], options=ANY_WORDS),
        Function("label", label, options={"labels": list(classifier.classes_)}),
    ]


class BagOfWords(nn.Module):
    """What scikit-learn learned: weights of words, a projection to fewer dimensions, logistic regression."""

    def __init__(self, classifier: Pipeline) -> None:
        super().__init__()
        vectorizer, projection, regression = (step for _, step in classifier.steps)
        weights, bias = regression.coef_, regression.intercept_
        if len(weights) == 1:  # of two labels: the second's score is above 0
            weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
        self.register_buffer("idf", torch.tensor(vectorizer.idf_, dtype=torch.float32))
        self.register_buffer("projection", torch.tensor(projection.components_.T.copy(), dtype=torch.float32))
        self.register_buffer("weights", torch.tensor(weights.T.copy(), dtype=torch.float32))
        self.register_buffer("bias", torch.tensor(bias, dtype=torch.float32))

    def scores(self, words: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Return scores that are not yet normalised, [batch, labels]."""
        tf_idf = counts * self.idf[words]
        length = tf_idf.norm(dim=1, keepdim=True).clamp(min=1e-12)  # 0 of a text without a known word
        reduced = (tf_idf / length)[:, None] @ self.projection[words]
        return reduced[:, 0] @ self.weights + self.bias

    def forward(self, words: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the number of the likeliest label, [batch], and its probability, [batch, 1]."""
        scores = self.scores(words, counts)
        return scores.argmax(dim=1), scores.softmax(dim=1).amax(dim=1, keepdim=True)


def count(text: np.ndarray, *, vocabulary: str, multiple_of: int) -> dict[str, np.ndarray]:
    """Return each text's known words, int64 [batch, length], and how often it has each, float32; 0 times is padding.

    As scikit-learn counts them. Only what is there travels to the model: a row of all counts would be a hundred times
    as long, and depend on the size of the vocabulary.
    """
    columns, pattern, ngrams = _vocabulary(vocabulary)
    rows = []
    for number, row in enumerate(text.ravel()):
        try:
            found = pattern.findall(row.decode("utf-8").lower())
        except UnicodeDecodeError as exc:
            raise ValueError(f"the text in row {number} is not UTF-8 from its byte {exc.start} on") from None
        terms = (" ".join(found[at : at + size]) for size in ngrams for at in range(len(found) - size + 1))
        counts: dict[int, int] = {}
        for column in (columns[term] for term in terms if term in columns):
            counts[column] = counts.get(column, 0) + 1
        rows.append(counts)
    longest = max(map(len, rows), default=0)
    length = max(-(-longest // multiple_of), 1) * multiple_of
    words, times = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), np.float32)
    for number, counts in enumerate(rows):
        words[number, : len(counts)], times[number, : len(counts)] = list(counts), list(counts.values())
    return {"words": words, "counts": times}


@functools.cache
def _vocabulary(path: str) -> tuple[dict[str, int], re.Pattern[str], range]:
    about = json.loads(Path(path).read_text(encoding="utf-8"))
    return about["columns"], re.compile(about["pattern"]), range(1, about["ngrams"] + 1)


def fitted() -> Pipeline:
    """Return scikit-learn's pipeline for the options that were chosen."""
    return _fit(*_chosen.values())


@functools.lru_cache(maxsize=1)
def _fit(data: str, words: int, ngrams: int, dimensions: int) -> Pipeline:
    texts, labels = zip(*texts_of(data).train, strict=True)
    vectorizer = TfidfVectorizer(max_features=words, ngram_range=(1, ngrams))
    try:
        size = vectorizer.fit_transform(texts).shape[1]
    except ValueError as exc:
        raise ValueError(f"{data}: no text has a word of two letters or more ({exc}); expected words") from None
    regression = LogisticRegression(C=10, max_iter=1000)
    return make_pipeline(vectorizer, TruncatedSVD(min(dimensions, size), random_state=0), regression).fit(texts, labels)


def vocabulary_file(vectorizer: TfidfVectorizer) -> Path:
    """Write what makes words of a text, and their columns, for the server."""
    columns = {term: int(column) for term, column in sorted(vectorizer.vocabulary_.items())}
    about = {"pattern": vectorizer.token_pattern, "ngrams": vectorizer.ngram_range[1], "columns": columns}
    path = new_folder() / "vocabulary.json"
    path.write_text(json.dumps(about, ensure_ascii=False, indent=0), encoding="utf-8")
    return path

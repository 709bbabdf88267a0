"""Sentences to vectors as one pipeline: text goes in, and the server makes tokens of it before the encoder.

Input `text`: BYTES [batch, 1], UTF-8; only the first 256 tokens count. Output `embedding`: FP32 [batch, 384] of length
1. The encoder and its data are those of the recipe `embeddings`.
"""

from __future__ import annotations

import embeddings
import numpy as np

from naiad.export.steps import Model, tokenize

MAX_BATCH_SIZE = 16


def pipeline():
    """Return two steps: tokens, then the encoder."""
    return [
        # Lengths in steps of 16: requests of a similar length are computed together.
        tokenize("tokens", embeddings.tokenizer_file(), max_length=256, multiple_of=16),
        Model("encoder", embeddings.build(), outputs=["embedding"]),
    ]


def samples() -> list[dict[str, np.ndarray]]:
    """Return sentences of different lengths."""
    return [{"text": np.array(embeddings.SENTENCES)[:, None]}]


def held_out() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return questions and then the answers to them, and for each question the number of its answer."""
    answered = embeddings.ANSWERED
    return {"text": np.array([*answered, *answered.values()])[:, None]}, embeddings.held_out()[1]


def evaluate(predict) -> dict[str, float]:
    """Return the share of questions whose nearest answer is the right one."""
    return embeddings.evaluate(lambda _: predict(held_out()[0]))

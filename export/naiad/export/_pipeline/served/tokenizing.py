"""Text to tokens, by a file of the package `tokenizers`."""

import functools
import json
from typing import Any

import numpy as np


def tokenize(
    text: Any, *, tokenizer: str, max_length: int, padding: str, multiple_of: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Return ids and mask, int64 [batch, length], of text in UTF-8."""
    rows = [_decoded(number, row) for number, row in enumerate(text.reshape(len(text)))]
    encoded = _tokenizer(tokenizer, max_length, padding, multiple_of).encode_batch(rows)
    return {
        "ids": np.array([row.ids for row in encoded], np.int64),
        "mask": np.array([row.attention_mask for row in encoded], np.int64),
    }


def _decoded(number: int, row: bytes) -> str:
    try:
        return row.decode("utf-8")
    except UnicodeDecodeError as exc:  # its own words show a byte of the text
        raise ValueError(f"the text in row {number} is not UTF-8 from its byte {exc.start} on") from None


@functools.cache
def _tokenizer(path: str, max_length: int, padding: str, multiple_of: int) -> Any:
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(path)
    length = max_length if padding == "max_length" else None
    found.enable_truncation(max_length)
    found.enable_padding(length=length, pad_to_multiple_of=multiple_of, **_pad(path, found))
    return found


def _pad(path: str, tokenizer: Any) -> dict[str, Any]:
    """Return the token that pads: what the file says, else the usual ones."""
    with open(path, encoding="utf-8") as file:
        padding = json.load(file).get("padding") or {}
    if "pad_id" in padding:
        names = ("pad_id", "pad_type_id", "pad_token")
        return {name: padding[name] for name in names} | {"direction": padding.get("direction", "right").lower()}
    for token in ("[PAD]", "<pad>", "<|endoftext|>"):
        if (number := tokenizer.token_to_id(token)) is not None:
            return {"pad_id": number, "pad_token": token}
    raise ValueError("the tokenizer names no padding token; expected [PAD], <pad> or a 'padding' entry in its file")

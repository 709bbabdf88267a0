"""Texts to labels by a small transformer encoder: the data, inputs and outputs of the recipe `text_classifier`.

Input `text`: BYTES [batch, 1], UTF-8; only the first 64 tokens count. Outputs `label`: BYTES [batch, 1];
`probability`: FP32 [batch, 1]. Pieces of words (WordPiece) and net are learned from the same CSV, option `data`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from _texts import ANY_WORDS, Text, label, new_folder, texts_of
from _texts import evaluate as evaluate
from _texts import held_out as held_out
from _texts import samples as samples
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

from naiad.export.steps import Function, Model, tokenize

MAX_BATCH_SIZE = 32
WIDTH, LAYERS, HEADS, LENGTH = 64, 2, 4, 64

_BATCH = 32


def pipeline(data: str = "", pieces: int = 4000, steps: int = 700, seed: int = 0):
    """Return three steps: tokens, the encoder, the label's name."""
    texts = texts_of(str(data)).train
    tokenizer = _tokenizer([text for text, _ in texts], pieces)
    path = new_folder() / "tokenizer.json"
    tokenizer.save(str(path))
    labels = sorted({label for _, label in texts})
    with _one_thread():
        net = train(tokenizer, texts, labels, steps=steps, seed=seed)
    return [
        # Lengths in steps of 16: requests of a similar length are computed together.
        tokenize("tokens", path, max_length=LENGTH, multiple_of=16),
        Model("encoder", net, outputs=["best", "confidence"], options=ANY_WORDS),
        Function("label", label, options={"labels": labels}),
    ]


class Encoder(nn.Module):
    """Vectors of tokens and of their places, two layers of attention, the mean of the tokens, scores of labels."""

    def __init__(self, num_tokens: int, num_labels: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(num_tokens, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm, self.dropout = nn.LayerNorm(WIDTH), nn.Dropout(0.3)
        self.head = nn.Linear(WIDTH, num_labels)
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=0.1)

    def scores(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return scores that are not yet normalised, [batch, labels]."""
        x = self.dropout(self.tokens(ids) + self.places.weight[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, mask[:, None, None].bool())
        there = mask[:, :, None].float()
        mean = (self.norm(x) * there).sum(dim=1) / there.sum(dim=1)
        return self.head(self.dropout(mean))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the number of the likeliest label, [batch], and its probability, [batch, 1]."""
        scores = self.scores(ids, mask)
        return scores.argmax(dim=1), scores.softmax(dim=1).amax(dim=1, keepdim=True)


class Layer(nn.Module):
    """Attention over all tokens and a network for each of them, both normalised before and with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query_key_value, self.attended = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.network = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the tokens after this layer, [batch, length, 64]; `mask` is [batch, 1, 1, length]."""
        parts = self.query_key_value(self.attention_norm(x)).unflatten(-1, (3, HEADS, WIDTH // HEADS))
        seen = nn.functional.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4), attn_mask=mask)
        x = x + self.dropout(self.attended(seen.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.network(self.norm(x)))


def train(tokenizer: Tokenizer, texts: list[Text], labels: list[str], *, steps: int, seed: int) -> Encoder:
    """Train an encoder; few texts take as many steps as many do, and the same seed gives the same weights."""
    tokens = tokenizer.encode_batch([text for text, _ in texts])
    ids = torch.tensor([each.ids for each in tokens])
    mask = torch.tensor([each.attention_mask for each in tokens])
    right = torch.tensor([labels.index(label) for _, label in texts])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Encoder(tokenizer.get_vocab_size(), len(labels))
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for rows in itertools.islice(_batches(mask.sum(dim=1)), steps):
            length = int(mask[rows].sum(dim=1).max())
            optimizer.zero_grad()
            scores = net.scores(ids[rows, :length], mask[rows, :length])
            nn.functional.cross_entropy(scores, right[rows]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A net this small trains no faster on more threads, and the sums come out the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batches(lengths: torch.Tensor) -> Iterator[torch.Tensor]:
    """Go on giving rows by batch, in each some of about the same length, since padding is computed, too."""
    while True:
        batches = (lengths + 8 * torch.rand(len(lengths))).argsort().split(_BATCH)
        yield from (batches[at] for at in torch.randperm(len(batches)))


def _tokenizer(texts: list[str], pieces: int) -> Tokenizer:
    """Learn pieces of words; [CLS] begins each text, so that none is empty."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - of another kind
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]"]
    trainer = trainers.WordPieceTrainer(vocab_size=pieces, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding()
    return tokenizer

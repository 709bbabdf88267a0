"""The two nets of the benchmark, with random weights of a fixed seed: a ResNet-50 and a BERT-base encoder.

Inputs are what services get, pixels of 8 bits and token numbers, and outputs are fp32: a net's precision is inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Inner channels, blocks and first stride of ResNet-50's stages."""
_SEED = 0
_BRANCH_SCALE = 0.2  # of a block's last normalisation: the sum of random branches stays within fp16's range
_TOKENS = 30_522


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How large a net is: ResNet's stages and image side, BERT's width, layers and sequence."""

    blocks: tuple[int, ...]
    side: int
    hidden: int
    layers: int
    sequence: int


FULL = Sizes(blocks=(3, 4, 6, 3), side=224, hidden=768, layers=12, sequence=128)
TINY = Sizes(blocks=(1, 1), side=32, hidden=64, layers=2, sequence=16)


class Block(nn.Module):
    """A bottleneck of three convolutions beside a shortcut."""

    def __init__(self, inside: int, inner: int, stride: int) -> None:
        super().__init__()
        outside = 4 * inner
        last = nn.BatchNorm2d(outside)
        nn.init.constant_(last.weight, _BRANCH_SCALE)
        self.branch = nn.Sequential(
            nn.Conv2d(inside, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, outside, 1, bias=False),
            last,
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.branch(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Pixels u8[N,3,H,W] to logits f32[N,1000]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        layers.append(nn.MaxPool2d(3, 2, 1))
        inside = 64
        for (inner, _, stride), blocks in zip(STAGES, sizes.blocks, strict=False):
            for number in range(blocks):
                layers.append(Block(inside, inner, stride if number == 0 else 1))
                inside = 4 * inner
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(inside, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        images = pixels.to(self.head.weight.dtype) / 127.5 - 1.0
        return {"logits": self.head(self.body(images).mean((2, 3))).float()}


class Layer(nn.Module):
    """Self-attention and two linear layers, each followed by its normalisation, as in BERT."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.heads = hidden // 64 or 1
        self.project = nn.Linear(hidden, 3 * hidden)
        self.merge = nn.Linear(hidden, hidden)
        self.first, self.second = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.widen, self.narrow = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.project(x).chunk(3, dim=-1)
        )
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        x = self.first(x + self.merge(seen.transpose(1, 2).flatten(2)))
        normed: Tensor = self.second(x + self.narrow(functional.gelu(self.widen(x))))
        return normed


class Bert(nn.Module):
    """Token numbers and mask i64[N,S] to the pooled f32[N,hidden]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        hidden = sizes.hidden
        self.tokens, self.places = nn.Embedding(_TOKENS, hidden), nn.Embedding(sizes.sequence, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.layers = nn.ModuleList(Layer(hidden) for _ in range(sizes.layers))
        self.pool = nn.Linear(hidden, hidden)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.tokens(ids) + self.places.weight)
        allowed = (mask > 0)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, allowed)
        return {"pooled": torch.tanh(self.pool(x[:, 0])).float()}


NETS = {"resnet50": ResNet, "bert_base": Bert}


def build(name: str, sizes: Sizes) -> nn.Module:
    """Return the net in eval mode, in fp32, on the CPU."""
    torch.manual_seed(_SEED)
    return NETS[name](sizes).eval()


def inputs(name: str, sizes: Sizes, batch: int) -> dict[str, Any]:
    """Return NumPy inputs by name for a batch; the same for the same size."""
    generator = torch.Generator().manual_seed(batch)
    if name == "resnet50":
        shape = (batch, 3, sizes.side, sizes.side)
        return {"pixels": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).numpy()}
    ids = torch.randint(0, _TOKENS, (batch, sizes.sequence), generator=generator)
    return {"ids": ids.numpy(), "mask": torch.ones_like(ids).numpy()}

"""Is somebody speaking: Silero's recurrent detector with its trained weights, state in and state out.

`audio` [batch, 576] float32, 36 ms of sound at 16 kHz of which the first 64 values repeat the chunk before, with the
state `h` and `c` [batch, 128], to `speech` [batch, 1], from 0 to 1, and the state for the next chunk. The weights come
from the package silero-vad (MIT).
"""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from naiad.export.weights import from_package

MAX_BATCH_SIZE = 32
OUTPUTS = ("speech", "h_out", "c_out")

RATE_HZ = 16_000
CHUNK = 512
CONTEXT = 64


class VoiceActivity(nn.Module):
    """A spectrum, four convolutions, an LSTM cell, one value."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, audio: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the probability of speech, [batch, 1], and the new state."""
        x = self.stft_conv(functional.pad(audio, (0, 64), mode="reflect")[:, None])
        real, imaginary = x.split(129, dim=1)
        x = (real**2 + imaginary**2).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        h, c = self.lstm_cell(x.squeeze(-1), (h, c))
        return self.final_conv(h[:, :, None].relu()).sigmoid().squeeze(1), h, c


def build() -> VoiceActivity:
    """Return the trained net."""
    path = from_package(
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad_16k.safetensors",
        sha256="c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
    )
    model = VoiceActivity()
    model.load_state_dict(load_file(path))
    return model.eval()


def samples() -> list[dict[str, np.ndarray]]:
    """Return chunks of a hummed vowel between silences, each with the state that the net has before it."""
    chunks, model = sound(seed=0), build()
    state = [torch.zeros(1, 128), torch.zeros(1, 128)]
    found = []
    for chunk in chunks:
        found.append((chunk[None], *(part.numpy() for part in state)))
        with torch.no_grad():
            state = list(model(torch.from_numpy(chunk[None]), *state)[1:])
    parts = zip(*found, strict=True)
    return [{name: np.concatenate(part) for name, part in zip(("audio", "h", "c"), parts, strict=True)}]


def sound(*, seed: int, seconds: float = 2.0) -> np.ndarray:
    """Return a synthesised vowel between two silences in chunks with their context, [chunks, 576]."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    pitch = 120 + 20 * np.sin(2 * np.pi * 3 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    # Formants of an "a" (Peterson and Barney, 1952).
    gains = {k: sum(np.exp(-(((120 * k - f) / 120) ** 2)) for f in (730, 1090, 2440)) + 0.02 for k in range(1, 30)}
    voice = sum(gain * np.sin(k * phase) for k, gain in gains.items())
    envelope = np.clip(np.minimum(time - 0.4 * seconds, 0.8 * seconds - time) * 20, 0, 1)
    wave = 0.1 * voice * envelope + rng.normal(0, 1e-3, time.size)
    padded = np.concatenate([np.zeros(CONTEXT), wave]).astype(np.float32)
    starts = range(0, len(wave) - CHUNK + 1, CHUNK)
    return np.stack([padded[start : start + CONTEXT + CHUNK] for start in starts])

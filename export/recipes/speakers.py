"""Who speaks: the speaker encoder of Wan et al. (2018, arXiv:1710.10467), three LSTM layers with trained weights.

`mels` [batch, frames, 40] float32, a mel spectrogram at 16 kHz with steps of 10 ms and any number of frames, to
`embedding` [batch, 256] of length 1; voices are compared by its dot product. The weights come from the package
Resemblyzer (Apache-2.0).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from naiad.export.weights import from_package

DYNAMIC = {"mels": {0: "batch", 1: "frames"}}
MAX_BATCH_SIZE = 32
OUTPUTS = ("embedding",)

RATE_HZ = 16_000


class SpeakerEncoder(nn.Module):
    """Three LSTM layers; the last state becomes a vector of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        """Return one vector for each utterance, [batch, 256]."""
        _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=1)


def build() -> SpeakerEncoder:
    """Return the trained net."""
    path = from_package(
        "Resemblyzer==0.1.4",
        "resemblyzer/pretrained.pt",
        sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
    )
    weights = torch.load(path, weights_only=True, map_location="cpu")["model_state"]
    model = SpeakerEncoder()
    model.load_state_dict({name: value for name, value in weights.items() if not name.startswith("similarity")})
    return model.eval()


def samples() -> list[tuple[torch.Tensor]]:
    """Return spectrograms of eight synthesised voices, 1.6 s each, as the net was trained on."""
    return [(torch.from_numpy(np.stack([mel_spectrogram(voice(seed)) for seed in range(8)])),)]


def voice(seed: int, seconds: float = 1.6) -> np.ndarray:
    """Return a synthesised voice that hums: harmonics with a formant pattern of its own."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(rng.uniform(90, 220) * (1 + 0.05 * np.sin(2 * np.pi * 2 * time))) / RATE_HZ
    gains = rng.gamma(1.0, 1.0, 30) / np.arange(1, 31)
    wave = sum(gain * np.sin(number * phase) for number, gain in enumerate(gains, start=1))
    return (0.05 * wave + rng.normal(0, 1e-3, time.size)).astype(np.float32)


def mel_spectrogram(wave: np.ndarray) -> np.ndarray:
    """Return the power in 40 mel bands, windows of 25 ms every 10 ms, [frames, 40]."""
    window = torch.hann_window(400)
    spectrum = torch.stft(torch.from_numpy(wave), 400, 160, window=window, return_complex=True).abs() ** 2
    return (spectrum.T @ torch.from_numpy(_mel_bands())).numpy()


def _mel_bands() -> np.ndarray:
    """Return triangles on the mel scale (O'Shaughnessy, 1987), each of area 1, [201, 40]."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE_HZ / 2 / 700), 42) / 2595) - 1)
    hertz = np.linspace(0, RATE_HZ / 2, 201)[:, None]
    rising, falling = (hertz - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - hertz) / np.diff(edges)[1:]
    return (np.minimum(rising, falling).clip(0) * 2 / (edges[2:] - edges[:-2])).astype(np.float32)

"""The pitch of a sound that goes on: CREPE on a stream, in chunks of any number of hops; the server keeps the context.

`audio` [batch, hops, 160] float32, sound at 16 kHz in hops of 10 ms, to `pitch` [batch, hops], in Hz, and `confidence`
[batch, hops], from 0 to 1: one value each for the 64 ms that end with the hop. Of those, 54 ms lie before it: they are
`tail`, which stays on the server from one request of a sequence to the next. Before a sequence there is silence, so
the first six hops of a sound describe less of it. The net and its weights are those of the recipe `pitch`.
"""

from __future__ import annotations

import numpy as np
import pitch
import torch
from torch import nn

DYNAMIC = {"audio": {0: "batch", 1: "hops"}, "tail": {0: "batch"}}
MAX_BATCH_SIZE = 8
OUTPUTS = ("pitch", "confidence", "tail_out")
STATES = {"tail": "tail_out"}
# A stream waits for its answers: better small batches than long waits for others.
SETTINGS = {"sequence_batching.oldest.max_queue_delay_microseconds": 500}

RATE_HZ = pitch.RATE_HZ
HOP = 160
TAIL = pitch.FRAME - HOP
MAX_HOPS = 1000
"""The most of one request, 10 s: the net takes about a third of a megabyte of memory for each."""

_LOWEST_HZ = 31.7
_BINS = 360
_CENTS = 20.0
_QUIET = 1e-4
"""Sound is not amplified beyond this deviation, 80 dB below full scale, so that silence stays silence and is no NaN."""


class PitchStream(nn.Module):
    """Frames cut out of the stream, each normalised, then CREPE, then one pitch of its 360 bins."""

    def __init__(self, crepe: nn.Module) -> None:
        super().__init__()
        self.crepe = crepe
        self.register_buffer("room", torch.zeros(MAX_HOPS))

    def forward(self, audio: torch.Tensor, tail: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return pitch and confidence of each hop, [batch, hops], and the tail for the next chunk, [batch, 864]."""
        sound = torch.cat([tail, audio.flatten(1)], dim=1)
        frames = sound.unfold(1, pitch.FRAME, HOP)
        # No place in `room` is an error, and comes before the memory for the net is taken.
        frames = frames + self.room.index_select(0, torch.arange(frames.shape[1]))[:, None]
        frames = frames - frames.mean(dim=2, keepdim=True)
        deviation = frames.square().mean(dim=2, keepdim=True).sqrt()
        frames = frames / deviation.clamp(min=_QUIET)
        activation = self.crepe(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return _pitch_hz(activation), activation.amax(dim=2), sound[:, -TAIL:]


def _pitch_hz(activation: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean of the nine bins around the likeliest, those beyond the ends left out, in Hz."""
    bins = activation.argmax(dim=2, keepdim=True) + torch.arange(-4, 5)
    inside = (bins >= 0) & (bins < _BINS)
    weights = activation.gather(2, bins.clamp(0, _BINS - 1)) * inside
    mean = (weights * bins).sum(dim=2) / weights.sum(dim=2)
    return _LOWEST_HZ * torch.exp2(mean * (_CENTS / 1200))


def build() -> PitchStream:
    """Return the trained net with what surrounds it."""
    return PitchStream(pitch.build()).eval()


def samples() -> list[dict[str, np.ndarray]]:
    """Return the chunks of a melody, 50 ms each with the samples before them, and some that are longer."""
    sound, _ = melody(seed=1)
    return [_cut(sound, hops=5, every=9), _cut(sound, hops=12, every=70)]


def _cut(sound: np.ndarray, *, hops: int, every: int) -> dict[str, np.ndarray]:
    before = np.concatenate([np.zeros(TAIL, np.float32), sound])
    starts = range(0, len(sound) - hops * HOP, every * HOP)
    chunks = np.stack([before[start : start + TAIL + hops * HOP] for start in starts])
    return {"audio": chunks[:, TAIL:].reshape(len(chunks), hops, HOP), "tail": chunks[:, :TAIL]}


def melody(*, seed: int, notes: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return a melody with vibrato, overtones, noise and rests, [samples], and its pitch at each sample, 0 in rests."""
    rng = np.random.default_rng(seed)
    scale = 440 * 2 ** (np.array([-21, -17, -14, -12, -9, -7, -5, -2, 0, 3, 5]) / 12)
    sound, pitches = [], []
    for note in range(notes):
        time = np.arange(int(rng.uniform(0.2, 0.7) * 100) * HOP) / RATE_HZ
        if note % 4 == 3:  # a rest: every other one with noise, the others without a sound
            sound.append(np.full(len(time), 1e-9 if note % 8 == 3 else 0.0))
            pitches.append(np.zeros(len(time)))
            continue
        hertz = rng.choice(scale) * 2 ** (0.3 / 12 * np.sin(2 * np.pi * 5.5 * time + rng.uniform(0, 6)))
        phase = 2 * np.pi * np.cumsum(hertz) / RATE_HZ
        gains = rng.uniform(0.3, 1.0, 8) / np.arange(1, 9)
        fade = np.clip(np.minimum(time, time[-1] - time) * 100, 0, 1)
        sound.append(0.2 * fade * sum(gain * np.sin(k * phase) for k, gain in enumerate(gains, start=1)))
        pitches.append(hertz)
    wave = np.concatenate(sound)
    wave, truth = np.concatenate(sound), np.concatenate(pitches)
    wave[wave != 0] += rng.normal(0, 0.002, np.count_nonzero(wave))
    return wave.astype(np.float32), truth


def truth_hz(pitches: np.ndarray) -> np.ndarray:
    """Return the pitch of each hop's frame from those of the samples: 0 in rests, NaN where two notes meet."""
    silence = np.zeros(TAIL)
    frames = np.lib.stride_tricks.sliding_window_view(np.concatenate([silence, pitches]), pitch.FRAME)[::HOP]
    least, most = frames.min(axis=1), frames.max(axis=1)
    # Vibrato moves a note by less than a semitone within a frame; the next note is further away.
    found = np.where((least > 0) & (most < least * 2 ** (1 / 12)), np.sqrt(least * most), np.nan)
    return np.where(most == 0, 0.0, found)

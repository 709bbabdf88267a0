"""Sound in and pictures out: WAV files at any rate, and a track of pitches as SVG."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]

__all__ = ["UnreadableSound", "draw_track", "read_wav"]

_WIDTH, _HEIGHT, _MARGIN = 960, 360, 48
_NAMES: Final = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
_LEAST_S: Final = 0.1
_RATES_HZ: Final = (1_000, 768_000)


class UnreadableSound(ValueError):
    """A file is no sound that can be read here; the message says what was expected and found."""


def read_wav(path: Path, rate_hz: int) -> Floats:
    """Return a WAV file (PCM of 8 to 32 bits, any rate, any channels) as one channel at a rate, float32 from -1 to 1.

    Raises:
        UnreadableSound: it is no such file, or shorter than a tenth of a second.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except OSError as exc:
        raise UnreadableSound(f"{path}: expected a WAV file, found {exc.strerror or exc}") from exc
    except (wave.Error, EOFError) as exc:
        reason = str(exc) or "the file ends too early"
        raise UnreadableSound(
            f"{path}: expected a WAV file of integer samples (PCM), found another ({reason}); convert it, for example "
            "with ffmpeg -i FILE -c:a pcm_s16le out.wav"
        ) from exc
    if not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
        raise UnreadableSound(f"{path}: expected a rate of {_RATES_HZ[0]} to {_RATES_HZ[1]} Hz, found {rate}")
    samples = _samples(raw, width, channels)
    if len(samples) < _LEAST_S * rate:
        raise UnreadableSound(f"{path}: expected {_LEAST_S} s of sound or more, found {len(samples) / rate:.3f} s")
    return _resample(samples, rate, rate_hz)


def _samples(raw: bytes, width: int, channels: int) -> Floats:
    """Return the mean of the channels, -1 to 1; 8 bits are unsigned in WAV files, the others signed."""
    import numpy as np

    raw = raw[: len(raw) // (width * channels) * width * channels]
    values = np.frombuffer(raw, np.uint8).reshape(-1, channels, width)
    if width == 1:
        sound = values[:, :, 0].astype(np.float64) / 128 - 1
    else:
        wide = np.zeros((*values.shape[:2], 4), np.uint8)
        wide[:, :, 4 - width :] = values
        sound = wide.view("<i4")[:, :, 0] / 2.0**31
    mean: Floats = sound.mean(axis=1)
    return mean


def _resample(sound: Floats, rate_hz: int, wanted_hz: int) -> Floats:
    """Return the sound at another rate: its spectrum cut or extended, which keeps pitches exactly."""
    import numpy as np

    if rate_hz == wanted_hz:
        return sound.astype(np.float32)
    wanted = round(len(sound) * wanted_hz / rate_hz)
    spectrum = np.fft.rfft(sound)[: wanted // 2 + 1]
    resampled = np.fft.irfft(spectrum, wanted) * (wanted / len(sound))
    return resampled.astype(np.float32)


def draw_track(path: Path, *, title: str, found: Floats, truth: Floats | None, hop_s: float) -> None:
    """Write pitches over time as SVG: NaN where there is none; wide and grey the truth, narrow and blue what was found.

    Both are in Hz, one value a hop; the axis has a line for each C, and for each semitone where there is room.
    """
    import numpy as np

    every = np.concatenate([each[np.isfinite(each)] for each in (found, truth) if each is not None])
    every = every if len(every) else np.array([440.0])
    low, high = np.floor(_midi(every.min())) - 1, np.ceil(_midi(every.max())) + 1
    x = _MARGIN + np.arange(len(found)) * ((_WIDTH - 2 * _MARGIN) / max(len(found) - 1, 1))

    def y(midi: Any) -> Any:
        return _HEIGHT - _MARGIN - (midi - low) * ((_HEIGHT - 2 * _MARGIN) / (high - low))

    semitone = y(0) - y(1)
    parts = [f'<text x="{_MARGIN}" y="24" font-size="15">{_escape(title)}</text>']
    step = 1 if high - low <= 26 else 12
    for midi in range(int(low), int(high) + 1):
        if midi % step == 0 and midi % 12 in ((0, 2, 4, 5, 7, 9, 11) if step == 1 else (0,)):
            parts.append(_line(y(midi), f"{_NAMES[midi % 12]}{midi // 12 - 1}", strong=midi % 12 == 0))
    seconds = len(found) * hop_s
    for second in np.linspace(0, seconds, 9):
        at = _MARGIN + second / seconds * (_WIDTH - 2 * _MARGIN)
        parts.append(f'<text x="{at:.0f}" y="{_HEIGHT - 20}" text-anchor="middle">{second:.1f} s</text>')
    if truth is not None:
        parts.append(_path(x, y(_midi(truth)), 'stroke="#c4c4c4" stroke-width="9"', semitone))
    parts.append(_path(x, y(_midi(found)), 'stroke="#0b63c5" stroke-width="2"', semitone))
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="11" fill="#444"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n',
        encoding="utf-8",
    )


def _midi(hertz: Any) -> Any:
    """Return the MIDI number of a pitch: 69 is A at 440 Hz, a semitone is 1."""
    import numpy as np

    return 69 + 12 * np.log2(hertz / 440)


def _line(y: float, name: str, *, strong: bool) -> str:
    colour = "#bbb" if strong else "#eee"
    return (
        f'<path d="M{_MARGIN} {y:.1f}H{_WIDTH - _MARGIN}" stroke="{colour}"/>'
        f'<text x="{_MARGIN - 8}" y="{y + 4:.1f}" text-anchor="end">{name}</text>'
    )


def _path(x: Sequence[float] | Floats, y: Floats, style: str, leap: float) -> str:
    """Return a line that is interrupted where y is NaN or leaps."""
    import numpy as np

    words, before = [], np.nan
    for at, value in zip(x, y, strict=True):
        if np.isfinite(value):
            words.append(f"{'L' if abs(value - before) < leap else 'M'}{at:.1f} {value:.1f}")
        before = value
    joined = f'd="{"".join(words)}" fill="none" stroke-linejoin="round" stroke-linecap="round"'
    return f"<path {joined} {style}/>" if words else ""


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")

"""The pitch of a sound that goes on: streams in chunks, whose state stays on the server."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from naiad.cli.demo.sound import UnreadableSound, draw_track, read_wav
from naiad.cli.demo.system import System

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.client import Client, Sequence
    from naiad.export import Recipe

    Track = tuple[Any, Any]
    """Pitch in Hz and confidence of each hop."""

_NAME: Final = "pitch_stream"
_SURE: Final = 0.5
"""A note sounds where CREPE is more confident than this."""
_STREAMS: Final = 6
_CHUNK_HOPS: Final = 5
_SAME_HZ: Final = 5e-3
"""Rounding: a pitch is the mean of nine bins, each of which differs in its last bits."""


def run(stage: Stage) -> None:
    """Export CREPE for streams, serve it, and find the pitches of melodies whole, in chunks, and interleaved."""
    from naiad.export import load_recipe

    recipe = load_recipe(_NAME)
    sound = _given_sound(stage, recipe)
    version = stage.publish(recipe)
    with stage.serve(_NAME) as triton, triton.client() as client:
        _find_notes(stage, recipe, client)
        _break_off(stage, recipe, client)
        _hurry(stage, recipe, client)
        if sound is not None:
            _follow_file(stage, recipe, client, sound)
        stage.load_test(triton.grpc_url, golden=version.path / "golden.npz")


def _given_sound(stage: Stage, recipe: Recipe) -> Any:
    """Return what `-o audio=FILE.wav` names, read before anything else is done."""
    if "audio" not in stage.options:
        return None
    try:
        return read_wav(Path(stage.options["audio"]).expanduser(), recipe.module.RATE_HZ)
    except UnreadableSound as exc:
        import typer

        raise typer.BadParameter(str(exc), param_hint="--option audio") from None


def _find_notes(stage: Stage, recipe: Recipe, client: Client) -> None:
    """Follow a melody in Python, served in one piece and served in chunks of all sizes; then compare."""
    import numpy as np

    rng = np.random.default_rng(0)
    sound, pitches = recipe.module.melody(seed=2)
    hops = _hops(recipe, sound)
    with stage.step("follow a melody in one piece, in chunks of all sizes, and in PyTorch without a server") as done:
        expected = _in_python(recipe, sound)
        whole = _follow(client, hops, [len(hops)])
        chunked = _follow(client, hops, rng.integers(1, 30, len(hops)).tolist())
        done(f"{len(hops)} hops, {len(hops) / 100:.1f} s of sound")
    _note_agreement(stage, whole, chunked, expected)
    truth = recipe.module.truth_hz(pitches)[: len(hops)]
    _note_accuracy(stage, chunked, truth)
    picture = stage.folder / "melody.svg"
    found = np.where(chunked[1] > _SURE, chunked[0], np.nan)
    draw_track(
        picture,
        title="A synthesised melody: what was played (grey), and what the server found in chunks (blue)",
        found=found,
        truth=np.where(truth > 0, truth, np.nan),
        hop_s=0.01,
    )
    stage.summary.paths["melody"] = picture


def _hops(recipe: Recipe, sound: Any) -> Any:
    """Return the sound in whole hops, [hops, 160]; what is left over at the end is less than 10 ms."""
    size = recipe.module.HOP
    return sound[: len(sound) // size * size].reshape(-1, size)


def _follow(client: Client, hops: Any, sizes: list[int]) -> Track:
    """Return the track of a sound that is sent as one sequence, in chunks of these sizes until it ends."""
    with client.model(_NAME).sequence() as stream:
        return _send(stream, hops, sizes, end=True)


def _send(stream: Sequence, hops: Any, sizes: list[int], *, end: bool = False) -> Track:
    import numpy as np

    found, at = [], 0
    for size in sizes:
        if at < len(hops):
            last = at + size >= len(hops)
            found.append(stream.infer({"audio": hops[None, at : at + size]}, end=end and last))
            at += size
    pitch, confidence = (np.concatenate([each[name][0] for each in found]) for name in ("pitch", "confidence"))
    return pitch, confidence


def _in_python(recipe: Recipe, sound: Any) -> Track:
    """Return the track without a server and without the recipe's graph: frames by NumPy, CREPE by PyTorch."""
    import numpy as np
    import torch

    module = recipe.module
    padded = np.concatenate([np.zeros(module.TAIL), sound.astype(np.float64)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, module.pitch.FRAME)[:: module.HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames = frames / np.maximum(frames.std(axis=1, keepdims=True), 1e-4)
    with torch.inference_mode():
        activation = module.pitch.build()(torch.from_numpy(frames.astype(np.float32))).double().numpy()
    return module.pitch.pitch_hz(activation), activation.max(axis=1)


def _note_agreement(stage: Stage, whole: Track, chunked: Track, expected: Track) -> None:
    """Note how far the tracks are apart where there is a note, and their confidence anywhere."""
    notes = expected[1] > _SURE
    apart = [float(abs(a[0] - b[0])[notes].max()) for a, b in ((whole, chunked), (chunked, expected))]
    sure = max(float(abs(a[1] - b[1]).max()) for a, b in ((whole, chunked), (chunked, expected)))
    stage.summary.row(
        "chunks against one piece",
        f"largest difference {apart[0]:.1g} Hz",
        chunks_to_whole_hz=apart[0],
    )
    stage.summary.row(
        "served against PyTorch",
        f"largest difference {apart[1]:.1g} Hz, of the confidence {sure:.1g}",
        served_to_pytorch_hz=apart[1],
        confidence_difference=sure,
    )
    stage.summary.check(
        max(apart) < _SAME_HZ, f"a melody in chunks, whole and in PyTorch differ by {max(apart):.3g} Hz"
    )
    stage.summary.check(sure < 1e-4, f"confidence in chunks, whole and in PyTorch differs by {sure:.3g}")


def _note_accuracy(stage: Stage, track: Track, truth: Any) -> None:
    """Note how many hops of a note are within half a semitone, and how many of a rest are known as one."""
    import numpy as np

    notes, rests = truth > 0, truth == 0
    cents = 1200 * np.abs(np.log2(track[0][notes] / truth[notes]))
    right = float(((cents < 50) & (track[1][notes] > _SURE)).mean())
    silent = float((track[1][rests] <= _SURE).mean())
    stage.summary.row(
        "notes",
        f"{right:.1%} of {len(cents)} hops within half a semitone (median {np.median(cents):.1f} cents)",
        notes_right=right,
        note_hops=len(cents),
        median_error_cents=float(np.median(cents)),
    )
    stage.summary.row("rests", f"{silent:.1%} of {rests.sum()} hops known as rests", rests_right=silent)
    stage.summary.check(right > 0.98, f"only {right:.1%} of the notes' hops are within half a semitone")
    stage.summary.check(silent > 0.95, f"only {silent:.1%} of the rests' hops are known as such")


def _break_off(stage: Stage, recipe: Recipe, client: Client) -> None:
    """Send several melodies at once, another one that stops in the middle, and compare each with itself alone."""
    sounds = [_hops(recipe, recipe.module.melody(seed=seed, notes=6)[0]) for seed in range(10, 10 + _STREAMS)]
    sizes = [_CHUNK_HOPS] * 200
    with stage.step(f"{_STREAMS} melodies at once, and one caller that goes without a word") as done:
        before = client.statistics(_NAME)[0]
        with ThreadPoolExecutor(_STREAMS + 1) as threads:
            gone = threads.submit(_abandon, client, sounds[0])
            together = list(threads.map(lambda hops: _follow(client, hops, sizes), sounds))
            gone.result()
        during = client.statistics(_NAME)[0] - before
        alone = [_follow(client, hops, sizes) for hops in sounds]
        apart = max(_apart(a, b) for a, b in zip(together, alone, strict=True))
        rows = during.inference_count / max(during.execution_count, 1)
        done(f"{rows:.1f} chunks in a run")
    stage.summary.row(
        "streams at once",
        f"{_STREAMS} melodies and one broken off, {rows:.1f} chunks in a run; largest difference to each alone "
        f"{apart:.1g} Hz",
        streams=_STREAMS,
        chunks_per_run=rows,
        together_to_alone_hz=apart,
    )
    stage.summary.check(
        apart < _SAME_HZ, f"melodies disturb each other: they differ by {apart:.3g} Hz from those alone"
    )


def _apart(a: Track, b: Track) -> float:
    notes = b[1] > _SURE
    return float(abs(a[0] - b[0])[notes].max())


def _abandon(client: Client, hops: Any) -> None:
    """Begin a sequence, and leave it without an end; the server forgets it after its idle time-out."""
    with client.model(_NAME).sequence(end_on_exit=False) as stream:
        _send(stream, hops, [_CHUNK_HOPS] * 4)


def _hurry(stage: Stage, recipe: Recipe, client: Client) -> None:
    """Send one stream as fast as answers come, chunk by chunk, and the streams of several callers at once."""
    import numpy as np

    hops = _hops(recipe, recipe.module.melody(seed=3, notes=8)[0])
    with stage.step("send a stream, and several at once, as fast as answers come") as done:
        rows = []
        for size in (1, _CHUNK_HOPS, 20):
            latencies, took_s = _timed(client, hops, size)
            p50, p99 = np.percentile(latencies, [50, 99]) * 1000
            rows.append((size, len(hops) / 100 / took_s, p50, p99))
        started = time.monotonic()
        with ThreadPoolExecutor(_STREAMS) as threads:
            list(threads.map(lambda _: _timed(client, hops, _CHUNK_HOPS), range(_STREAMS)))
        factor = _STREAMS * len(hops) / 100 / (time.monotonic() - started)
        done(f"{rows[1][1]:.1f} s of sound a second, {factor:.1f} with {_STREAMS} streams")
    stage.summary.row(
        "real time",
        f"{rows[1][1]:.1f} s of sound a second in one stream, {factor:.1f} s in {_STREAMS} at once",
        sound_s_per_s=rows[1][1],
        sound_s_per_s_streams=factor,
    )
    stage.summary.table(
        "One stream, as fast as answers come",
        [
            {
                "chunk": f"{size * 10} ms",
                "sound a second": f"{speed:.1f} s",
                "latency p50": f"{p50:.1f} ms",
                "p99": f"{p99:.1f} ms",
            }
            for size, speed, p50, p99 in rows
        ],
        chunks=[
            {"chunk_ms": size * 10, "sound_s_per_s": speed, "p50_ms": p50, "p99_ms": p99}
            for size, speed, p50, p99 in rows
        ],
    )


def _timed(client: Client, hops: Any, size: int) -> tuple[list[float], float]:
    latencies: list[float] = []
    started = time.monotonic()
    with client.model(_NAME).sequence() as stream:
        for at in range(0, len(hops), size):
            result = stream.infer({"audio": hops[None, at : at + size]}, end=at + size >= len(hops))
            latencies.append(result.timing.total_s)
    return latencies, time.monotonic() - started


def _follow_file(stage: Stage, recipe: Recipe, client: Client, sound: Any) -> None:
    """Follow the sound of a file in chunks of a second, and draw it."""
    import numpy as np

    hops = _hops(recipe, sound)
    name = Path(stage.options["audio"]).name
    with stage.step(f"follow {name}") as done:
        pitch, confidence = _follow(client, hops, [100] * (len(hops) // 100 + 1))
        sure = confidence > _SURE
        done(f"{len(hops) / 100:.1f} s")
    picture = stage.folder / "audio.svg"
    draw_track(picture, title=name, found=np.where(sure, pitch, np.nan), truth=None, hop_s=0.01)
    text = f"from {pitch[sure].min():.1f} to {pitch[sure].max():.1f} Hz" if sure.any() else "no note in it"
    stage.summary.row(
        "your sound",
        f"{name}, {len(hops) / 100:.1f} s, a note in {sure.mean():.0%} of the hops, {text}",
        audio_s=len(hops) / 100,
        audio_voiced=float(sure.mean()),
        audio_median_hz=float(np.median(pitch[sure])) if sure.any() else None,
    )
    stage.summary.paths["your sound, drawn"] = picture


SYSTEM = System(
    name="pitch",
    title="The pitch of a melody while it sounds: CREPE on streams whose state stays on the server",
    shows=("states of sequences", "dynamic length", "trained weights from a package"),
    recipes=("pitch_stream",),
    about_s=50,
    run=run,
    options={"audio": "a WAV file to follow, too"},
)

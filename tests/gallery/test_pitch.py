"""The pitch of a melody: what the demo found, and the streams it published, served again."""

import shutil
import struct
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from naiad.cli.demo.sound import UnreadableSound, read_wav
from naiad.client import InferenceFailed, InvalidInput
from naiad.export import Repository, load_recipe
from naiad.server import EmbeddedTriton

RATE_HZ, HOP = 16_000, 160


@pytest.fixture(scope="module")
def stream(demo_of):
    """The model of streams, on a real Triton."""
    with EmbeddedTriton(demo_of("pitch").repository, models=["pitch_stream"]) as triton, triton.client() as client:
        yield client.model("pitch_stream")


@pytest.fixture(scope="module")
def recipe() -> Any:
    return load_recipe("pitch_stream").module


@pytest.fixture(scope="module")
def hops(recipe) -> np.ndarray:
    """A melody of a few notes."""
    sound, _ = recipe.melody(seed=5, notes=5)
    return sound.reshape(-1, HOP)[:150]


def track(stream, hops: np.ndarray, *sizes: int) -> tuple[np.ndarray, np.ndarray]:
    """What one sequence answers to hops in chunks of these sizes; the last size goes on."""
    found, at = [], 0
    with stream.sequence() as sequence:
        for number in range(len(hops)):
            size = sizes[min(number, len(sizes) - 1)]
            if at < len(hops):
                found.append(sequence.infer({"audio": hops[None, at : at + size]}, end=at + size >= len(hops)))
                at += size
    return tuple(np.concatenate([each[name][0] for each in found]) for name in ("pitch", "confidence"))


def apart(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """The largest difference in Hz where there is a note."""
    return float(np.abs(a[0] - b[0])[b[1] > 0.5].max())


def test_a_melody_is_heard_and_its_rests_too(demo_of):
    """Every hop that is one note within half a semitone, rests by their confidence."""
    found = demo_of("pitch").found
    assert found["notes_right"] > 0.98
    assert found["median_error_cents"] < 20
    assert found["rests_right"] > 0.95
    assert found["note_hops"] > 200


def test_chunks_one_piece_and_pytorch_are_the_same(demo_of):
    """And so are streams that run at the same time, one of which is broken off."""
    found = demo_of("pitch").found
    assert found["chunks_to_whole_hz"] < 5e-3
    assert found["served_to_pytorch_hz"] < 5e-3
    assert found["together_to_alone_hz"] < 5e-3
    assert found["streams"] >= 4


def test_the_track_is_drawn(demo_of):
    """As a picture that stands alone, with what was played and what was found."""
    demo = demo_of("pitch")
    picture = (demo.folder / demo.found["paths"]["melody"]).read_text()
    assert picture.startswith("<svg")
    assert picture.count('stroke-width="9"') == picture.count('stroke-width="2"') == 1


def test_single_hops_give_the_track_of_one_piece(stream, hops):
    """The smallest chunks there are, and uneven ones."""
    whole = track(stream, hops, len(hops))
    assert apart(track(stream, hops, 1), whole) < 5e-3
    assert apart(track(stream, hops, 7, 1, 30, 2), whole) < 5e-3


def test_the_beginning_is_as_after_silence(stream, hops):
    """The first answers are those of a stream in which silence went before."""
    silence = np.zeros((6, HOP), np.float32)
    later = track(stream, np.concatenate([silence, hops]), 6)
    assert apart(tuple(each[6:] for each in later), track(stream, hops, 6)) < 5e-3


def test_streams_that_run_together_keep_their_states_apart(stream, recipe):
    """Each gets the answers that it gets alone, also beside streams that stop without a word."""
    melodies = [recipe.melody(seed=seed, notes=3)[0].reshape(-1, HOP)[:60] for seed in range(20, 25)]

    def leave(hops):
        with stream.sequence(end_on_exit=False) as sequence:
            sequence(audio=hops[None, :4])

    with ThreadPoolExecutor(6) as threads:
        gone = [threads.submit(leave, hops) for hops in melodies]
        together = list(threads.map(lambda hops: track(stream, hops, 4), melodies))
        for each in gone:
            each.result()
    assert [
        each for each, hops in zip(together, melodies, strict=True) if apart(each, track(stream, hops, 4)) > 5e-3
    ] == []


def test_silence_is_no_note_and_no_nan(stream):
    """Digital silence, and sound far below what is audible."""
    for level in (0.0, 1e-7):
        pitch, confidence = track(stream, np.full((20, HOP), level, np.float32), 20)
        assert np.isfinite(pitch).all()
        assert (confidence < 0.5).all()


def test_nan_spoils_the_frames_that_contain_it_and_no_others(stream, hops):
    """Seven frames see a sample; the stream then goes on as if nothing had been, and so do others."""
    spoilt = hops.copy()
    spoilt[20, 100] = np.nan
    pitch, confidence = track(stream, spoilt, 5)
    clean = track(stream, hops, 5)
    wrong = np.arange(20, 27)
    assert not np.isfinite(confidence[wrong]).any()
    kept = np.delete(np.arange(len(hops)), wrong)
    assert apart((pitch[kept], confidence[kept]), (clean[0][kept], clean[1][kept])) < 5e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 100), (1, 2, 159), (1, 0)])
def test_sound_that_is_not_in_hops_is_refused(stream, shape):
    """Before it is sent; the message has the shape that is expected."""
    with pytest.raises(InvalidInput, match=r"shape \[\?, \?, 160\], found"), stream.sequence() as sequence:
        sequence(audio=np.zeros(shape, np.float32))


def test_no_hops_give_no_answers_and_leave_the_stream_as_it_is(stream, hops):
    """A chunk of nothing is a chunk."""
    with stream.sequence() as sequence:
        first = sequence(audio=hops[None, :30])
        nothing = sequence(audio=hops[None, :0])
        rest = sequence.infer({"audio": hops[None, 30:]}, end=True)
    assert nothing["pitch"].shape == (1, 0)
    found = tuple(np.concatenate([first[name][0], rest[name][0]]) for name in ("pitch", "confidence"))
    assert apart(found, track(stream, hops, len(hops))) < 5e-3


def test_a_chunk_that_would_take_all_memory_is_refused_and_the_stream_goes_on(stream, recipe, hops):
    """Ten minutes in one piece; nothing is computed, and the state is that of before."""
    with stream.sequence() as sequence:
        first = sequence(audio=hops[None, :30])
        with pytest.raises(InferenceFailed, match=rf"{recipe.MAX_HOPS - 1}\]"):
            sequence(audio=np.zeros((1, 60_000, HOP), np.float32))
        rest = sequence.infer({"audio": hops[None, 30:]}, end=True)
    found = tuple(np.concatenate([first[name][0], rest[name][0]]) for name in ("pitch", "confidence"))
    assert apart(found, track(stream, hops, len(hops))) < 5e-3


def test_a_request_outside_a_sequence_is_refused(stream, hops):
    """With words that say what is missing."""
    with pytest.raises(InvalidInput, match=r"correlation ID|sequence"):
        stream(audio=hops[None, :5])


def test_the_golden_pairs_hold_on_the_server(demo_of, stream):
    """First steps of sequences, replayed."""
    checks = Repository(demo_of("pitch").repository).verify_served("pitch_stream", stream._client)
    assert checks
    assert all(each.ok for each in checks)


def write_wav(path: Path, samples: np.ndarray, rate_hz: int, *, width: int = 2, channels: int = 1) -> Path:
    scaled = np.round(samples * (2 ** (8 * width - 1) - 1)).astype(np.int64) + (128 if width == 1 else 0)
    raw = scaled.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate_hz, 0, "NONE", ""))
        file.writeframes(np.repeat(raw, channels, axis=0).tobytes())
    return path


@pytest.mark.parametrize(
    ("rate_hz", "width", "channels"), [(16_000, 2, 1), (44_100, 2, 2), (8_000, 1, 1), (48_000, 3, 2)]
)
def test_a_wav_file_of_any_kind_is_read(stream, tmp_path, rate_hz, width, channels):
    """A tone keeps its pitch through rates, widths and channels."""
    time = np.arange(rate_hz) / rate_hz
    path = write_wav(
        tmp_path / "a tone.wav", 0.5 * np.sin(2 * np.pi * 440 * time), rate_hz, width=width, channels=channels
    )
    sound = read_wav(path, RATE_HZ)
    assert len(sound) == RATE_HZ
    pitch, confidence = track(stream, sound.reshape(-1, HOP), 50)
    assert (confidence[10:] > 0.5).all()
    assert np.abs(1200 * np.log2(pitch[10:] / 440)).max() < 20


@pytest.mark.parametrize("what", ["missing", "folder", "text", "empty", "short", "cut off", "floats"])
def test_a_file_that_is_no_sound_is_refused_in_words(tmp_path, what):
    """The message has the file, what was expected and what was found."""
    path = tmp_path / "sound.wav"
    if what == "folder":
        path.mkdir()
    elif what in ("text", "empty"):
        path.write_bytes(b"hello, I am no sound" if what == "text" else b"")
    elif what == "floats":
        write_wav(path, np.zeros(16_000), RATE_HZ, width=4)
        whole = bytearray(path.read_bytes())
        whole[20:22] = struct.pack("<H", 3)
        path.write_bytes(whole)
    elif what != "missing":
        write_wav(path, np.zeros(100 if what == "short" else 16_000), RATE_HZ)
        if what == "cut off":
            path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(UnreadableSound, match=rf"{path.name}: expected .* found"):
        read_wav(path, RATE_HZ)


def test_a_wav_file_that_is_no_sound_stops_the_demo_before_it_begins(tmp_path):
    """Exit code 2, and nothing was published."""
    from typer.testing import CliRunner

    from naiad.cli.app import app

    (tmp_path / "notes.wav").write_text("la la la")
    repository = tmp_path / "models"
    given = ["demo", "pitch", "-r", str(repository), "--report", str(tmp_path / "r"), "-o"]
    done = CliRunner().invoke(app, [*given, f"audio={tmp_path / 'notes.wav'}"])
    assert done.exit_code == 2
    assert "expected a WAV file" in " ".join(done.output.split())
    assert not (repository / "pitch_stream").exists()
    shutil.rmtree(repository, ignore_errors=True)

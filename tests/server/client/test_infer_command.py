"""`naiad infer` on the real Triton."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest


def infer(*arguments: object, url: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "naiad.cli", "infer", *map(str, arguments), *(["--url", url] if url else [])]
    wide = {**os.environ, "COLUMNS": "400"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=wide)


def test_an_answer_is_printed(url):
    """Name, version, type, shape and values, for people."""
    done = infer("scale", "--input", "x=[[1, 2, 3]]", url=url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["scale/2", "y float32 [1, 3]", "[[3. 6. 9.]]"]


def test_an_answer_is_printed_for_programs(url):
    """One JSON document, strings and bfloat16 included."""
    done = infer("words", "-i", 'in_STRING=[["a", "häß"]]', "--json", url=url)
    assert json.loads(done.stdout) == {"in_STRING_out": [["a", "häß"]]}


def test_arrays_come_from_and_go_to_files(url, tmp_path):
    """A .npy in, an .npz out."""
    np.save(tmp_path / "my x.npy", np.ones((2, 3), np.float32))
    saved = tmp_path / "out.npz"
    done = infer("scale", "-i", f"x=@{tmp_path / 'my x.npy'}", "--version", 1, "--save", saved, url=url)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(saved)["y"], np.full((2, 3), 2, np.float32))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope", "-i", "x=[[1]]"], 1, "unknown model: 'nope'"),
        (["scale", "-i", "x=[[1, 2, 3]]", "--version", "9"], 1, "version 9"),
        (["scale", "-i", "x=[[1, 2, 3]]", "--version", "newest"], 2, "a version is a whole number"),
        (["scale", "-i", "z=[[1, 2, 3]]"], 2, "no input 'z'; its inputs are: x FP32 [?, 3]"),
        (["scale", "-i", "x=[[1, 2]]"], 2, "has the shape [?, 3], found [1, 2]"),
        (["scale", "-i", 'x=[["a", "b", "c"]]'], 2, "expected an array of FP32"),
        (["scale", "-i", "x"], 2, "expected NAME=VALUE"),
        (["scale", "-i", "x=@missing.npy"], 2, "expected a .npy file at missing.npy"),
        (["scale", "-i", "x=[[1, 2, 3]]", "--timeout", "-1"], 2, "number of seconds above 0"),
        (["scale"], 2, "Missing option '--input'"),
    ],
)
def test_wrong_use_is_one_message_and_an_exit_code(url, arguments, code, message):
    """No traceback; 2 where the user must change something, 1 where the server said no."""
    done = infer(*arguments, url=url)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_server_that_is_not_there_is_one_message():
    """The message says what to start."""
    done = infer("scale", "-i", "x=[[1, 2, 3]]", "--timeout", "5", url="grpc://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Triton server answers at grpc://127.0.0.1:9 (Connection refused)")
    assert len(done.stderr.splitlines()) == 1


def test_saving_where_nothing_can_be_written_is_refused(url, tmp_path):
    """One message, and no half-written file."""
    done = infer("scale", "-i", "x=[[1, 2, 3]]", "--save", tmp_path / "no folder" / "out.npz", url=url)
    assert done.returncode == 2
    assert "no folder" in done.stderr
    assert "Traceback" not in done.stderr

"""`naiad infer` on the real Triton."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import client_models


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


def test_inputs_come_from_json_and_other_files(url, tmp_path):
    """JSON is read; any other file is one string, of as many dimensions as the model wants."""
    (tmp_path / "x.json").write_text("[[1, 2, 3], [4, 5, 6]]")
    (tmp_path / "page.html").write_text("<p>häß</p>")
    done = infer("scale", "-i", f"x=@{tmp_path / 'x.json'}", "--version", 1, "--json", url=url)
    assert json.loads(done.stdout) == {"y": [[2, 4, 6], [8, 10, 12]]}
    saved = tmp_path / "out.npz"
    done = infer("words", "-i", f"in_STRING=@{tmp_path / 'page.html'}", "--save", saved, url=url)
    assert done.stdout == f"1 output of words/1 → {saved}\n", done.stderr
    np.testing.assert_array_equal(np.load(saved)["in_STRING_out"], [["<p>häß</p>".encode()]])


def test_text_is_a_string_where_the_model_takes_strings(url):
    """Without quotes and brackets."""
    done = infer("words", "-i", "in_STRING=two words", "--json", url=url)
    assert json.loads(done.stdout) == {"in_STRING_out": [["two words"]]}


def test_only_some_outputs_are_asked_for(url):
    """By name."""
    done = infer("maybe", "-i", "a=[1, 2]", "-o", "difference", "--json", url=url)
    assert json.loads(done.stdout) == {"difference": [0.5, 1.5]}


def test_narrow_floats_become_what_others_can_read(url, tmp_path):
    """bfloat16 is a number in JSON, and float32 in a file."""
    inputs = [
        part for name in client_models.NUMBERS for part in ("-i", f"in_{name}=[[{'true' if name == 'BOOL' else 1}]]")
    ]
    done = infer("echo", *inputs, "-o", "in_BF16_out", "--json", url=url)
    assert json.loads(done.stdout) == {"in_BF16_out": [[1.0]]}, done.stderr
    done = infer("echo", *inputs, "--save", tmp_path / "out.npz", url=url)
    assert done.returncode == 0, done.stderr
    stored = np.load(tmp_path / "out.npz")
    assert len(stored) == len(client_models.NUMBERS)
    assert stored["in_BF16_out"].dtype == np.float32


def test_it_says_where_the_time_went(url):
    """On stderr, so that the answer can be read by programs all the same."""
    done = infer("scale", "-i", "x=[[1, 2, 3]]", "--json", "--timing", url=url)
    assert json.loads(done.stdout) == {"y": [[3, 6, 9]]}
    assert re.match(r"\d+\.\d\d ms: \d+\.\d\d in network and server, \d+\.\d\d encoding", done.stderr)


def test_strings_that_a_file_cannot_hold_are_refused(url, tmp_path):
    """NumPy would drop the zero bytes at their end."""
    (tmp_path / "zero").write_bytes(b"a\0")
    done = infer("words", "-i", f"in_STRING=@{tmp_path / 'zero'}", "--save", tmp_path / "out.npz", url=url)
    assert done.returncode == 2
    assert "end with a zero byte" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zero"]


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
        (["scale"], 2, "expects the input x FP32 [?, 3]; found none"),
        (["scale", "-i", "x=[[1, 2, 3]]", "-o", "z"], 2, "no output 'z'; its outputs are: y FP32 [?, 3]"),
        (["scale", "-i", "x=@missing.json"], 2, "expected a .json file at missing.json"),
        (["scale", "-i", "x=@missing"], 2, "expected a file at missing"),
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

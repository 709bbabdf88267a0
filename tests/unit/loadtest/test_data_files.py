"""Samples from files of arrays and text, and from directories."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from loadtest_data_helpers import samples_of, save, signature, values, write_lines
from naiad.loadtest import InvalidData
from naiad.loadtest.plan import Files, Sequence

PAIR = signature("x FP32 [-1, 2]", outputs=("y FP32 [-1, 1]",))
ROWS = np.arange(10, dtype=np.float32).reshape(5, 2)


@pytest.mark.parametrize(
    ("array", "count"),
    [(ROWS, 5), (ROWS[0], 1), (ROWS.astype(np.float64), 5), (ROWS.astype(">f4"), 5), (ROWS.astype(np.int8), 5)],
)
def test_an_array_is_one_row_or_many_and_of_any_type_that_holds_its_values(tmp_path, array, count):
    """A batch dimension is added where it lacks, the model's type is taken on."""
    found = samples_of(save(tmp_path / "x.npy", array), PAIR)
    assert values(found) == [[row] for row in ROWS[:count].tolist()]
    assert {sample.inputs["x"].dtype for sample in found.samples} == {np.dtype(np.float32)}


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_rows_are_put_together_to_the_batch_and_go_round(tmp_path, batch):
    """The last request goes on with the first rows; every row is sent."""
    found = samples_of(save(tmp_path / "x.npy", ROWS), PAIR, batch=batch)
    sent = [row for request in values(found) for row in request]
    assert {len(request) for request in values(found)} == {batch}
    assert sent == [ROWS[index % 5].tolist() for index in range(len(sent))]
    assert len(sent) >= 5


def test_a_model_without_batching_gets_one_row_for_each_request(tmp_path):
    """An array with one dimension more than the model's is many samples."""
    model = signature("x FP32 [2]", max_batch_size=0)
    assert values(samples_of(save(tmp_path / "x.npy", ROWS), model)) == ROWS.tolist()
    assert values(samples_of(save(tmp_path / "x.npy", ROWS[0]), model)) == [ROWS[0].tolist()]


def test_numbers_are_rows_of_one_element(tmp_path):
    """A vector for an input of one value is as many rows."""
    found = samples_of(save(tmp_path / "x.npy", np.arange(3)), signature("x INT64 [-1, 1]"))
    assert values(found) == [[[0]], [[1]], [[2]]]


def test_rows_of_different_shapes_are_never_joined(tmp_path):
    """A request holds rows of one shape only; each shape has requests of its own."""
    for index, size in enumerate((3, 4, 3)):
        save(tmp_path / f"{index}.npy", np.full(size, index, np.float32))
    found = samples_of(tmp_path, signature("x FP32 [-1, -1]"), batch=2)
    assert sorted(sample.inputs["x"].shape for sample in found.samples) == [(2, 3), (2, 4)]
    assert sorted(map(str, values(found))) == [str([[0.0] * 3, [2.0] * 3]), str([[1.0] * 4] * 2)]


def test_an_archive_has_inputs_by_name_and_what_to_expect(tmp_path):
    """``output/<name>`` is the expected output of the same rows."""
    path = save(tmp_path / "data.npz", **{"x": ROWS, "output/y": ROWS[:, :1] * 2})
    found = samples_of(path, PAIR, batch=2)
    assert all(np.array_equal(sample.outputs["y"], sample.inputs["x"][:, :1] * 2) for sample in found.samples)


def test_an_archive_may_be_golden(tmp_path):
    """A version's ``golden.npz`` is taken as it is; outputs that the model does not give are left out."""
    arrays = {"input/0/x": ROWS[:2], "output/0/y": ROWS[:2, :1], "output/0/z": ROWS[:2], "input/1/x": ROWS[2:]}
    arrays["output/1/y"] = ROWS[2:, :1]
    found = samples_of(save(tmp_path / "golden.npz", **arrays), PAIR)
    assert values(found) == [[row] for row in ROWS.tolist()]
    assert all(set(sample.outputs) == {"y"} for sample in found.samples)


def test_strings_and_bfloat16_of_an_archive_are_taken_as_the_model_has_them(tmp_path):
    """Strings are stored as fixed-width arrays, and bfloat16 as elements of two bytes."""
    bits = np.array([[1.5], [-2.0]], ml_dtypes.bfloat16)
    path = save(tmp_path / "a.npz", s=np.array([["né"], ["b"]]), b=bits)
    found = samples_of(path, signature("s BYTES [-1, 1]", "b BF16 [-1, 1]"))
    assert values(found, "s") == [[["né".encode()]], [[b"b"]]]
    assert [sample.inputs["b"][0, 0] for sample in found.samples] == [1.5, -2.0]


def test_an_array_for_each_input_lies_in_files_of_their_names(tmp_path):
    """Rows of several ``.npy`` go together where the files have the names of the inputs."""
    save(tmp_path / "a.npy", ROWS)
    save(tmp_path / "b.npy", np.arange(5))
    found = samples_of(tmp_path, signature("a FP32 [-1, 2]", "b INT64 [-1, 1]"))
    assert values(found, "a") == [[row] for row in ROWS.tolist()]
    assert values(found, "b") == [[[index]] for index in range(5)]


def test_the_input_can_be_named_where_the_others_are_optional(tmp_path):
    """Files without names in them are for the input that was said."""
    model = signature("a FP32 [-1, 2]", "b FP32 [-1, 2]", optional=frozenset({"a", "b"}))
    found = samples_of(Files(path=save(tmp_path / "any.npy", ROWS), input="b"), model)
    assert {tuple(sample.inputs) for sample in found.samples} == {("b",)}


def test_each_line_of_text_is_a_string(tmp_path):
    """UTF-8 as it is, without the line's end; also where a row may hold any number of strings."""
    path = write_lines(tmp_path / "prompts.txt", "Grüße", "", "two words")
    wanted = [[["Grüße".encode()]], [[b""]], [[b"two words"]]]
    assert values(samples_of(path, signature("x BYTES [-1, 1]"))) == wanted
    assert values(samples_of(path, signature("x BYTES [-1, -1]"))) == wanted
    assert values(samples_of(path, signature("x BYTES [-1]", max_batch_size=0))) == [row[0] for row in wanted]


def test_the_rows_of_a_file_are_the_steps_of_a_sequence(tmp_path):
    """In order, each file a sequence of its own length."""
    save(tmp_path / "b.npy", ROWS[3:])
    save(tmp_path / "a.npy", ROWS[:3])
    found = samples_of(tmp_path, PAIR, sequence=Sequence())
    assert [[values(found)[index][0] for index in steps] for steps in found.steps] == [
        ROWS[:3].tolist(),
        ROWS[3:].tolist(),
    ]


def test_files_are_found_in_folders_and_others_are_left_out(tmp_path):
    """The kind that there is most of is sent, and what is not is noted; hidden files do not count."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    save(tmp_path / "a" / "b" / "2.npy", ROWS[1])
    save(tmp_path / "a" / "1.npy", ROWS[0])
    (tmp_path / "labels.txt").write_text("cat\n")
    (tmp_path / "README.md").write_text("#")
    (tmp_path / ".hidden.npy").write_text("nothing")
    found = samples_of(tmp_path, PAIR)
    assert values(found) == [[ROWS[0].tolist()], [ROWS[1].tolist()]]
    assert found.notes == ["files of other kinds are left out: 2 (.md, .txt)"]


@pytest.fixture
def small(monkeypatch):
    """As if all requests could have 80 bytes only."""
    for module in ("files", "samples"):
        monkeypatch.setattr(f"naiad.loadtest._data.{module}.MAX_BYTES", 80)


@pytest.mark.usefixtures("small")
def test_more_than_fits_is_picked_evenly_from_one_file(tmp_path):
    """80 bytes are ten rows of two floats; the report says how many are used."""
    rows = np.arange(200, dtype=np.float32).reshape(100, 2)
    found = samples_of(save(tmp_path / "x.npy", rows), PAIR)
    assert values(found) == [[row] for row in rows[::10].tolist()]
    assert found.notes[0].startswith("10 of 100 rows are sent, evenly picked")


@pytest.mark.usefixtures("small")
def test_more_than_fits_is_picked_evenly_from_many_files(tmp_path):
    """Files that are not needed are not read: the broken ones between do not matter."""
    for index in range(40):
        path = tmp_path / f"{index:02}.npy"
        save(path, ROWS[0] + index) if index % 4 == 0 else path.write_bytes(b"broken")
    found = samples_of(tmp_path, PAIR)
    assert [row[0][0] for row in values(found)] == [float(index) for index in range(0, 40, 4)]
    assert found.notes[0].startswith("10 of 40 files are sent, evenly picked")


@pytest.mark.usefixtures("small")
def test_too_many_sequences_are_picked_whole(tmp_path):
    """A sequence of 5 steps has 40 bytes: two of the six are sent."""
    for index in range(6):
        save(tmp_path / f"{index}.npy", ROWS + 10 * index)
    found = samples_of(tmp_path, PAIR, sequence=Sequence())
    assert [[values(found)[at][0][0] for at in steps] for steps in found.steps] == [
        ROWS[:, 0].tolist(),
        (ROWS[:, 0] + 30).tolist(),
    ]
    assert "2 of 6 files" in found.notes[0]


@pytest.mark.usefixtures("small")
def test_a_sequence_that_is_too_long_is_sent_from_its_start(tmp_path):
    """State builds up from the first step."""
    rows = np.arange(200, dtype=np.float32).reshape(100, 2)
    found = samples_of(save(tmp_path / "x.npy", rows), PAIR, sequence=Sequence())
    assert values(found) == [[row] for row in rows[:10].tolist()]
    assert found.steps == [tuple(range(10))]
    assert "the first 10 of 100 steps" in found.notes[0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 3), np.float32), r"x.npy: expected the shape \[2\] for one row of x FP32.*found \[5, 3\]"),
        (np.zeros((0, 2), np.float32), r"x.npy: expected"),
        (np.array([[1e300, 0]]), r"x.npy: x FP32 \[\?, 2\]: .*1e\+300 is no value of float32"),
        (np.array([["a", "b"]]), "x.npy: .*the values are <U1"),
        (np.array([["a", 1]], object), "x.npy: expected an array saved by NumPy"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(tmp_path, array, message):
    """The message names the file, what was expected and what was found."""
    with pytest.raises(InvalidData, match=message) as caught:
        samples_of(save(tmp_path / "x.npy", array), PAIR)
    assert caught.value.path == str(tmp_path / "x.npy")


def test_fractions_are_no_whole_numbers(tmp_path):
    """Values that the model's type does not hold are never rounded in silence."""
    with pytest.raises(InvalidData, match=r"1\.5 is no value of int64"):
        samples_of(save(tmp_path / "x.npy", np.array([[1.5, 2]])), signature("x INT64 [-1, 2]"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": ROWS}, r"with the names of the inputs x FP32 \[\?, 2\].*found z"),
        ({"x": ROWS, "output/z": ROWS}, "found x, output/z"),
        ({"x": ROWS, "output/y": ROWS[:3, :1]}, "as many rows of every tensor, found x 5, output y 3"),
        ({}, "found none"),
        ({"output/y": ROWS[:, :1]}, "found output/y"),
    ],
)
def test_an_archive_that_does_not_fit_is_refused(tmp_path, arrays, message):
    """Unknown names and different numbers of rows are named."""
    with pytest.raises(InvalidData, match=message):
        samples_of(save(tmp_path / "x.npz", **arrays), PAIR)


@pytest.mark.parametrize(
    ("name", "content", "model", "message"),
    [
        ("x.npy", b"", PAIR, "x.npy: expected an array saved by NumPy"),
        ("x.npy", b"\x93NUMPY\x01\x00", PAIR, "x.npy: expected an array saved by NumPy"),
        ("x.npz", b"PK nothing", PAIR, "x.npz, could not read it"),
        ("x.txt", b"hello\n", PAIR, r"expected an input of strings \(BYTES\) for lines of text, found x FP32"),
        ("x.txt", b"", signature("x BYTES [-1, 1]"), "expected at least one row, found none"),
        ("x.txt", b"a\n", signature("x BYTES [-1, 2]"), "expected an input of one string for lines of text"),
        ("x.csv", b"1,2\n", PAIR, "expected a file of samples .*found .*x.csv"),
        ("x.npy", b"", signature("a FP32 [-1, 2]", "b FP32 [-1, 2]"), "say which input this is for"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, name, content, model, message):
    """Broken, empty, of an unknown kind, or without the names that are needed."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidData, match=message):
        samples_of(tmp_path / name, model)


def test_an_unknown_input_is_refused(tmp_path):
    """The message says what the model takes."""
    with pytest.raises(InvalidData, match=r"model 'm' has no input 'z'; it takes x FP32 \[\?, 2\]"):
        samples_of(Files(path=save(tmp_path / "x.npy", ROWS), input="z"), PAIR)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "found none"),
        (("a.md", "b.csv"), r"found .csv, .md"),
        (("a.npy", "b.npz"), "expected files of one kind in .*, found 1 of .npy and 1 of .npz"),
    ],
)
def test_a_directory_without_one_kind_of_samples_is_refused(tmp_path, names, message):
    """The message says what lies there."""
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InvalidData, match=message):
        samples_of(tmp_path, PAIR)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    """Nothing is asked of the server for it."""
    with pytest.raises(InvalidData, match=r"expected a file or a directory at .*nowhere, found nothing"):
        samples_of(tmp_path / "nowhere", PAIR)

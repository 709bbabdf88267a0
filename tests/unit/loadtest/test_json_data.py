"""Samples from JSON lines and JSON documents."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadtest_data_helpers import samples_of, signature, values, write_lines
from naiad.loadtest import InvalidData
from naiad.loadtest.plan import Sequence

MODEL = signature("x FP32 [-1, 2]", "s BYTES [-1, 1]", outputs=("y FP32 [-1, 1]", "t BYTES [-1, 1]"))
ONE = signature("x FP32 [-1, 2]", outputs=("y FP32 [-1, 1]",))
KSERVE = {
    "inputs": [
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
        {"name": "s", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]},
    ],
    "outputs": [{"name": "y", "shape": [1, 1], "datatype": "FP32", "data": [3]}],
}


@pytest.fixture
def lines(tmp_path):
    def write(*items):
        return write_lines(tmp_path / "data.jsonl", *items)

    return write


@pytest.fixture
def document(tmp_path):
    def write(item):
        path = tmp_path / "data.json"
        path.write_text(item if isinstance(item, str) else json.dumps(item))
        return path

    return write


def base64_of(content):
    return base64.b64encode(content).decode()


def test_each_line_is_a_row_with_the_inputs_by_name(lines):
    """Nested lists and strings, with or without the dimension of the batch; empty lines do not count."""
    found = samples_of(lines({"x": [1, 2], "s": "né"}, "", {"x": [[3, 4]], "s": [["b"]]}), MODEL)
    assert values(found) == [[[1, 2]], [[3, 4]]]
    assert values(found, "s") == [[["né".encode()]], [[b"b"]]]


def test_a_line_may_hold_many_rows(lines):
    """They are joined with those of the other lines."""
    found = samples_of(lines({"x": [[1, 2], [3, 4]]}, {"x": [5, 6]}), ONE, batch=3)
    assert values(found) == [[[1, 2], [3, 4], [5, 6]]]


def test_inputs_and_outputs_may_stand_beside_each_other(lines):
    """What to expect is checked like the inputs."""
    item = {"inputs": {"x": [1, 2], "s": "a"}, "outputs": {"y": [3], "t": "b"}}
    sample = samples_of(lines(item), MODEL).samples[0]
    assert (sample.outputs["y"].tolist(), sample.outputs["t"].tolist()) == ([[3.0]], [[b"b"]])
    assert sample.outputs["y"].dtype == np.float32


def test_a_request_as_kserve_writes_it_is_a_row(lines):
    """Flat data with shape and type; an output without data is only a wish."""
    wish = {**KSERVE, "outputs": [{"name": "y"}]}
    found = samples_of(lines(KSERVE, wish), MODEL)
    assert values(found) == [[[1, 2]], [[1, 2]]]
    assert found.samples[0].outputs["y"].tolist() == [[3.0]]
    assert values(found, "s") == [[[b"a"]], [[b"a"]]]


def test_a_value_alone_is_for_the_models_one_input(lines):
    """A line may be a list or a string."""
    assert values(samples_of(lines("[1, 2]", "[3, 4]"), ONE)) == [[[1, 2]], [[3, 4]]]
    assert values(samples_of(lines('"hello"'), signature("x BYTES [-1, 1]"))) == [[[b"hello"]]]


def test_a_model_whose_input_is_called_inputs_gets_it(lines):
    """The name of an input goes before the form of a request."""
    assert values(samples_of(lines({"inputs": [1, 2]}), signature("inputs FP32 [-1, 2]")), "inputs") == [[[1, 2]]]


def test_the_lines_of_a_file_are_the_steps_of_a_sequence(lines):
    """In their order."""
    found = samples_of(lines({"x": [1, 2]}, {"x": [3, 4]}), ONE, sequence=Sequence())
    assert found.steps == [(0, 1)]
    assert values(found) == [[[1, 2]], [[3, 4]]]


def test_more_lines_than_are_sent_are_picked_evenly(lines, monkeypatch):
    """Those between are not even parsed."""
    monkeypatch.setattr("naiad.loadtest._data.files.MAX_BYTES", 16)
    found = samples_of(lines({"x": [0, 0]}, "broken", {"x": [2, 2]}, "broken"), ONE)
    assert values(found) == [[[0, 0]], [[2, 2]]]
    assert found.notes[0].startswith("2 of 4 rows are sent, evenly picked")


def test_a_document_may_be_a_list_of_rows_or_one(document):
    """As the lines of a file."""
    assert values(samples_of(document([{"x": [1, 2]}, {"x": [3, 4]}]), ONE)) == [[[1, 2]], [[3, 4]]]
    assert values(samples_of(document({"x": [1, 2]}), ONE)) == [[[1, 2]]]
    assert values(samples_of(document([[1, 2], [3, 4]]), ONE)) == [[[1, 2]], [[3, 4]]]
    assert values(samples_of(document(KSERVE), MODEL)) == [[[1, 2]]]


def test_perf_analyzers_documents_are_understood(document):
    """Flat lists, content with a shape, base64, and validation data."""
    raw = np.array([5, 6], np.float32).tobytes()
    data = [
        {"x": [1, 2], "s": ["a"]},
        {"x": {"content": [3, 4], "shape": [2]}, "s": {"content": ["b"]}},
        {"x": {"b64": base64_of(raw)}, "s": {"b64": base64_of(b"\1\0\0\0c")}, "model": "m"},
        {"x": {"content": {"b64": base64_of(raw)}, "shape": [2]}, "s": {"b64": base64_of(b"image")}},
    ]
    expected = [{"y": [10 * index]} for index in range(4)]
    found = samples_of(document({"data": data, "validation_data": expected}), MODEL)
    by_row = sorted(
        (sample.outputs["y"][0, 0], sample.inputs["x"][0].tolist(), sample.inputs["s"][0, 0])
        for sample in found.samples
    )
    assert by_row == [(0, [1, 2], b"a"), (10, [3, 4], b"b"), (20, [5, 6], b"c"), (30, [5, 6], b"image")]


def test_more_of_a_document_than_is_sent_is_picked_evenly(document, monkeypatch):
    """As from the lines of a file, whichever form it has."""
    monkeypatch.setattr("naiad.loadtest._data.files.MAX_BYTES", 16)
    rows = [{"x": [index, 0]} for index in range(6)]
    for item in (rows, {"data": rows}):
        found = samples_of(document(item), ONE)
        assert values(found) == [[[0, 0]], [[3, 0]]]
        assert found.notes[0].startswith("2 of 6 rows are sent, evenly picked")


def test_perf_analyzers_flat_lists_take_the_models_shape(document):
    """Row-major, as there."""
    found = samples_of(document({"data": [{"x": [1, 2, 3, 4]}]}), signature("x FP32 [-1, 2, 2]"))
    assert values(found) == [[[[1, 2], [3, 4]]]]


def test_perf_analyzers_lists_of_steps_are_sequences(document):
    """Each of them is one, of its own length."""
    path = document({"data": [[{"x": [1, 1]}, {"x": [2, 2]}], [{"x": [3, 3]}]]})
    assert samples_of(path, ONE, sequence=Sequence()).steps == [(0, 1), (2,)]
    assert values(samples_of(path, ONE)) == [[[1, 1]], [[2, 2]], [[3, 3]]]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (['{"x": [1, 2]}', '{"x": [1, 2}'], r"data.jsonl, line 2: expected JSON, could not read it"),
        ([{"x": [1, 2]}, {"z": 1}], r"line 2: expected the inputs x FP32 \[\?, 2\], found z"),
        ([{"x": [1, 2]}, {}], r"line 2: expected the inputs x FP32 .*found none"),
        ([{"x": [1, 2, 3]}], r"line 1: expected the shape \[2\] for one row of x FP32.*found \[3\]"),
        ([{"x": [[1, 2], [3]]}], r"line 1: x FP32 \[\?, 2\]: expected values of FP32"),
        ([{"x": ["a", "b"]}], r"line 1: x FP32 \[\?, 2\]: .*the values are"),
        ([{"x": [1, None]}], r"line 1: x FP32 \[\?, 2\]"),
        ([{"x": [1e999, 1]}], None),
        ([{"inputs": {"x": [1, 2]}, "outputs": {"z": 1}}], r"expected outputs among y FP32 \[\?, 1\], found z"),
        ([{"inputs": {"x": [1, 2]}, "outputs": [1]}], r"expected an object with the outputs by name, found a list"),
        (
            [{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]}]}],
            r"line 1: expected x FP32 \[\?, 2\], found the datatype INT64",
        ),
        (
            [{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2]}]}],
            r"expected 2 elements in the shape, found \[1, 3\]",
        ),
        ([{"x": {"b64": "*"}}], "expected base64 text"),
        ([{"x": {"b64": base64_of(b"abc")}}], "expected whole elements of 4 bytes, found 3"),
        ([], "expected a JSON object on each line, found none"),
    ],
)
def test_a_line_that_does_not_fit_is_refused_by_its_number(lines, items, message):
    """File, line, what was expected and what was found."""
    if message is None:  # infinity is a float
        assert np.isinf(values(samples_of(lines(*items), ONE))[0][0][0])
        return
    with pytest.raises(InvalidData, match=message):
        samples_of(lines(*items), ONE)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("{", "data.json: expected JSON"),
        ({"data": [{"x": [1, 2]}, [{"x": [1, 2]}]]}, "objects or lists of them .* in data, found both"),
        ({"data": [{"x": [1, 2]}, {"x": [1]}]}, r"data.json, data\[1\]: expected the shape \[2\]"),
        ({"data": [[{"x": [1, 2]}, {"x": [1]}]]}, r"data.json, data\[0\]\[1\]: expected the shape"),
        ({"data": [7]}, r"data\[0\]: expected an object with the inputs by name, found int"),
        ([{"x": [1, 2]}, {"x": [1]}], r"data.json, \[1\]: expected the shape"),
        ("[" * 100_000, "data.json: expected JSON"),
    ],
)
def test_a_document_that_does_not_fit_is_refused_by_its_place(document, item, message):
    """The message says where in the document."""
    with pytest.raises(InvalidData, match=message):
        samples_of(document(item), ONE)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.floats()
    | st.sampled_from(["x", "y", "FP32", "BYTES", "AAAAAAAA", "é"])
)
NAMES = ["x", "y", "data", "inputs", "outputs", "name", "shape", "datatype", "content", "b64", "validation_data"]
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DOCUMENTS, st.booleans(), st.sampled_from(["FP32", "INT64", "BOOL", "BYTES"]))
def test_whatever_a_file_holds_is_sent_or_refused(tmp_path, item, steps, datatype):
    """No other error comes through, and no sequence is empty."""
    model = signature(f"x {datatype} [-1, 2]", outputs=("y FP32 [-1, 1]",))
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text(json.dumps(item))
        with suppress(InvalidData):
            found = samples_of(tmp_path / name, model, sequence=Sequence() if steps else None)
            assert found.samples
            assert all(found.steps)
            assert bool(found.steps) is steps


@pytest.mark.parametrize(
    "document_of",
    [
        lambda row: {"data": [row], "validation_data": {"y": 1}},
        lambda row: {"data": [row], "validation_data": 3},
        lambda row: {"data": [[row]], "validation_data": [3]},
        lambda row: {"data": [[]]},
        lambda row: {"inputs": [{"name": "x", "data": [1, 2]}], "outputs": 7},
        lambda row: {"inputs": [{"name": "x", "data": [1, 2]}], "outputs": [7]},
        lambda row: {"inputs": [{"name": "x"}]},
        lambda row: {"inputs": [{"name": ["x"], "data": [1, 2]}]},
        lambda row: {"x": {"content": [1, 2], "shape": "ab"}},
        lambda row: {"x": {"content": [1, 2], "shape": 2}},
        lambda row: {"x": {}},
    ],
)
def test_documents_of_the_wrong_form_are_refused(document, document_of):
    """With the file's name, and not with an error of ours."""
    with pytest.raises(InvalidData, match=r"data.json"):
        samples_of(document(document_of({"x": [1, 2]})), ONE)

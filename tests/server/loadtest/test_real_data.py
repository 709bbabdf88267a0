"""Requests from files, with their suffixes, answered by the real Triton."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2

from loadtest_data_helpers import save, write_lines
from loadtest_data_models import random_rows
from loadtest_helpers import expected
from naiad.client import ModelNotFound
from naiad.loadtest import (
    Connection,
    Files,
    Golden,
    InvalidData,
    LoadTest,
    Sequence,
    Synthetic,
    Traffic,
    Users,
    run,
)
from naiad.loadtest._data.payloads import request_id_suffix, sequence_suffix
from naiad.loadtest._data.target import connect, describe


def all_right(sender, payloads):
    return [payloads.check(index, sender(request)) for index, request in enumerate(payloads.requests)]


def output(answer):
    return service_pb2.ModelInferResponse.FromString(answer)


@pytest.mark.parametrize("batch", [1, 3])
def test_golden_answers_come_back(sender, data_models, batch):
    """Every request is answered as the golden samples say."""
    golden = data_models / "linear" / "1" / "golden.npz"
    for data in (Golden(path=golden), Files(path=golden)):
        with sender.payloads("linear", data=data, check=True, batch=batch) as payloads:
            assert set(all_right(sender, payloads)) == {True}


def test_arrays_and_what_to_expect_come_back(sender, tmp_path):
    """An archive with inputs and outputs; a wrong expectation is found."""
    x = random_rows(5, 8)
    path = save(tmp_path / "a.npz", **{"x": x, "output/y": expected(x)})
    with sender.payloads("linear", data=Files(path=path), check=True, batch=2) as payloads:
        assert all_right(sender, payloads) == [True] * 3
    wrong = expected(x)
    wrong[3] += 1
    path = save(tmp_path / "b.npz", **{"x": x, "output/y": wrong})
    with sender.payloads("linear", data=Files(path=path), check=True) as payloads:
        assert all_right(sender, payloads) == [True, True, True, False, True]


def test_json_lines_come_back(sender, tmp_path):
    """Strings and numbers, each with what to expect."""
    texts = ["plain", "Grüße, 世界", "", "x" * 5000]
    items = [{"inputs": {"text": text}, "outputs": {"text_out": text}} for text in texts]
    path = write_lines(tmp_path / "a.jsonl", *items)
    with sender.payloads("words", data=Files(path=path), check=True, batch=2) as payloads:
        assert all_right(sender, payloads) == [True, True]
    x = random_rows(2, 8)
    rows = [{"inputs": {"x": row.tolist()}, "outputs": {"y": expected(row).tolist()}} for row in x]
    with sender.payloads("linear", data=Files(path=write_lines(tmp_path / "b.jsonl", *rows)), check=True) as payloads:
        assert all_right(sender, payloads) == [True, True]


def test_images_arrive_as_the_model_takes_them(sender, tmp_path):
    """The model gives each value back, plus one."""
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with sender.payloads("picture", data=Files(path=tmp_path)) as payloads:
        answer = output(sender(payloads.requests[0]))
    assert list(answer.outputs[0].shape) == [1, 3, 5, 7]
    found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(3, 5, 7)
    np.testing.assert_allclose(found, pixels.transpose(2, 0, 1) / 255 + 1, rtol=1e-6)


def test_images_of_different_sizes_are_never_in_one_request(sender, tmp_path):
    """Each request is one that the server takes."""
    for index, size in enumerate([(4, 4), (6, 4), (4, 4)]):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{index}.png")
    with sender.payloads("picture", data=Files(path=tmp_path), batch=2) as payloads:
        shapes = [tuple(output(sender(request)).outputs[0].shape) for request in payloads.requests]
    assert sorted(shapes) == [(2, 3, 4, 4), (2, 3, 6, 4)]


def test_synthetic_strings_and_numbers_are_taken(sender):
    """With the shapes, ranges and lengths that were asked for."""
    data = Synthetic(string_lengths={"text": (0, 40)}, num_samples=3)
    with sender.payloads("words", data=data, batch=4) as payloads:
        for request in payloads.requests:
            given = service_pb2.ModelInferRequest.FromString(request)
            assert list(output(sender(request)).raw_output_contents) == list(given.raw_input_contents)


def test_an_id_is_repeated_in_the_answer(sender):
    """The suffix is part of the request."""
    with sender.payloads("linear") as payloads:
        answers = [output(sender(payloads.requests[0], request_id_suffix(name))).id for name in ("a", "request 7")]
    assert answers == ["a", "request 7"]


@pytest.mark.parametrize("sequence_id", [41, 2**63 - 1])
def test_recorded_steps_add_up_in_the_models_state(sender, tmp_path, sequence_id):
    """Two sequences of a document, one after the other, each from its start to its end."""
    document = {
        "data": [[{"x": [1]}, {"x": [2]}, {"x": [3]}], [{"x": [10]}, {"x": [20]}]],
        "validation_data": [[{"total": [1]}, {"total": [3]}, {"total": [6]}], [{"total": [10]}, {"total": [30]}]],
    }
    path = tmp_path / "steps.json"
    path.write_text(json.dumps(document))
    with sender.payloads("totals_direct", data=Files(path=path), check=True, sequence=Sequence()) as payloads:
        for number, steps in enumerate(payloads.steps):
            for at, index in enumerate(steps):
                suffix = sequence_suffix(sequence_id - number, at == 0, at == len(steps) - 1)
                assert payloads.check(index, sender(payloads.requests[index], suffix))
        assert [len(steps) for steps in payloads.steps] == [3, 2]


def test_a_model_is_described_with_what_its_requests_need(sender):
    """Batches, sequences with their controls, instances, the server's version."""
    with connect(sender.connection) as client:
        linear = describe(client, Traffic(model="linear"))
        totals = describe(client, Traffic(model="totals_direct"))
    assert (linear.backend, linear.instances, linear.signature.max_batch_size) == ("onnxruntime", ("1 × CPU",), 16)
    assert linear.server_version.startswith("2.")
    assert (linear.signature.stateful, linear.signature.decoupled) == (False, False)
    assert (totals.signature.stateful, set(totals.signature.inputs)) == (True, {"x"})
    assert totals.signature.controls == {"start", "end", "ready", "corrid"}


@pytest.mark.parametrize("secret", [True, False])
@pytest.mark.parametrize(
    ("traffic", "message"),
    [
        (Traffic(model="liner"), "no model 'liner' is served; these are: linear, "),
        (Traffic(model="pictures"), "these are: picture, "),
        (Traffic(model="linear", version="7"), "version 7 of 'linear' is not served; these are: 1"),
    ],
)
def test_an_unknown_model_is_answered_with_those_that_are_served(sender, secret, traffic, message):
    """The closest names first, also for those who do not have the admin secret."""
    url = sender.connection.url
    plain = f"grpc://{url.rpartition('@')[2]}"
    with (
        connect(sender.connection if secret else Connection(url=plain)) as client,
        pytest.raises(ModelNotFound, match=message) as caught,
    ):
        describe(client, traffic)
    assert caught.value.model == traffic.model
    assert url.partition("@")[0] not in str(caught.value)


def test_a_run_notes_what_is_special_about_its_data(sender, tmp_path):
    """Such as the files that were left out."""
    save(tmp_path / "x.npy", random_rows(4, 8))
    (tmp_path / "README.md").write_text("#")
    traffic = Traffic(model="linear", data=Files(path=tmp_path))
    test = LoadTest(traffic=traffic, load=Users(users=2), connection=sender.connection, warmup_s=0, duration_s=0.5)
    report = run(test, calibration=False)
    assert report.measurement.errors == {}
    assert "files of other kinds are left out: 1 (.md)" in report.notes


def test_data_without_outputs_is_refused_before_a_run_that_checks(sender, tmp_path):
    """No engine is started for it."""
    path = save(tmp_path / "x.npy", random_rows(4, 8))
    test = LoadTest(traffic=Traffic(model="linear", data=Files(path=path), check=True), connection=sender.connection)
    with pytest.raises(InvalidData, match="the data has none"):
        run(test)

"""Readiness, model control and statistics on the real Triton."""

import asyncio
import time

import numpy as np
import pytest

from launcher_helpers import eventually
from naiad.client import (
    AccessDenied,
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    ModelStatistics,
)
from naiad.server import EmbeddedTriton
from repository_helpers import affine, write_model

ROW = {"max_batch_size": 4, "backend": "onnxruntime", "instance_group": [{"kind": "KIND_CPU", "count": 1}]} | {
    kind: [{"name": name, "data_type": "TYPE_FP32", "dims": [3]}] for kind, name in (("input", "x"), ("output", "y"))
}
"""A configuration as JSON has it, for a model of one input and one output."""


def test_the_server_and_its_models_say_whether_they_are_ready(triton):
    """An unknown model is not ready, which is no error."""
    assert triton.live()
    assert triton.ready()
    assert triton.ready("scale")
    assert triton.ready("scale", 1)
    assert not triton.ready("scale", 9)
    assert not triton.ready("nope")
    triton.wait_ready(5.0, "scale")


def test_waiting_for_what_does_not_come_has_an_end():
    """The error names the server and the time."""
    with Client("grpc://127.0.0.1:9") as nobody:
        assert not nobody.live()
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"127\.0\.0\.1:9 is not ready after 0\.3 s"):
            nobody.wait_ready(0.3)
        assert time.monotonic() - started < 10


def test_the_server_describes_itself(triton):
    """Version and extensions, as NVIDIA's client gives them."""
    about = triton.server_metadata()
    assert about.name == "triton"
    assert about.version[0].isdigit()
    assert "statistics" in about.extensions


def test_models_are_unloaded_and_loaded(triton):
    """The index follows, and a model that is gone is not found."""
    triton.unload("spare")
    states = {state.name: state for state in triton.models()}
    assert not states["spare"].ready
    assert states["scale"].ready
    triton.load("spare")
    triton.wait_ready(30.0, "spare")
    assert {state.name: state.ready for state in triton.models()}["spare"]


def test_loading_with_another_configuration_changes_the_contract(triton):
    """A handle that was refused once asks for the metadata again."""
    spare = triton.model("spare")
    assert spare.config.max_batch_size == 8
    narrow = spare.config
    narrow.max_batch_size = 2
    triton.load("spare", config=narrow)
    with pytest.raises(InvalidInput, match="batch-size must be <= 2"):
        spare(x=np.zeros((4, 3), np.float32))
    with pytest.raises(InvalidInput, match="at most 2 rows a request, found 4"):
        spare(x=np.zeros((4, 3), np.float32))
    triton.unload("spare")
    triton.load("spare")
    spare.refresh()
    assert spare.config.max_batch_size == 8


def test_a_model_is_made_from_files_alone(triton):
    """The repository has nothing of it; a later load has other versions, and an unload leaves nothing."""
    x = np.ones((2, 3), np.float32)
    one, two = (affine(scale=scale).SerializeToString() for scale in (5.0, 7.0))
    triton.load("brand-new", config=ROW, files={"1/model.onnx": one})
    np.testing.assert_array_equal(triton.model("brand-new")(x=x)["y"], 5 * x)
    triton.load(
        "brand-new", config=ROW | {"version_policy": {"all": {}}}, files={"1/model.onnx": one, "2/model.onnx": two}
    )
    assert triton.model_metadata("brand-new").versions == ("1", "2")
    np.testing.assert_array_equal(triton.model("brand-new", 2)(x=x)["y"], 7 * x)
    triton.unload("brand-new")
    assert not triton.ready("brand-new")


def test_files_replace_those_of_the_repository_until_the_next_load(triton):
    """This server answers with them; loading without any goes back to the disk."""
    x = np.ones((1, 3), np.float32)
    spare = triton.model("spare")
    on_disk = spare(x=x)["y"]
    triton.load("spare", config=spare.config, files={"1/model.onnx": affine(scale=9.0).SerializeToString()})
    np.testing.assert_array_equal(spare(x=x)["y"], 9 * x)
    triton.load("spare")
    np.testing.assert_array_equal(spare(x=x)["y"], on_disk)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no such model in its repository"),
        ({"config": {**ROW, "nonsense": 1}, "files": {"1/model.onnx": b""}}, "a configuration that it cannot read"),
        ({"config": ROW, "files": {"../../escaped": b""}}, "a file of it with a wrong path"),
        ({"files": {"1/model.onnx": b""}}, "needs a config"),
        ({"config": ROW, "files": {"1/model.onnx": "text"}}, "as bytes, found str"),
        ({"config": "max_batch_size: 4"}, "a ModelConfig or a mapping, found str"),
        ({"config": {"max_batch_size": np.int64(4)}}, "int64 is not JSON serializable"),
    ],
)
def test_a_model_that_cannot_be_loaded_gives_the_reason(triton, options, message):
    """One error with the model's name, from the server or before anything is sent; nothing is served."""
    with pytest.raises(InvalidInput, match=message):
        triton.load("nope", **options)
    assert not triton.ready("nope")


def test_a_model_that_does_not_load_may_be_loaded_once_it_is_right(triton):
    """Until then the server counts as not ready, as Triton has it; the others are served."""
    with pytest.raises(InvalidInput, match="expected a valid ONNX model") as caught:
        triton.load("late", config=ROW, files={"1/model.onnx": b"junk"})
    assert caught.value.model == "late"
    assert not triton.ready()
    assert triton.ready("scale")
    triton.load("late", config=ROW, files={"1/model.onnx": affine().SerializeToString()})
    assert triton.ready("late")
    triton.unload("late")
    triton.wait_ready(30.0)


def test_a_refused_replacement_leaves_what_is_served(triton):
    """The requests after it are answered as those before."""
    x = np.ones((1, 3), np.float32)
    before = triton.infer("spare", {"x": x})["y"]
    with pytest.raises(InvalidInput):
        triton.load("spare", config=ROW, files={"1/model.onnx": b"junk"})
    np.testing.assert_array_equal(triton.infer("spare", {"x": x})["y"], before)
    triton.load("spare")


def test_trace_settings_are_those_of_all_models_or_of_one(triton):
    """A model's own settings hold for it alone; None goes back."""
    of_all = triton.trace_settings()
    assert (of_all.levels, of_all.mode, of_all.count) == ((), "triton", -1)
    changed = triton.update_trace_settings("scale", rate=7, count=3, log_frequency=2)
    assert (changed.rate, changed.count, changed.log_frequency) == (7, 3, 2)
    assert triton.trace_settings("scale") == changed
    assert triton.trace_settings() == of_all
    assert triton.update_trace_settings("scale", rate=None, count=None, log_frequency=None) == of_all


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"levels": ["TIMESTAMPS"]}, InvalidInput, "trace file name is not given"),
        ({"levels": ["EVERYTHING"]}, InvalidInput, "a list of TIMESTAMPS, TENSORS or both"),
        ({"levels": "TENSORS"}, InvalidInput, "a list of TIMESTAMPS, TENSORS or both"),
        ({"rate": -1}, InvalidInput, "rate is a whole number of 0 or more, found -1"),
        ({"count": True}, InvalidInput, "count is a whole number of -1 or more, found True"),
        ({"mode": "opentelemetry"}, TypeError, "no trace setting 'mode' that can be changed"),
    ],
)
def test_wrong_trace_settings_are_refused(triton, changes, error, message):
    """Also those that Triton itself ignores without a word."""
    before = triton.trace_settings()
    with pytest.raises(error, match=message):
        triton.update_trace_settings(**changes)
    assert triton.trace_settings() == before


def test_trace_settings_of_an_unknown_model_are_not_found(triton):
    """Asking and changing alike."""
    for call in (triton.trace_settings, lambda model: triton.update_trace_settings(model, rate=1)):
        with pytest.raises(ModelNotFound, match="nope"):
            call("nope")


def test_log_settings_are_changed_and_changed_back(triton):
    """What was not named stays."""
    before = triton.log_settings()
    try:
        changed = triton.update_log_settings(info=False, verbose_level=1, format="ISO8601")
        assert (changed.info, changed.verbose_level, changed.format) == (False, 1, "ISO8601")
        assert (changed.warning, changed.error) == (before.warning, before.error)
        assert triton.log_settings() == changed
    finally:
        triton.update_log_settings(info=before.info, verbose_level=before.verbose_level, format=before.format)
    assert triton.log_settings() == before


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"verbose_level": -1}, InvalidInput),
        ({"info": 1}, InvalidInput),
        ({"format": "JSON"}, InvalidInput),
        ({"file": "/tmp/log"}, TypeError),
    ],
)
def test_wrong_log_settings_are_refused(triton, changes, error):
    """Before anything is sent."""
    with pytest.raises(error, match=next(iter(changes))):
        triton.update_log_settings(**changes)


def test_changed_settings_have_an_effect(tmp_path):
    """Requests of one model are traced from then on, and the log says more."""
    write_model(
        tmp_path / "repository", "scale", affine(), inputs={"x": "FP32[3]"}, outputs={"y": "FP32[3]"}, max_batch_size=8
    )
    traces, log = tmp_path / "traces.json", tmp_path / "triton.log"
    with (
        EmbeddedTriton(
            tmp_path / "repository", extra_args=[f"--trace-config=triton,file={traces}"], log_path=log
        ) as server,
        server.client() as triton,
    ):
        x = np.ones((1, 3), np.float32)
        triton.infer("scale", {"x": x}, request_id="before")
        settings = triton.update_trace_settings("scale", levels=["TIMESTAMPS"], rate=1, log_frequency=1)
        assert (settings.levels, settings.file) == (("TIMESTAMPS",), str(traces))
        assert triton.trace_settings().levels == ()
        triton.infer("scale", {"x": x}, request_id="traced")
        written = tmp_path / "traces.json.0"
        eventually(lambda: written.exists() and "REQUEST_END" in written.read_text(), "the trace is written")
        assert '"request_id":"traced"' in written.read_text()
        silent = len(log.read_text())
        triton.update_log_settings(verbose_level=1)
        triton.infer("scale", {"x": x}, request_id="told")
        eventually(lambda: "told" in log.read_text()[silent:], "the log names the request")


def test_administration_needs_the_secret(address):
    """Inference stays open; the refusal is no server that is away, and is not retried."""
    with Client(f"grpc://{address}") as stranger:
        assert stranger.ready("scale")
        for call in (
            stranger.models,
            lambda: stranger.load("spare"),
            lambda: stranger.unload("spare"),
            stranger.trace_settings,
            lambda: stranger.update_trace_settings(rate=1),
            stranger.log_settings,
            lambda: stranger.update_log_settings(info=True),
        ):
            with pytest.raises(AccessDenied, match="admin secret") as caught:
                call()
            assert not caught.value.retryable
    with Client(f"grpc://{address}", admin_secret="wrong") as liar, pytest.raises(AccessDenied):
        liar.models()


def test_statistics_of_a_window_are_the_difference_of_two_readings(triton):
    """Requests, samples, executions and times of just what was sent in between."""
    scale = triton.model("scale", version=1)
    (before,) = triton.statistics("scale", 1)
    for rows in (1, 4, 4):
        scale(x=np.zeros((rows, 3), np.float32))
    (after,) = triton.statistics("scale", 1)
    window = after - before
    assert (window.success.count, window.inference_count, window.execution_count) == (3, 9, 3)
    assert window.fail.count == 0
    assert window.compute_infer.ns > 0
    assert {size: batch.compute_infer.count for size, batch in window.batches.items()} == {1: 1, 4: 2}
    assert window.queue.mean_us >= 0


def counted(triton: Client, model: str, number: int) -> ModelStatistics:
    """The statistics as soon as so many requests are in them: a little after their answers."""
    deadline = time.monotonic() + 30
    while True:
        (found,) = triton.statistics(model)
        if found.success.count >= number:
            return found
        assert time.monotonic() < deadline, found


def test_the_counters_of_a_model_that_was_loaded_again_begin_anew(triton):
    """What happened since an earlier reading is then all that they say, never a negative number."""
    x = np.zeros((1, 3), np.float32)
    triton.infer("spare", {"x": x})
    triton.infer("spare", {"x": x})
    before = counted(triton, "spare", 2)
    triton.unload("spare")
    triton.load("spare")
    triton.infer("spare", {"x": x})
    after = counted(triton, "spare", 1)
    assert after.since(before) == after.since(None) == after
    assert (after.success.count, after.mean_batch) == (1, 1.0)
    assert after.mean_compute_us > 0
    triton.infer("spare", {"x": x})
    later = counted(triton, "spare", 2)
    assert later.since(after).success.count == 1


async def test_the_asyncio_client_manages_as_well(url):
    """Every method, awaited."""
    async with AsyncClient(url) as triton:
        assert await triton.live()
        assert await triton.ready("scale", 2)
        await triton.wait_ready(5.0)
        assert (await triton.server_metadata()).name == "triton"
        assert (await triton.model_metadata("scale")).versions == ("1", "2")
        assert (await triton.model("scale").config()).name == "scale"
        assert {state.name for state in await triton.models()} >= {"scale", "echo"}
        assert (await triton.statistics("scale", 1))[0].name == "scale"
        await triton.unload("spare")
        assert not await triton.ready("spare")
        await triton.load("spare")
        assert await triton.ready("spare")
        assert (await triton.update_trace_settings("spare", rate=5)).rate == 5
        assert (await triton.trace_settings("spare")).rate == 5
        assert (await triton.update_trace_settings("spare", rate=None)).rate == (await triton.trace_settings()).rate
        assert await triton.update_log_settings(info=True) == await triton.log_settings()
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(triton.wait_ready(0.1, "nope"), 5)

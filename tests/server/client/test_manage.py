"""Readiness, model control and statistics on the real Triton."""

import asyncio
import time

import numpy as np
import pytest

from naiad.client import AccessDenied, AsyncClient, Client, ClientError, DeadlineExceeded, InvalidInput


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


def test_a_model_that_cannot_be_loaded_gives_the_servers_reason(triton):
    """One error, with the model's name."""
    with pytest.raises(ClientError, match="nope") as caught:
        triton.load("nope")
    assert caught.value.model == "nope"
    with pytest.raises(InvalidInput, match="needs a config"):
        triton.load("spare", files={"1/model.onnx": b""})


def test_administration_needs_the_secret(address):
    """Inference stays open; the refusal is no server that is away, and is not retried."""
    with Client(f"grpc://{address}") as stranger:
        assert stranger.ready("scale")
        for call in (stranger.models, lambda: stranger.load("spare"), lambda: stranger.unload("spare")):
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
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(triton.wait_ready(0.1, "nope"), 5)

"""CUDA shared memory at a real Triton that has no GPU: it refuses, and what the client makes of that."""

import logging

import numpy as np
import pytest

from cuda_helpers import HostDriver, Tensor, memory_of
from naiad.client import Client, Unsupported
from naiad.client._device import cuda

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def driver(monkeypatch):
    """A client that has a GPU: a double in the host's memory, whose handles no server can open."""
    driver = HostDriver()
    monkeypatch.setattr(cuda, "load", lambda: driver)
    return driver


def test_a_server_that_cannot_open_the_memory_is_named(url, driver):
    """The error has Triton's words, and says what to do."""
    with Client(url, cuda_memory=True) as triton:
        with pytest.raises(Unsupported, match=r"expected a server on this machine.*found .*'auto'") as caught:
            triton.model("scale").infer({"x": Tensor(X)})
        assert caught.value.endpoint is not None
    assert not driver.memory


def test_auto_goes_by_the_host(url, driver, caplog):
    """The answer is the same, and one line says why."""
    with caplog.at_level(logging.INFO, "naiad.client"), Client(url, cuda_memory="auto") as triton:
        for _ in range(2):
            result = triton.model("scale").infer({"x": Tensor(X)}, outputs_on="cuda")
            np.testing.assert_array_equal(memory_of(result.cuda("y")), triton.model("scale")(x=X)["y"])
    assert len([record for record in caplog.records if "tensors go by the host's" in record.message]) == 1

"""Models on a real server that take what files of samples hold: images, strings, sequences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

import arena_helpers
import client_models
from loadtest_helpers import write_repository
from naiad.loadtest import Connection, Traffic
from naiad.loadtest._data.payloads import Payloads, make_payloads
from naiad.loadtest._data.target import connect, describe
from repository_helpers import graph, identity, node, write_model

METHOD = "/inference.GRPCInferenceService/ModelInfer"


def write_models(root: Path) -> Path:
    """Write ``linear`` (with golden samples), ``words``, ``picture``, ``large``, ``held`` and ``totals_direct``."""
    write_repository(root, "linear")
    strings = {"tensor": "STRING[1]"}
    write_model(
        root,
        "words",
        identity({"text": "STRING[batch,1]"}),
        inputs={"text": "STRING[1]"},
        outputs={"text_out": strings["tensor"]},
        max_batch_size=4,
    )
    shape = "FP32[batch,3,height,width]"
    brighter = graph([node("Add", "image", "one", to="y")], {"image": shape}, {"y": shape}, constants={"one": 1.0})
    dims = "FP32[3,-1,-1]"
    write_model(root, "picture", brighter, inputs={"image": dims}, outputs={"y": dims}, max_batch_size=4)
    arena_helpers.write_models(root)
    client_models.write_python(
        root, ("totals_direct", client_models.TOTALS, client_models.TOTALS_CONFIG % client_models.DIRECT)
    )
    return root


class Sender:
    """Sends serialised requests to a server as they are."""

    def __init__(self, url: str) -> None:
        self.connection = Connection(url=url)
        self._channel = grpc.insecure_channel(url.rpartition("@")[2].removeprefix("grpc://"))
        self._call = self._channel.unary_unary(METHOD)

    def __call__(self, *parts: bytes) -> bytes:
        """Return the answer to a request and its suffixes."""
        return self._call(b"".join(parts), timeout=60)

    def future(self, *parts: bytes) -> grpc.Future:
        """Send without waiting for the answer."""
        return self._call.future(b"".join(parts), timeout=60)

    @contextmanager
    def payloads(self, model: str, *, num_slots: int = 4, **traffic: object) -> Iterator[Payloads]:
        """Make the requests to a model as the server describes it."""
        wanted = Traffic(model=model, **traffic)
        with connect(self.connection) as client:
            signature = describe(client, wanted).signature
        with make_payloads(wanted, signature, seed=3, connection=self.connection, num_slots=num_slots) as made:
            yield made

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def random_rows(*shape: int) -> np.ndarray:
    """The same floats every time."""
    return np.random.default_rng(11).random(shape, np.float32)

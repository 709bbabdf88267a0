"""Scripts in the real Triton: what they call, without an optional model, with errors, and while versions change."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from naiad.client import Client, ClientError, InferenceFailed, InvalidInput, ModelNotFound
from naiad.export import Repository
from naiad.export._repository import golden
from naiad.server import EmbeddedTriton
from pipeline_helpers import publish_again
from script_helpers import in_python, publish, text_steps, texts

pytestmark = pytest.mark.timeout(300)

ROWS = np.array([[1.0, 2.0], [3.0, 4.0], [0.5, 0.5]], np.float32)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return publish(tmp_path_factory.mktemp("scripts") / "models")


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(repository.path, models=["sums"]) as triton:
        yield triton


@pytest.fixture
def client(server: EmbeddedTriton) -> Iterator[Client]:
    with server.client() as client:
        yield client


def totals(client: Client, rows: np.ndarray = ROWS) -> list[float]:
    return [float(value) for value in client.infer("sums", {"vector": rows})["total"].ravel()]


def test_naming_the_pipeline_serves_what_its_script_calls(server: EmbeddedTriton) -> None:
    """Triton knows the steps of an ensemble only; the launcher knows those that scripts call."""
    assert server.models == ("sums", "sums_control", "sums_extra", "sums_net")


def test_golden_pairs_are_answered_as_in_python(repository: Repository, client: Client) -> None:
    """At every batch size, through the ensemble and by the script and the called models themselves."""
    for model in repository.models():
        for pair in golden.read(repository.path / model / "1" / "golden.npz", {}):
            answer = client.infer(model, pair.inputs)
            for name, expected in pair.outputs.items():
                np.testing.assert_allclose(answer[name].reshape(expected.shape), expected, rtol=1e-6)


def test_an_optional_model_comes_and_goes(client: Client) -> None:
    """Whether it is served is looked up with each request: no reload, no restart."""
    for _ in range(2):
        assert totals(client) == in_python(ROWS)
        client.unload("sums_extra")
        assert totals(client) == in_python(ROWS, with_extra=False)
        assert not client.infer("sums", {"vector": ROWS})["asked"].any()
        client.load("sums_extra")
    assert totals(client) == in_python(ROWS)


def test_no_request_fails_while_an_optional_model_comes_and_goes(client: Client, server: EmbeddedTriton) -> None:
    """A model that goes between the look and the call is done without."""
    expected = (in_python(ROWS), in_python(ROWS, with_extra=False))
    with _Calling(server, totals) as (found, failures):
        for _ in range(5):
            client.unload("sums_extra")
            _until(lambda: found[-1:] == [expected[1]])
            client.load("sums_extra")
            _until(lambda: found[-1:] == [expected[0]])
    assert failures == []
    assert all(each in expected for each in found)


def test_a_script_whose_model_is_gone_says_which(client: Client) -> None:
    """The caller gets the names of script and step, and what an ensemble would answer; then it works again."""
    client.unload("sums_net")
    try:
        with pytest.raises(
            ModelNotFound, match=r"step 'control' of sums: it needs 'net', and sums_net version 1 is not"
        ):
            totals(client)
    finally:
        client.load("sums_net")
    assert totals(client) == in_python(ROWS)


def test_errors_have_the_names_of_the_steps(client: Client) -> None:
    """A ValueError of the script is the caller's fault; an error of a model that it calls keeps its text."""
    with pytest.raises(InvalidInput, match="step 'control' of sums: there is no number in a row"):
        totals(client, np.full((1, 2), np.nan, np.float32))
    for value, reason in ((1e6, "the total is too large"), (1e5, "RuntimeError: this should not happen")):
        named = f"step 'control' of sums: its call of 'extra' failed: step 'extra' of sums: {reason}"
        with pytest.raises(InferenceFailed, match=named):
            totals(client, np.full((1, 2), value, np.float32))
    assert totals(client) == in_python(ROWS)


def test_a_called_process_that_dies_is_brought_back(repository: Repository, tmp_path: Path) -> None:
    """Its callers are told whose call failed until the supervisor has it running again."""
    models = Path(shutil.copytree(repository.path, tmp_path / "models"))
    with EmbeddedTriton(models) as triton, triton.client() as client:
        assert totals(client) == in_python(ROWS)
        os.kill(_process_of(triton, "sums_extra"), signal.SIGKILL)
        seen: list[str] = []

        def answered() -> bool:
            try:
                return totals(client) == in_python(ROWS)
            except ClientError as exc:
                seen.append(str(exc))
                return False

        _until(answered)
    assert all("extra" in each or "sums" in each for each in seen)


def _process_of(triton: EmbeddedTriton, model: str) -> int:
    for pid in triton.stub_pids():
        if model in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    raise AssertionError(f"no process of {model}")


def test_an_old_script_calls_old_models(tmp_path: Path) -> None:
    """While requests flow, versions change with all that is called: no request fails, none meets a mixture."""
    repo = publish(tmp_path / "models")
    expected = {number: in_python(ROWS, scale=scale) for number, scale in ((1, 1.0), (2, 10.0), (3, 100.0))}
    with (
        EmbeddedTriton(repo.path, models=["sums"], watch=True) as triton,
        _Calling(triton, totals) as (found, failures),
    ):
        _until(lambda: found[-1:] == [expected[1]])
        for number in (2, 3):
            publish_again(repo.path, name="sums", scale=10.0 ** (number - 1))
            _until(lambda number=number: found[-1:] == [expected[number]])
        for number in (2, 1):
            assert repo.rollback("sums") == (number,)
            _until(lambda number=number: found[-1:] == [expected[number]])
        repo.promote("sums", 3)
        _until(lambda: found[-1:] == [expected[3]])
    assert failures == []
    assert all(each in expected.values() for each in found)


def test_a_repository_without_the_optional_model(repository: Repository, tmp_path: Path) -> None:
    """It need not even be in the repository."""
    models = Path(shutil.copytree(repository.path, tmp_path / "models"))
    shutil.rmtree(models / "sums_extra")
    with EmbeddedTriton(models, models=["sums"]) as triton, triton.client() as client:
        assert triton.models == ("sums", "sums_control", "sums_net")
        assert totals(client) == in_python(ROWS, with_extra=False)


def test_text_and_scalars_are_called_with_and_returned(tmp_path: Path) -> None:
    """As in Python, at every batch size."""
    repo = publish(tmp_path / "models", steps=text_steps(), samples=texts(), max_batch_size=5)
    with EmbeddedTriton(repo.path) as triton, triton.client() as client:
        for pair in golden.read(repo.path / "sums" / "1" / "golden.npz", {}):
            answer = client.infer("sums", pair.inputs)
            for name, expected in pair.outputs.items():
                assert answer[name].ravel().tolist() == expected.ravel().tolist()


class _Calling:
    """Calls from two threads meanwhile; gives what was answered, and what failed."""

    def __init__(self, triton: EmbeddedTriton, ask: Callable[[Client], list[float]]) -> None:
        self._triton, self._ask, self._done = triton, ask, threading.Event()
        self.found: list[list[float]] = []
        self.failures: list[Exception] = []
        self._threads = [threading.Thread(target=self._call) for _ in range(2)]

    def _call(self) -> None:
        with self._triton.client() as client:
            while not self._done.is_set():
                try:
                    self.found.append(self._ask(client))
                except Exception as exc:
                    self.failures.append(exc)

    def __enter__(self) -> tuple[list[list[float]], list[Exception]]:
        for thread in self._threads:
            thread.start()
        return self.found, self.failures

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that within a minute"
        time.sleep(0.05)

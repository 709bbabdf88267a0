"""Pipelines in the real Triton: they answer as in Python, and change from one version to the next as a whole."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from naiad.client import Client, InvalidInput
from naiad.export import Recipe, Repository, export_recipe, load_recipe
from naiad.export._repository import golden
from naiad.server import EmbeddedTriton, ModelLoadFailed
from pipeline_helpers import assert_wired, in_python, publish, publish_again, steps, write_environment

pytestmark = pytest.mark.timeout(600)  # real nets are captured and their weights may be downloaded

TEXTS = ["a few words", "incomprehensibilities", "ä", "no more than these", ""]


@pytest.fixture(scope="module")
def sentences() -> Recipe:
    return load_recipe("sentences")


@pytest.fixture(scope="module")
def digit_files() -> Recipe:
    return load_recipe("digit_files")


@pytest.fixture(scope="module")
def repository(sentences: Recipe, digit_files: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repo = Repository(tmp_path_factory.mktemp("pipelines") / "models")
    export_recipe(sentences, repository=repo)
    export_recipe(digit_files, repository=repo, options={"epochs": 5})
    return repo


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(repository.path, watch=True) as triton:
        yield triton


@pytest.fixture
def client(server: EmbeddedTriton) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.mark.parametrize("target", ["24.10", "26.07"])
def test_what_is_published_lints_clean(repository: Repository, target: str) -> None:
    """No field of an ensemble or of its steps is one that the embedded server, or NVIDIA's container, would refuse."""
    assert [str(found) for found in repository.lint(target=target)] == []


@pytest.mark.parametrize("pipeline", ["sentences", "digit_files"])
def test_golden_pairs_are_answered_as_in_python(repository: Repository, client: Client, pipeline: str) -> None:
    """Every request of `golden.npz`, at batches 1, 2, 3, 7 and the largest, gets what the Python pipeline gave."""
    pairs = golden.read(repository.path / pipeline / "1" / "golden.npz", {})
    largest = repository.config(pipeline).max_batch_size
    assert {1, 2, 3, largest} <= {pair.num_rows for pair in pairs}
    for pair in pairs:
        answer = client.infer(pipeline, pair.inputs)
        for name, expected in pair.outputs.items():
            if expected.dtype == object:
                assert answer[name].tolist() == expected.tolist()
            else:
                np.testing.assert_allclose(answer[name].reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_sentences_of_any_length_mean_what_they_mean_in_pytorch(sentences: Recipe, client: Client) -> None:
    """Text that no sample had, longer than the encoder takes and empty, in one request with padding or alone."""
    import embeddings  # the recipe's neighbour

    texts = ["", "A dog.", "words " * 400, "Ünïcödé – 猫", "the quick brown fox jumps over the lazy dog " * 3]
    tokens = embeddings.tokens(texts)
    model = embeddings.build()
    with torch.no_grad():
        expected = model(*(torch.from_numpy(tokens[name]) for name in ("ids", "mask"))).numpy()
    together = client.infer("sentences", {"text": np.array(texts, object)[:, None]})["embedding"]
    np.testing.assert_allclose(together, expected, atol=1e-4)
    for text, row in zip(texts, expected, strict=True):
        alone = client.infer("sentences", {"text": np.array([[text]], object)})["embedding"]
        np.testing.assert_allclose(alone[0], row, atol=1e-4)


def test_digits_are_read_from_files_of_any_size(digit_files: Recipe, client: Client) -> None:
    """Files of other sizes, kinds and colours than the samples give what decoding and PyTorch give."""
    pixels = load_recipe("digits").held_out()[0]["image"][:7, 0]
    files = []
    for index, image in enumerate(pixels):
        picture = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).resize((24 + index, 20))
        file = io.BytesIO()
        picture.convert("RGB" if index % 2 else "L").save(file, "png" if index % 3 else "bmp")
        files.append([file.getvalue()])
    decode, net, label = digit_files.pipeline(epochs=5)
    array = np.array(files, object)
    decoded = decode.function(array, **decode.options)["pixels"]
    with torch.no_grad():
        expected = label.function(net.model(torch.from_numpy(decoded)).numpy())
    answer = client.infer("digit_files", {"image": array})
    assert answer["label"].ravel().tolist() == [name.encode() for name in expected["label"].ravel()]
    np.testing.assert_allclose(answer["probability"], expected["probability"], atol=1e-4)


def test_what_a_step_refuses_is_the_callers_fault(client: Client) -> None:
    """A ValueError of a function is INVALID_ARGUMENT with the step's name, and the next request is answered."""
    with pytest.raises(InvalidInput, match=r"step 'decode' of digit_files: the bytes are no image that pillow knows"):
        client.infer("digit_files", {"image": np.array([[b"no image"]], object)})
    with pytest.raises(InvalidInput, match=r"step 'tokens' of sentences: .* row 0 is not UTF-8"):
        client.infer("sentences", {"text": np.array([[b"\xff\xfe"]], object)})
    assert client.infer("sentences", {"text": np.array([["well"]], object)})["embedding"].shape == (1, 384)


def test_a_model_takes_what_the_steps_before_it_leave_open(repository: Repository) -> None:
    """The encoder's length varies because the tokens' does, though its recipe says nothing about it."""
    assert [list(tensor.dims) for tensor in repository.config("sentences_encoder").input] == [[-1], [-1]]
    assert [list(tensor.dims) for tensor in repository.config("digit_files_net").input] == [[1, 8, 8]]


def test_a_pipeline_changes_as_a_whole(tmp_path: Path) -> None:
    """While requests flow, promote and rollback change all steps at once: no request fails, none meets a mixture."""
    publish(tmp_path / "models")
    with EmbeddedTriton(tmp_path / "models", watch=True) as triton, triton.client() as client:
        seen, failures = _change_under_load(Repository(tmp_path / "models"), client)
    assert failures == []
    assert set(seen) == {1, 2, 3}
    assert_wired(tmp_path / "models")


def _change_under_load(repository: Repository, client: Client) -> tuple[list[int], list[object]]:
    """Call from three threads while versions change; returns whose answer each was, and what was none."""
    versions = {1: (1.0, 0.5), 2: (10.0, 5.0), 3: (100.0, 50.0)}
    expected = {number: in_python(TEXTS, scale=scale, offset=offset) for number, (scale, offset) in versions.items()}
    seen: list[int] = []
    failures: list[object] = []
    done = threading.Event()

    def call() -> None:
        texts = np.array(TEXTS, object)[:, None]
        while not done.is_set():
            try:
                answer = client.infer("words", {"text": texts})
            except Exception as exc:
                failures.append(exc)
                continue
            found = (answer["verdict"].ravel().tolist(), answer["total"].ravel().tolist())
            number = next((n for n, each in expected.items() if found == each), None)
            seen.append(number) if number else failures.append(found)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        _until(lambda: seen[-1:] == [1])
        for number in (2, 3):
            publish_again(repository.path, scale=versions[number][0], offset=versions[number][1])
            _until(lambda number=number: seen[-1:] == [number])
        for number in (2, 1):
            assert repository.rollback("words") == (number,)
            _until(lambda number=number: seen[-1:] == [number])
        repository.promote("words", 3)
        _until(lambda: seen[-1:] == [3])
    finally:
        done.set()
        for caller in callers:
            caller.join()
    return seen, failures


def test_a_step_whose_package_is_missing_is_not_served(tmp_path: Path) -> None:
    """A server without a package that a step imports says so when it loads it; an environment can have the package."""
    environment = write_environment(tmp_path / "env", "only_there")
    first, *others = steps(tmp_path)
    for name, chosen in (
        ("lacks", first),
        ("has", first.with_settings({"parameters.EXECUTION_ENV_PATH": environment})),
    ):
        publish(tmp_path / name, steps=[chosen, *others])
        about = tmp_path / name / "words_lengths" / "1" / "step.json"
        about.write_text(about.read_text().replace('"imports": [', '"imports": ["only_there", '))
    with (
        pytest.raises(ModelLoadFailed, match=r"step 'lengths' of words needs the Python package 'only_there', which"),
        EmbeddedTriton(tmp_path / "lacks"),
    ):
        pass
    with EmbeddedTriton(tmp_path / "has") as triton, triton.client() as client:
        answer = client.infer("words", {"text": np.array(TEXTS, object)[:, None]})
    assert answer["total"].ravel().tolist() == in_python(TEXTS)[1]


def test_a_version_that_does_not_load_leaves_the_old_one_served(tmp_path: Path) -> None:
    """A step that a running server cannot load keeps the new pipeline away, not the old one; the next works again."""
    publish(tmp_path / "models")
    texts = np.array(TEXTS, object)[:, None]
    with EmbeddedTriton(tmp_path / "models", watch=True) as triton, triton.client() as client:
        publish_again(tmp_path / "models", scale=10.0, offset=5.0, imports=["no_such_package"])
        _until(lambda: ("words_lengths", "2") in ready(client))
        for _ in range(50):  # the server has looked, and looks again
            assert client.infer("words", {"text": texts}).model_version == "1"
            time.sleep(0.05)
        assert ("words_verdict", "2") not in ready(client)
        publish_again(tmp_path / "models", scale=100.0, offset=50.0)
        _until(lambda: ("words", "3") in ready(client))
        for _ in range(50):
            answer = client.infer("words", {"text": texts})
            assert answer["total"].ravel().tolist() == in_python(TEXTS, scale=100.0, offset=50.0)[1]
            time.sleep(0.05)


def ready(client: Client) -> set[tuple[str, str]]:
    return {(state.name, state.version) for state in client.models() if state.state == "READY"}


def test_a_pipeline_in_a_bucket(bucket_url: str) -> None:
    """Published, changed and rolled back there, and served from there by the real Triton."""
    publish(bucket_url)
    assert publish_again(bucket_url, scale=10.0, offset=5.0).number == 2
    assert_wired(bucket_url)
    assert Repository(bucket_url).rollback("words") == (1,)
    assert_wired(bucket_url)
    Repository(bucket_url).promote("words", 2)
    with EmbeddedTriton(bucket_url) as triton, triton.client() as client:
        answer = client.infer("words", {"text": np.array(TEXTS, object)[:, None]})
        found = (answer["verdict"].ravel().tolist(), answer["total"].ravel().tolist())
        assert found == in_python(TEXTS, scale=10.0, offset=5.0)


def _until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the server did not follow within a minute"
        time.sleep(0.02)

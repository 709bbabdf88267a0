"""Sentences to vectors: as in Python, found again by their meaning, and rounded only where that pays."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from naiad.client import Client, InvalidInput
from naiad.export import Repository, load_recipe
from naiad.server import EmbeddedTriton


@pytest.fixture(scope="module")
def client(demo_of) -> Iterator[Client]:
    run = demo_of("embeddings")
    assert run.found
    with EmbeddedTriton(run.repository) as triton, triton.client() as client:
        yield client


def vectors(client: Client, texts: list[str]) -> np.ndarray:
    answer: np.ndarray = client.infer("sentences", {"text": np.array(texts, object)[:, None]})["embedding"]
    return answer


def test_strings_give_the_vectors_of_the_python_pipeline(demo_of):
    """384 floats within 1e-5 of tokenizer and PyTorch, from the empty string to more tokens than count."""
    found = demo_of("embeddings").found
    assert found["dimensions"] == 384
    assert found["max_abs_error"] <= 1e-5


def test_a_question_finds_the_answer_that_shares_no_word_with_it(demo_of):
    """What was asked in other words is nearest in meaning, and most questions find their answers."""
    found = demo_of("embeddings").found
    assert found["nearest"]["tomorrow's weather"].startswith("Heavy rain")
    assert found["nearest"]["I want my money back"].startswith("Goods may be returned")
    assert found["accuracy_served"] == 1.0


def test_int8_is_published_with_its_figures_or_refused_with_a_reason(demo_of):
    """Published: smaller, faster, near fp32 and good at its task; else the first version goes on serving."""
    run = demo_of("embeddings")
    found, repository = run.found, Repository(run.repository)
    if not found["int8_published"]:
        assert "refused" in found["rows"]["int8"]
        assert repository.served("sentences") == (1,)
        return
    assert repository.served("sentences") == (2,)
    assert found["size_bytes"]["int8"] < 0.8 * found["size_bytes"]["fp32"]
    assert found["int8_speed_up"] >= 1.05
    assert found["int8_cosine_least"] > 0.95
    assert found["int8_accuracy_served"] >= 0.9
    assert set(found["encoder_request_ms"]) == {"1", "16"}


def test_both_versions_were_load_tested_without_an_error(demo_of):
    """Each has a report of its own, in which every request was answered."""
    run = demo_of("embeddings")
    for name in ("fp32", "int8") if run.found["int8_published"] else ("fp32",):
        assert run.found[name]["throughput_per_s"] > 0
        assert run.found["rows"][f"{name}: throughput"].endswith(" 0 failed")
        assert (run.report / f"{name}.html").stat().st_size > 50_000


def test_what_the_demo_leaves_answers_its_golden_pairs_and_rolls_back(demo_of, tmp_path: Path):
    """The pipeline goes back to its first version as a whole, and answers what was recorded for that."""
    run = demo_of("embeddings")
    repository = Repository(run.repository)
    last = repository.served("sentences")[0]
    with EmbeddedTriton(run.repository) as triton:
        assert all(each.ok for each in repository.verify_served("sentences", triton.grpc_url, last))
    if last == 1:
        return
    assert repository.rollback("sentences") == (1,)
    try:
        with EmbeddedTriton(run.repository) as triton:
            assert all(each.ok for each in repository.verify_served("sentences", triton.grpc_url, 1))
    finally:
        repository.promote("sentences", last)


def test_the_vector_of_a_text_does_not_depend_on_spaces_around_it(client):
    """The tokenizer on the server does what it does in Python: it drops them, and letters' case."""
    one, other = vectors(client, ["The cat sleeps."]), vectors(client, ["  the CAT   sleeps.\n"])
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_all_vectors_have_length_one(client):
    """Also that of the empty string, of zero bytes, and of a text of which only the beginning counts."""
    found = vectors(client, ["", "\0", "🐈" * 3, "word " * 5000])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.array([[b"\xff\xfe"]], object), "UTF-8"),
        (np.array([["a", "b"]], object), r"text|shape|1"),
        (np.array([["a"]] * 17, object), r"16"),
    ],
    ids=["not UTF-8", "two texts in a row", "more rows than a batch"],
)
def test_odd_input_is_refused_with_a_reason(client, rows, said):
    """And the next request is answered."""
    with pytest.raises(InvalidInput, match=said):
        client.infer("sentences", {"text": rows})
    assert vectors(client, ["well"]).shape == (1, 384)


def test_the_task_can_be_failed():
    """The metric that int8 must pass falls when vectors mean nothing, and is not met by any encoder at all."""
    recipe = load_recipe("embeddings")
    count = len(recipe.held_out()[0]["ids"])
    noise = np.random.default_rng(0).normal(size=(count, 384)).astype(np.float32)
    assert recipe.evaluate(lambda _: {"embedding": noise})["accuracy"] < 0.5

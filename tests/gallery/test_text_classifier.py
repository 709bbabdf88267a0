"""Texts to labels: what is served equals scikit-learn, whatever the texts, the labels and the CSV are."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import torch

from naiad.client import Client, ClientError
from naiad.export import ExportError, Recipe, Repository, export_recipe, load_recipe
from naiad.server import EmbeddedTriton

ODD = [
    "",
    " ",
    "a",
    "qwxz 0",
    "İstanbul ΣΊΣΥΦΟΣ Straße naïve 東京タワー 𝒳𝒴 ½ x_1 don't",
    "new\nline\ttab\r\n",
    "the of " * 9000,
]


@pytest.fixture(scope="module")
def classifier() -> Recipe:
    return load_recipe("text_classifier")


@pytest.fixture(scope="module")
def running(demo_of: Callable[[str], Any]) -> Iterator[EmbeddedTriton]:
    """What the demo published, served again."""
    run = demo_of("text_classifier")
    assert run.found["passed"]
    with EmbeddedTriton(run.repository, models=["text_classifier", "text_transformer"]) as triton:
        yield triton


@pytest.fixture
def client(running: EmbeddedTriton) -> Iterator[Client]:
    with running.client() as client:
        yield client


def rows(*texts: str | bytes) -> np.ndarray:
    """Return texts as the model's input."""
    return np.array([[text.encode() if isinstance(text, str) else text] for text in texts], object)


def write(path: Path, texts: list[tuple[str, str]], *, header: str = "text,label") -> str:
    """Write a CSV whose every field is in quotes."""
    lines = [header, *(",".join(f'"{field.replace(chr(34), chr(34) * 2)}"' for field in row) for row in texts)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def topics(labels: list[str], each: int = 8) -> list[tuple[str, str]]:
    """Return texts of which each label has words of its own."""
    return [(f"word{number} common extra{at % 3} topic{number}", label)
            for number, label in enumerate(labels) for at in range(each)]  # fmt: skip


def test_what_is_served_equals_scikit_learn(demo_of):
    """All labels, and probabilities within 1e-5; it knows far more than the most frequent label."""
    found = demo_of("text_classifier").found
    assert found["sklearn_labels_differing"] == 0
    assert found["sklearn_max_difference"] < 1e-5
    assert found["held_out_texts"] > 1000
    assert found["accuracy_served"] > found["accuracy_majority"] + 0.3


def test_the_transformer_is_compared_with_the_bag_of_words(demo_of):
    """Accuracy, size and latency of both; each has learned something."""
    found = demo_of("text_classifier").found
    assert set(found["models"]) == {"text_classifier", "text_transformer"}
    for figures in found["models"].values():
        assert figures["accuracy"] > found["accuracy_majority"] + 0.3
        assert figures["size_bytes"] > 100_000
        assert figures["latency_ms"] > 0


def test_the_texts_of_the_demo_are_a_csv_like_anyones(demo_of, classifier):
    """The file in the report folder is read back as what was learned from."""
    path = demo_of("text_classifier").report / "texts.csv"
    assert len(classifier.module.texts_of(str(path)).held_out) == demo_of("text_classifier").found["held_out_texts"]


@pytest.mark.parametrize("model", ["text_classifier", "text_transformer"])
def test_odd_texts_are_answered(client, model):
    """Nothing, spaces, unknown words, other scripts, very long: each alone as in one request with the others."""
    together = client.model(model)(text=rows(*ODD))
    assert together["label"].shape == together["probability"].shape == (len(ODD), 1)
    for number, text in enumerate(ODD):
        alone = client.model(model)(text=rows(text))
        assert alone["label"][0, 0] == together["label"][number, 0]
        np.testing.assert_allclose(alone["probability"][0], together["probability"][number], atol=1e-5)


@pytest.mark.parametrize(("model", "step"), [("text_classifier", "words"), ("text_transformer", "tokens")])
def test_bytes_that_are_not_utf_8_fail_their_own_request_only(client, model, step):
    """INVALID_ARGUMENT names the step and shows nothing of the text; callers beside it get their answers."""
    stop, failed = Event(), []

    def ask() -> None:
        while not stop.is_set():
            try:
                client.model(model)(text=rows("Return a new array of zeros."))
            except ClientError as exc:
                failed.append(exc)

    caller = Thread(target=ask)
    caller.start()
    try:
        for _ in range(20):
            with pytest.raises(ClientError, match=f"step '{step}' of {model}") as caught:
                client.model(model)(text=rows("fine", b"secret \xff\xfe"))
            assert caught.value.status == "INVALID_ARGUMENT"
            assert "secret" not in str(caught.value)
    finally:
        stop.set()
        caller.join()
    assert failed == []


@pytest.mark.parametrize(("model", "largest"), [("text_classifier", 64), ("text_transformer", 32)])
def test_requests_without_rows_or_with_too_many_are_refused(client, model, largest):
    """The message has the number of rows; the largest batch is answered."""
    assert len(client.model(model)(text=rows(*["some words"] * largest))["label"]) == largest
    with pytest.raises(ClientError, match=str(largest)):
        client.model(model)(text=rows(*["some words"] * (largest + 1)))
    with pytest.raises(ClientError):
        client.model(model)(text=np.empty((0, 1), object))


def test_the_golden_pairs_come_out_of_the_served_pipeline(demo_of, running):
    """Both pipelines answer what was recorded at their export."""
    repository = Repository(demo_of("text_classifier").repository)
    for model in ("text_classifier", "text_transformer"):
        assert [found.ok for found in repository.verify_served(model, running.grpc_url)] == [True]


def test_another_csv_with_other_labels_is_the_next_version(demo_of, tmp_path):
    """With spaces, Unicode and another number of labels; the rollback brings the first labels back."""
    shutil.copytree(demo_of("text_classifier").repository, tmp_path / "models")
    repository = Repository(tmp_path / "models")
    labels = ["not ours", "zurück / 返品", "a,b", '"quoted"', "5"]
    data = write(tmp_path / "other texts.csv", topics(labels))
    export_recipe(load_recipe("text_classifier"), repository=repository, options={"data": data})
    with EmbeddedTriton(repository.path, models=["text_classifier"]) as triton, triton.client() as client:
        asked = rows(*(f"word{number} topic{number}" for number in range(len(labels))))
        assert [name.decode() for name in client.model("text_classifier")(text=asked)["label"].ravel()] == labels
        repository.rollback("text_classifier")
        client.load("text_classifier")
        assert client.model("text_classifier")(text=asked)["label"][0, 0] in {b"numpy", b"scipy", b"sklearn", b"torch"}


@pytest.mark.parametrize("ngrams", [1, 2, 3])
def test_words_are_counted_as_scikit_learn_counts_them(classifier, tmp_path, ngrams):
    """Odd texts included: the step's numbers make scikit-learn's matrix."""
    texts = [*(text for text in ODD), "The cat saw the cat. THE CAT!", "don't split x_1 naïve"] * 2
    data = write(tmp_path / "texts.csv", [(text, str(number % 2)) for number, text in enumerate(texts)])
    steps = classifier.pipeline(data=data, ngrams=ngrams)
    words = steps[0]
    found = words.function(rows(*texts), **words.options, vocabulary=str(words.files["vocabulary"]))
    vectorizer = classifier.module.fitted()[0]
    counted = np.zeros((len(texts), len(vectorizer.vocabulary_)))
    np.add.at(counted, (np.arange(len(texts))[:, None], found["words"]), found["counts"])
    expected = super(type(vectorizer), vectorizer).transform(texts).toarray()
    np.testing.assert_array_equal(counted, expected)


@pytest.mark.parametrize("num_labels", [2, 3, 50])
def test_every_probability_is_scikit_learns(classifier, tmp_path, num_labels):
    """Of two labels, for which scikit-learn keeps one score, and of fifty."""
    labels = [f"label {number}" for number in range(num_labels)]
    words, model, _ = classifier.pipeline(data=write(tmp_path / "texts.csv", topics(labels)))
    texts = [*ODD, *(text for text, _ in topics(labels, each=1))]
    found = words.function(rows(*texts), **words.options, vocabulary=str(words.files["vocabulary"]))
    with torch.inference_mode():
        scores = model.model.scores(torch.from_numpy(found["words"]), torch.from_numpy(found["counts"]))
    np.testing.assert_allclose(scores.softmax(dim=1), classifier.module.fitted().predict_proba(texts), atol=1e-6)


def test_texts_may_hold_commas_quotes_and_line_breaks(classifier, tmp_path):
    """As a spreadsheet writes them, with a mark in front, other columns, and line breaks of Windows."""
    text = 'id,label,text\r\n1,good,"said ""yes"", then\r\nleft"\r\n2,bad, plain \r\n\r\n3,good,x\r\n4,bad,y\r\n'
    (tmp_path / "texts.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = classifier.module.texts_of(str(tmp_path / "texts.csv"))
    assert sorted([*found.train, *found.held_out]) == sorted(
        [('said "yes", then\r\nleft', "good"), (" plain ", "bad"), ("x", "good"), ("y", "bad")]
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"texts.csv:1: there is no column text.*found nothing"),
        (b"body,label\nx,1\n", r"texts.csv:1: there is no column text.*found body, label"),
        (b"text,class\nx,1\n", r"texts.csv:1: there is no column label"),
        (b"text,label\n", r"texts.csv:2: there are no rows"),
        (b"text,label\nword,a\nword,a\n", r"all 2 rows have the label 'a'"),
        (b"text,label\nword,a\nword,a\nword,b\n", r"the label 'b' has one row"),
        (b'text,label\n"two\nlines",a\none, two,a\n', r"texts.csv:4: 3 fields where the first line has 2"),
        (b"text,label\nword\n", r"texts.csv:2: 1 fields"),
        (b"text,label\nword,a\nword, \n", r"texts.csv:3: the label is empty"),
        (b'text,label\n"never closed,a\n', r"texts.csv:\d: .*end of data"),
        (b"text,label\nword,a\ncaf\xe9,b\n", r"texts.csv:3: byte 0xe9 is not UTF-8"),
        (b"text,label\nword,a\nwo\0rd,b\n", r"texts.csv:3: a NUL byte"),
        ("text,label\n".encode("utf-16"), r"texts.csv:1: "),
    ],
)
@pytest.mark.parametrize("name", ["text_classifier", "text_transformer"])
def test_a_csv_that_does_not_fit_is_refused_with_its_line(tmp_path, name, content, message):
    """Nothing is published, and the message says what was expected."""
    (tmp_path / "texts.csv").write_bytes(content)
    with pytest.raises(ExportError, match=message):
        export_recipe(
            load_recipe(name), repository=Repository(tmp_path / "models"), options={"data": str(tmp_path / "texts.csv")}
        )
    assert Repository(tmp_path / "models").models() == ()


def test_texts_without_a_word_are_refused(classifier, tmp_path):
    """A word has two letters or digits: nothing could be counted."""
    data = write(tmp_path / "texts.csv", [("1", "a"), ("2", "b")] * 2)
    with pytest.raises(ExportError, match="no text has a word of two letters"):
        classifier.pipeline(data=data)


def test_a_file_that_is_not_there_is_named(classifier, tmp_path):
    """Also a folder."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(ExportError, match="there is no file"):
            classifier.pipeline(data=str(path))

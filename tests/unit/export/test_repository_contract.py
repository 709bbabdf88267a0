"""What a new version may change of what is published: what breaks clients is refused, the rest is kept and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from export_helpers import contents
from naiad.export import ContractChanged, Repository
from verbs_helpers import publish_graph

Change = Callable[[Any], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def merge(text: str) -> Change:
    """Return a change that merges text into a configuration."""
    return lambda config: text_format.Merge(text, config) and None


def clear(config: Any, *path: str) -> Any:
    """Return the first input or output after clearing its fields."""
    tensor = config.input[0] if path[0] == "input" else config.output[0]
    for field in path[1:]:
        tensor.ClearField(field)
    return tensor


def rename_input(config: Any) -> None:
    config.input[0].name = "z"


def drop_output(config: Any) -> None:
    config.output.pop()


def other_dims(config: Any) -> None:
    clear(config, "output", "dims").dims.extend([5])


def dynamic_output(config: Any) -> None:
    clear(config, "output", "dims").dims.extend([-1])


def smaller_input(config: Any) -> None:
    clear(config, "input", "dims").dims.extend([2])


def more_dims(config: Any) -> None:
    clear(config, "input", "dims").dims.extend([2, 2])


def other_type(config: Any) -> None:
    config.input[0].data_type = 10  # TYPE_FP16


def ragged(config: Any) -> None:
    config.input[0].allow_ragged_batch = True


def reshaped(config: Any) -> None:
    config.output[0].reshape.shape.extend([3, 1])


def other_backend(config: Any) -> None:
    config.backend, config.default_model_filename = "pytorch", "model.pt2"


BREAKING: list[tuple[Change, str]] = [
    (rename_input, r"input 'x' is FP32 \[4\] and would be absent; input 'z' is absent and would be FP32 \[4\]"),
    (merge('input { name: "more" data_type: TYPE_INT64 dims: [ 2 ] }'), r"'more' is absent and would be INT64 \[2\]"),
    (drop_output, r"output 'y' is FP32 \[3\] and would be absent"),
    (other_dims, r"output 'y' is FP32 \[3\] and would be FP32 \[5\]"),
    (dynamic_output, r"output 'y' is FP32 \[3\] and would be FP32 \[\?\]"),
    (smaller_input, r"input 'x' is FP32 \[4\] and would be FP32 \[2\]"),
    (more_dims, r"input 'x' is FP32 \[4\] and would be FP32 \[2, 2\]"),
    (other_type, r"input 'x' is FP32 \[4\] and would be FP16 \[4\]"),
    (ragged, "input 'x' is plain and would be allow_ragged_batch: true"),
    (merge("model_transaction_policy { decoupled: true }"), "is one answer and would be any number of answers"),
    (
        merge('sequence_batching { control_input { name: "START" control { kind: CONTROL_SEQUENCE_START } } }'),
        "the scheduling is each request by itself and would be sequences",
    ),
]


@pytest.mark.parametrize(("change", "message"), BREAKING)
def test_what_breaks_a_client_is_refused(root: Path, change: Change, message: str) -> None:
    """Names, types, dims, the number of answers and the state: nothing is published, and a new name is advised."""
    publish_graph(root)
    before = contents(root)
    with pytest.raises(ContractChanged, match=message) as caught:
        publish_graph(root, change=change)
    assert "its clients rely on it" in str(caught.value)
    assert "publish this model under a new name, such as linear-v2 (naiad export --name)" in str(caught.value)
    assert caught.value.changes
    assert contents(root) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            merge('output { name: "more" data_type: TYPE_FP32 dims: [ 2 ] }'),
            r"'more' is absent and would be FP32 \[2\]",
        ),
        (reshaped, r"output 'y' is \[3\] inside the model and would be \[3, 1\] inside the model"),
        (other_backend, r"the backend is onnxruntime model\.onnx and would be pytorch model\.pt2"),
    ],
)
def test_what_the_other_versions_do_not_have_is_refused(root: Path, change: Change, message: str) -> None:
    """No client would notice, but all versions share one configuration, and the earlier ones would not load with it."""
    publish_graph(root)
    with pytest.raises(ContractChanged, match=message) as caught:
        publish_graph(root, change=change)
    assert "all its versions share one configuration" in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (("a", "b", "c"), ("a", "c", "b"), "is 'b' for class 1 and would be 'c'"),
        (("a", "b", "c"), ("a", "b"), r"is 3 labels \(\w{8}\) and would be 2 labels"),
        (("a", "b", "c"), (), r"is 3 labels and would be none. .*give the same labels again, or publish"),
        ((), ("a", "b", "c"), r"is none and would be 3 labels. .*name the labels in config.pbtxt by hand"),
    ],
)
def test_labels_are_part_of_the_contract(
    root: Path, before: tuple[str, ...], after: tuple[str, ...], message: str
) -> None:
    """A client that asks for classes reads them by their labels: the same ones, in the same order."""
    publish_graph(root, labels=before)
    with pytest.raises(ContractChanged, match=message):
        publish_graph(root, labels=after)


@pytest.mark.parametrize(("largest", "words"), [(4, "max_batch_size is 8 and would be 4"), (0, "no batch dimension")])
def test_a_smaller_batch_is_refused(root: Path, largest: int, words: str) -> None:
    """Clients may send the largest batch; the advice is to export for it."""
    publish_graph(root)
    with pytest.raises(ContractChanged, match=words) as caught:
        publish_graph(root, max_batch_size=largest)
    assert ("export it with max_batch_size 8 or more, or publish" in str(caught.value)) == bool(largest)


def test_a_larger_batch_is_published_and_the_configuration_kept(root: Path) -> None:
    """The earlier versions were not verified beyond their own largest batch, so the server goes on refusing more."""
    publish_graph(root)
    assert publish_graph(root, max_batch_size=16).number == 2
    repo = Repository(root)
    assert repo.config("linear").max_batch_size == 8
    assert repo.manifest("linear", 2)["contract"]["max_batch_size"] == 16
    assert repo.verify("linear", 2).ok


def test_an_input_that_takes_more_sizes_is_published(root: Path) -> None:
    """The published configuration narrows it as before, which Triton allows for inputs."""
    publish_graph(root)

    def wider(config: Any) -> None:
        clear(config, "input", "dims").dims.extend([-1])

    assert publish_graph(root, change=wider).number == 2
    assert list(Repository(root).config("linear").input[0].dims) == [4]


def test_what_is_kept_is_said(root: Path, tmp_path: Path) -> None:
    """Checking the contract before a publication returns what the configuration keeps, as findings of the export."""
    publish_graph(root)
    repo = Repository(root)
    config = repo.config("linear")
    config.max_batch_size = 32
    (finding,) = repo.check_contract("linear", config, tmp_path)
    assert finding.check == "contract"
    assert finding.message == "max_batch_size stays 8 in the published configuration; this version takes 32"


def test_an_owner_may_tune_what_is_no_contract(root: Path) -> None:
    """Instances, batching, waiting times and a renamed platform are the owner's: the next version is published."""
    publish_graph(root)
    config = root / "linear" / "config.pbtxt"
    tuned = config.read_text().replace('backend: "onnxruntime"\n', 'platform: "onnxruntime_onnx"\n')
    config.write_text(f"{tuned}dynamic_batching {{ max_queue_delay_microseconds: 70 }}\n")
    assert publish_graph(root).number == 2
    assert Repository(root).config("linear").dynamic_batching.max_queue_delay_microseconds == 70


def test_a_configuration_that_no_longer_fits_is_found(root: Path) -> None:
    """`verify` says where config.pbtxt or the labels are not those that a version was published with."""
    publish_graph(root, labels=("a", "b", "c"))
    repo = Repository(root)
    assert repo.verify("linear", 1).ok
    (root / "linear" / "labels.txt").write_text("a\nc\nb\n")
    config = root / "linear" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 64"))
    found = repo.verify("linear", 1)
    assert found.problems == ()
    assert any("labelling of output 'y'" in each for each in found.unfit)
    assert "max_batch_size is 64 in config.pbtxt and 8 in the manifest" in found.unfit
    assert not found.ok


@pytest.mark.parametrize("damage", ["labels", "config"])
def test_what_hides_the_contract_is_a_finding(root: Path, damage: str) -> None:
    """Labels that are gone and a configuration that is none are found like anything else."""
    publish_graph(root, labels=("a", "b", "c"))
    if damage == "labels":
        (root / "linear" / "labels.txt").unlink()
    else:
        (root / "linear" / "config.pbtxt").write_text("nonsense")
    found = Repository(root).verify("linear", 1)
    assert not found.ok
    labels, config = "names the labels labels.txt, which are not there", "not a Triton model configuration"
    assert (labels if damage == "labels" else config) in found.unfit[0]


def test_a_version_that_was_copied_is_found(root: Path) -> None:
    """A directory copied under another number is whole, and not what it claims to be."""
    version = publish_graph(root)
    version.path.rename(version.path.with_name("4"))
    (problem,) = Repository(root).verify("linear", 4).problems
    assert problem == "manifest.json is that of linear version 1: the directory was copied or renamed"

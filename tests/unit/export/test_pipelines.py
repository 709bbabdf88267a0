"""Pipelines: what steps may be, how they fit together, and how what is wrong with them is reported."""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pipeline_helpers
from export_helpers import contents, run_naiad
from export_publisher import publish as publish_plain
from naiad.export import (
    ContractChanged,
    CorruptVersion,
    ExportError,
    InvalidExport,
    InvalidRecipe,
    Metric,
    RecipeFailed,
    Repository,
    StepInUse,
    VerificationFailed,
    export_pipeline,
    load_recipe,
)
from naiad.export._pipeline import source
from naiad.export._repository import golden
from naiad.export.steps import Function, Model, decode_image, tokenize
from pipeline_helpers import assert_wired, lengths, net, publish, publish_again

STATE = {"factor": 1.0}
HERE = os.environ.get("NAIAD_NO_SUCH_VARIABLE", "nothing")


def double(x):
    return {"y": x * 2}


def half(y):
    return {"z": (y / 2).astype(np.float32)}


def raises(x):
    raise KeyError("a key")


def by_state(x):
    return {"y": x * np.float32(STATE["factor"])}


def by_directory(x):
    return {"y": x * np.loadtxt("factor.txt", dtype=np.float32)}


def by_name(x):
    return {"y": x * _factor()}  # noqa: F821 - made in the test


def by_neighbour(x):
    import pipeline_helpers

    return {"y": x * np.float32(pipeline_helpers.SCALE)}


def total(x):
    return {"y": x.sum()}


def sometimes_wide(x):
    return {"y": x.astype(np.float64 if len(x) == 3 else np.float32)}


def objects(x):
    return {"y": np.array([[{}]] * len(x), object)}


def plain(x):
    return x * 2


def with_options(x, *, factor, table=None):
    return {"y": x * np.float32(factor)}


@functools.cache
def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def from_file(x, *, names: str):
    return {"name": np.array(lines(names))[x[:, 0].astype(int)][:, None]}


def numbers(rows: int = 4, columns: int = 2) -> list[dict[str, np.ndarray]]:
    return [{"x": np.arange(rows * columns, dtype=np.float32).reshape(rows, columns) % 3}]


def export_numbers(tmp_path: Path, *steps: Any, **more: Any) -> Repository:
    order: dict[str, Any] = {"samples": numbers(), "max_batch_size": 4} | more
    export_pipeline(list(steps), "some", repository=tmp_path / "models", **order)
    return Repository(tmp_path / "models")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One published pipeline; a test that changes it takes a copy."""
    path = tmp_path_factory.mktemp("words") / "models"
    publish(path)
    return path


@pytest.fixture
def models(words: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(words, tmp_path / "models"))


class TestWhatIsPublished:
    def test_each_step_is_a_model_and_the_ensemble_is_wired_to_their_versions(self, words: Path) -> None:
        """Four models come from three steps; types and dims are those that the samples showed."""
        repo = Repository(words)
        assert repo.models() == ("words", "words_lengths", "words_net", "words_verdict")
        config = repo.config("words")
        steps = [(step.model_name, step.model_version) for step in config.ensemble_scheduling.step]
        assert steps == [("words_lengths", 1), ("words_net", 1), ("words_verdict", 1)]
        assert [(tensor.name, list(tensor.dims)) for tensor in (*config.input, *config.output)] == [
            ("text", [1]),
            ("verdict", [1]),
            ("total", [1]),
        ]
        assert [list(tensor.dims) for tensor in repo.config("words_net").input] == [[-1]]
        (*_, scalar) = repo.config("words_verdict").output
        assert (scalar.name, scalar.HasField("reshape")) == ("total", True)
        assert_wired(words)

    def test_a_step_has_its_code_and_what_it_uses_and_no_more(self, words: Path) -> None:
        """`step.py` has the function, its constants and imports; `requirements.txt` has the packages."""
        repo = Repository(words)
        code = (repo.version("words_verdict", 1).path / "step.py").read_text()
        assert "OFFSET = 0.5" in code
        assert not any(word in code for word in ("SCALE", "onnx", "Repository"))
        assert (repo.version("words_verdict", 1).path / "requirements.txt").read_text() == "numpy\n"
        assert repo.manifest("words", 1)["pipeline"]["steps"][2]["requirements"] == ["numpy"]

    def test_bytecode_cannot_be_written_into_a_version(self, words: Path) -> None:
        """The functions ran from their version's directory, and it is still what was published."""
        assert (words / "words_lengths" / "1" / "__pycache__").is_file()
        assert Repository(words).verify("words_lengths", 1).ok

    def test_golden_pairs_are_those_of_the_python_pipeline(self, words: Path) -> None:
        """Text goes in as bytes, and what came out in Python is the answer."""
        pairs = golden.read(words / "words" / "1" / "golden.npz", {})
        assert {pair.num_rows for pair in pairs} == {1, 2, 3, 5}
        for pair in pairs:
            rows = [row.decode() for row in pair.inputs["text"].ravel()]
            verdicts, totals = pipeline_helpers.in_python(rows)
            assert pair.outputs["verdict"].ravel().tolist() == verdicts
            assert pair.outputs["total"].tolist() == totals

    def test_the_report_is_about_the_whole(self, words: Path) -> None:
        """Parity of the outputs, and the batches that were compared."""
        report = Repository(words).version("words", 1).report
        assert report is not None
        assert [parity.output for parity in report.parity] == ["verdict", "total"]
        assert report.batches == (1, 2, 3, 5)

    def test_a_pipeline_without_batches(self, tmp_path: Path) -> None:
        """With max_batch_size 0 shapes are whatever the functions make of them."""
        repo = export_numbers(
            tmp_path, Function("total", lambda_free_sum), samples=[{"x": np.ones(3, np.float32)}], max_batch_size=0
        )
        assert [list(tensor.dims) for tensor in repo.config("some").output] == [[1]]

    def test_outputs_are_chosen_and_renamed(self, tmp_path: Path) -> None:
        """Outputs may come from any step, under other names than the function's own."""
        steps = [Function("double", double, outputs={"y": "twice"}), Function("half", half, inputs={"y": "twice"})]
        repo = export_numbers(tmp_path, *steps, outputs=["z", "twice"])
        assert [tensor.name for tensor in repo.config("some").output] == ["z", "twice"]
        assert [tensor.name for tensor in repo.config("some_double").output] == ["y"]

    def test_a_setting_goes_to_the_step_that_it_names(self, tmp_path: Path) -> None:
        """By the step's own argument, or by its name before the field; the ensemble has a few of its own."""
        step = Function("double", double, settings={"parameters.EXECUTION_ENV_PATH": "/opt/env"})
        settings = {"double.instance_group.0.count": 2, "parameters.owner": "me"}
        repo = export_numbers(tmp_path, step, settings=settings)
        config = repo.config("some_double")
        assert config.instance_group[0].count == 2
        assert config.parameters["EXECUTION_ENV_PATH"].string_value == "/opt/env"
        assert repo.config("some").parameters["owner"].string_value == "me"

    def test_options_and_files_travel(self, tmp_path: Path) -> None:
        """A file lies in the version, and the function reads it from there."""
        (tmp_path / "names.txt").write_text("zero\none\ntwo\n")
        repo = export_numbers(tmp_path, Function("name", from_file, files={"names": tmp_path / "names.txt"}))
        (tmp_path / "names.txt").unlink()
        (pair, *_) = golden.read(repo.path / "some" / "1" / "golden.npz", {})
        assert pair.outputs["name"].ravel().tolist() == [b"zero", b"two", b"one", b"zero"]
        assert (repo.path / "some_name" / "1" / "names.txt").read_text() == "zero\none\ntwo\n"


def lambda_free_sum(x):
    return {"y": x.sum(keepdims=True)}


WRONG_STEPS: list[tuple[list[Any], type[ExportError], str]] = [
    ([], InvalidRecipe, "a list of at least one step"),
    (["decode"], InvalidRecipe, "has str as a step; expected Function or Model"),
    ([Function("a", double), Function("a", half)], InvalidRecipe, "two steps are called 'a'"),
    ([Function("a", half)], InvalidRecipe, r"step 'a' needs the tensor 'y', which neither .* there are x"),
    ([Function("a", double, inputs={"z": "x"})], InvalidRecipe, r"maps the input 'z', .* it takes: x"),
    ([Function("a", double, outputs={"z": "x"})], InvalidRecipe, r"renames the output 'z'; it gives y"),
    ([Function("a", double), Function("b", double)], InvalidRecipe, "step 'b' gives the tensor 'y', which there is"),
    (
        [Function("a", raises)],
        RecipeFailed,
        r"test_pipelines.py:\d+: step 'a' failed at batch 4 with KeyError: 'a key'",
    ),
    ([Function("a", plain)], RecipeFailed, "step 'a' .* returned 1 ndarray without a name; expected a dict"),
    ([Function("a", objects)], RecipeFailed, "'y' has dict in it; expected numbers, or str and bytes only"),
    ([Function("a", total)], InvalidRecipe, r"step 'a' gives 'y' with the shape \[\] at batch 4; its first dimension"),
    ([Function("a", sometimes_wide)], InvalidRecipe, "gives 'y' as float64 of rank 2 at batch 3, and as float32"),
    ([Function("a", double), Function("b", plain, outputs=["z"])], InvalidRecipe, "gives y, which nothing uses"),
    ([Function("a", with_options)], InvalidRecipe, r"with the options and files none; expected tensors by name"),
    ([Function("a", double, options={"k": 1})], InvalidRecipe, r"options and files \['k'\]"),
    ([Function("a", with_options, options={"factor": 1 + 0j})], RecipeFailed, "float.* argument must be"),
    ([Function("a", lambda x: {"y": x})], InvalidRecipe, "source cannot be taken along; expected a function defined"),
    ([Function("a", functools.partial(double))], InvalidRecipe, "source cannot be taken along"),
    ([Function("a", double, files={"k": "no/file"})], InvalidRecipe, "options and files"),
    (
        [Function("a", with_options, options={"factor": 1}, files={"table": "no/file"})],
        InvalidRecipe,
        "expected a file",
    ),
    ([Function("a", double, dynamic={"x": {1: "n"}})], InvalidRecipe, "declares the tensor 'x' dynamic; it gives y"),
    ([Function("a", double, dynamic={"y": {2: "n"}})], InvalidRecipe, "has 2 dimensions; found {2: 'n'}"),
    ([Function("a", by_neighbour)], InvalidRecipe, "step 'a' imports pipeline_helpers, which no installed package has"),
    ([Function("a", double, settings={"backend": "x"})], InvalidExport, "'backend'"),
]


@pytest.mark.parametrize(("steps", "error", "message"), WRONG_STEPS, ids=[f"{item[2][:40]}" for item in WRONG_STEPS])
def test_steps_that_do_not_fit(tmp_path: Path, steps: list[Any], error: type[ExportError], message: str) -> None:
    """Each mistake is one sentence that names the step, and nothing is published."""
    with pytest.raises(error, match=message):
        export_numbers(tmp_path, *steps)
    assert contents(tmp_path / "models") == []


WRONG_ORDERS: list[tuple[dict[str, Any], str]] = [
    ({"samples": []}, "a list with at least one dict"),
    ({"samples": [(np.ones(3),)]}, "sample 0 is tuple; expected a dict"),
    ({"samples": [{"x": np.ones((2, 2), complex)}]}, "'x' is complex128; expected one of"),
    ({"samples": [*numbers(), {"x": np.ones((2, 2))}]}, "sample 1 has x float64, sample 0 has x float32"),
    ({"samples": [numbers()[0] | {"w": np.ones(3, np.float32)}]}, "the first dimension of every tensor is the batch"),
    ({"samples": [numbers()[0] | {"w": np.ones(4, np.float32)}]}, "the samples have 'w', which no step of some takes"),
    ({"outputs": ["q"]}, r"the outputs of some are \['q'\]; expected distinct names among .*: y"),
    ({"dynamic": {"q": {1: "n"}}}, "DYNAMIC names 'q', which is no input of the pipeline; those are: x"),
    ({"max_batch_size": -1}, "max_batch_size must be at least 0"),
    ({"settings": {"instance_group.0.count": 2}}, "no setting of an ensemble, .* of the step that is meant: double"),
    ({"settings": {"double.no_such_field": 1}}, "no_such_field"),
]


@pytest.mark.parametrize(("order", "message"), WRONG_ORDERS, ids=[message[:40] for _, message in WRONG_ORDERS])
def test_orders_that_do_not_fit(tmp_path: Path, order: dict[str, Any], message: str) -> None:
    """Samples, outputs and settings are refused before anything is published."""
    with pytest.raises((InvalidExport, InvalidRecipe), match=message):
        export_numbers(tmp_path, Function("double", double), **order)
    assert not (tmp_path / "models").exists() or contents(tmp_path / "models") == []


class TestOnTheServersSide:
    """What works in the recipe's process and would not on a server."""

    def test_a_step_that_leans_on_the_working_directory_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file beside the recipe is not there on the server."""
        (tmp_path / "factor.txt").write_text("2\n")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(VerificationFailed, match=r"step 'a' of some fails .*factor.txt not found") as caught:
            export_numbers(tmp_path, Function("a", by_directory))
        assert caught.value.step == "a"
        assert contents(tmp_path / "models") == []

    def test_a_step_whose_result_differs_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """State that was set in this process is not in the source; the first step that differs is told."""
        monkeypatch.setitem(STATE, "factor", 3.0)
        steps = [Function("first", double), Function("second", by_state, inputs={"x": "y"}, outputs={"y": "z"})]
        with pytest.raises(VerificationFailed, match=r"step 'second' of some is the first whose result .*") as caught:
            export_numbers(tmp_path, *steps)
        assert (caught.value.step, caught.value.output) == ("second", "z")

    def test_a_name_that_nothing_defines(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name that only this process has is refused with the line of the function."""
        monkeypatch.setitem(globals(), "_factor", lambda: np.float32(2))
        with pytest.raises(InvalidRecipe, match=r"test_pipelines.py:\d+: step 'a' uses '_factor', which nothing"):
            export_numbers(tmp_path, Function("a", by_name))

    def test_another_type_than_a_graph_takes_is_refused(self, tmp_path: Path) -> None:
        """Types that differ between two steps are told with the step that does not take them."""
        steps = [Function("wide", wide, outputs={"y": "vector"}), Model("net", net(tmp_path))]
        with pytest.raises(RecipeFailed, match=r"step 'net' failed .* is float64 \[4, 2\]; net.onnx takes float32"):
            export_numbers(tmp_path, *steps)

    def test_a_metric_that_falls_stops_the_export(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The task is measured with the Python pipeline and with the chain."""
        seen = []

        def evaluate(predict) -> float:
            found = predict({"x": np.ones((9, 2), np.float32)})["y"]
            seen.append(found.shape)
            return 1.0 / len(seen)

        metric = Metric("score", evaluate, max_drop="10%")
        with pytest.raises(VerificationFailed, match=r"score of some is 0\.5 on the server's side and 1 in Python"):
            export_numbers(tmp_path, Function("double", double), metric=metric)
        assert seen == [(9, 2), (9, 2)]
        repo = export_numbers(tmp_path, Function("double", double), metric=Metric("same", lambda predict: 1.0))
        report = repo.version("some", 1).report
        assert report is not None
        assert report.metric is not None


def wide(x):
    return {"y": x.astype(np.float64)}


class TestVersions:
    def test_promote_and_rollback_take_the_steps_along(self, models: Path) -> None:
        """The wiring changes with the version; steps serve what is wired now and what was before."""
        repo = Repository(models)
        for number in (2, 3):
            publish_again(models, scale=number)
            assert_wired(models)
        assert [repo.served(model) for model in repo.models()] == [(3,), (2, 3), (2, 3), (2, 3)]
        assert repo.rollback("words") == (2,)
        assert_wired(models)
        assert repo.rollback("words") == (1,)
        assert_wired(models)
        assert repo.served("words_net") == (1, 2)
        repo.promote("words", 3)
        assert_wired(models)
        assert repo.served("words_net") == (1, 3)

    def test_an_unpromoted_version_changes_nothing_that_is_served(self, models: Path) -> None:
        """Its steps lie unused until it is promoted."""
        repo = Repository(models)
        publish_again(models, promote=False)
        assert [repo.served(model) for model in repo.models()] == [(1,)] * 4
        repo.promote("words", 2)
        assert_wired(models)

    def test_two_versions_cannot_be_served_at_once(self, models: Path) -> None:
        """One configuration wires the steps of one version."""
        publish_again(models)
        with pytest.raises(InvalidExport, match=r"words is a pipeline, .* of one version; found versions 1, 2"):
            Repository(models).promote("words", 1, 2)
        assert_wired(models)

    def test_a_step_cannot_be_taken_away_from_its_pipeline(self, models: Path) -> None:
        """Neither by a promotion, nor by an export to its name; serving more than the pipeline needs is allowed."""
        repo = Repository(models)
        publish_again(models)
        with pytest.raises(StepInUse, match="words_net is a step of the pipeline words, which needs its version 2"):
            repo.promote("words_net", 1)
        publish_plain(repo, "alone")
        repo.promote("words_net", 2)
        repo.promote("words_net", 1, 2)
        assert_wired(models)

    def test_pruning_keeps_what_versions_are_wired_to(self, models: Path) -> None:
        """A step's version goes only after the pipeline's."""
        repo = Repository(models)
        for _ in range(3):
            publish_again(models)
        assert repo.prune("words_net", keep=1, force=True).removed == ()
        assert repo.prune("words", keep=1).removed == (1, 2)
        assert repo.prune("words_net", keep=1, force=True).removed == (1, 2)
        assert_wired(models)

    def test_verify_and_promote_see_a_step_that_was_changed(self, models: Path) -> None:
        """A pipeline is what was published if its steps are."""
        repo = Repository(models)
        publish_again(models)
        with (models / "words_verdict" / "1" / "step.py").open("a") as file:
            file.write("# changed\n")
        assert any(
            "words_verdict version 1: step.py was changed" in problem for problem in repo.verify("words", 1).problems
        )
        assert repo.verify("words", 2).ok
        with pytest.raises(CorruptVersion, match=r"words_verdict version 1: step.py was changed"):
            repo.rollback("words")
        (models / "words_lengths" / "1" / "manifest.json").unlink()
        assert "its step words_lengths version 1 is missing" in repo.verify("words", 1).problems

    def test_a_step_that_was_replaced_together_with_its_manifest_is_found(self, models: Path) -> None:
        """A pipeline's manifest has the hashes of its steps' manifests, so that one signature covers all of it."""
        publish_again(models, offset=7.0, promote=False)
        first, second = (models / "words_verdict" / number for number in "12")
        manifest = json.loads((second / "manifest.json").read_text()) | {"version": 1}
        for name in ("step.py", "export-report.html"):
            if (second / name).exists():
                (first / name).write_bytes((second / name).read_bytes())
        (first / "manifest.json").write_text(json.dumps(manifest))
        repo = Repository(models)
        assert repo.verify("words_verdict", 1).problems == ()
        (problem,) = repo.verify("words", 1).problems
        assert problem == "its step words_verdict version 1 has another manifest.json than was published with it"

    def test_other_tensors_between_the_steps_are_refused_before_anything_is_published(
        self, models: Path, tmp_path: Path
    ) -> None:
        """A step's versions share a configuration, so that the pipeline's old version could not be served again."""
        before = contents(models)
        steps = [
            Function("lengths", lengths, dynamic={"vector": {1: "words"}}),
            Model("net", net(tmp_path)),
            Function("verdict", pipeline_helpers.verdict_of_doubles, options={"names": ["many", "long"]}),
        ]
        with pytest.raises(ContractChanged, match="words_verdict is already published"):
            publish(models, steps=steps)
        assert contents(models) == before

    @pytest.mark.parametrize("delay_ms", [5, 20, 50, 100])
    def test_killed_at_any_moment_the_served_pipeline_is_whole(self, models: Path, delay_ms: int) -> None:
        """A publisher that is killed leaves the old pipeline or the new one, wired to steps that are served."""
        command = [sys.executable, pipeline_helpers.__file__, str(models), "1000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "tests"}) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            time.sleep(delay_ms / 1000)
            process.send_signal(signal.SIGKILL)
        assert_wired(models)
        number = publish_again(models).number
        assert Repository(models).served("words") == (number,)
        assert_wired(models)


class TestSource:
    def test_only_what_a_function_uses_is_taken(self) -> None:
        """Other functions, names of arguments and annotations bring nothing along."""
        taken = source.take(double, "a")
        assert "import" not in taken.text.replace("from __future__ import annotations", "")
        assert taken.requirements == ("numpy",)
        assert "def lines" in source.take(from_file, "a").text
        assert "@functools.cache" in source.take(from_file, "a").text

    def test_packages_are_named_with_their_versions(self) -> None:
        """Also those that are imported within functions."""
        decode = decode_image("decode", size=(2, 2))
        taken = source.take(decode.function, "decode")
        assert taken.imports == ("PIL", "numpy")
        assert [item.partition("==")[0] for item in taken.requirements] == ["numpy", "pillow"]


class TestImages:
    def test_pixels_are_normalised_by_channel(self) -> None:
        """Mean and deviation are applied after the scale, channels come first."""
        step = decode_image("decode", size=(2, 3), mean=[0.5, 0.25, 0], std=[2, 1, 1])
        pixels = step.function(self.files("png", (51, 102, 255)), **step.options)["pixels"]
        assert pixels.shape == (1, 3, 2, 3)
        assert pixels.dtype == np.float32
        np.testing.assert_allclose(pixels[0, :, 0, 0], [(0.2 - 0.5) / 2, 0.4 - 0.25, 1.0], atol=1e-6)

    def test_a_crop_keeps_the_middle(self) -> None:
        """The sides of a wide image are cut off, where stretching would keep them."""
        image = Image.new("RGB", (30, 10), "red")
        image.paste("blue", (10, 0, 20, 10))
        file = io.BytesIO()
        image.save(file, "png")
        means = {}
        for fit in ("crop", "stretch"):
            step = decode_image("decode", size=(10, 10), fit=fit)
            means[fit] = step.function(np.array([[file.getvalue()]], object), **step.options)["pixels"][0, 0].mean()
        assert means["crop"] < 0.01
        assert means["stretch"] > 0.5

    @pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken"])
    def test_what_is_no_image_is_a_value_error(self, data: bytes) -> None:
        """So that the server answers INVALID_ARGUMENT."""
        step = decode_image("decode", size=(2, 2))
        with pytest.raises(ValueError, match="image"):
            step.function(np.array([[data]], object), **step.options)

    def test_a_truncated_file_is_a_value_error(self) -> None:
        """Half a file is no image."""
        data = self.files("png", (1, 2, 3), size=(64, 64))[0, 0]
        step = decode_image("decode", size=(2, 2))
        with pytest.raises(ValueError, match="cannot be decoded"):
            step.function(np.array([[data[: len(data) // 2]]], object), **step.options)

    @pytest.mark.parametrize(
        "wrong", [{"size": (0, 2)}, {"mode": "CMYK"}, {"fit": "tile"}, {"mean": [0.5]}, {"mode": "L", "std": [1, 1, 1]}]
    )
    def test_wrong_arguments(self, wrong: dict[str, Any]) -> None:
        """They are refused when the recipe is built."""
        with pytest.raises(InvalidRecipe, match="step 'decode' has size="):
            decode_image("decode", **({"size": (2, 2)} | wrong))

    def files(self, kind: str, colour: tuple[int, int, int], size: tuple[int, int] = (4, 4)) -> np.ndarray:
        file = io.BytesIO()
        Image.new("RGB", size, colour).save(file, kind)
        return np.array([[file.getvalue()]], object)


class TestTokens:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        from tokenizers import Tokenizer, models, pre_tokenizers

        words = {"[PAD]": 0, "[UNK]": 1, "one": 2, "two": 3, "three": 4}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        return tmp_path / "tokenizer.json"

    @pytest.mark.parametrize(
        ("options", "length"),
        [({}, 3), ({"multiple_of": 4}, 4), ({"padding": "max_length"}, 8)],
        ids=["longest", "multiple", "max_length"],
    )
    def test_padding(self, file: Path, options: dict[str, Any], length: int) -> None:
        """To the longest of a request, to a multiple, or always to the largest length."""
        tokens = self.tokens(tokenize("tokens", file, max_length=8, **options), ["one two three", "two"])
        assert tokens["ids"].tolist() == [[2, 3, 4] + [0] * (length - 3), [3] + [0] * (length - 1)]
        assert tokens["mask"].sum(1).tolist() == [3, 1]
        assert tokens["ids"].dtype == np.int64

    def test_long_texts_are_cut(self, file: Path) -> None:
        """At max_length."""
        assert self.tokens(tokenize("tokens", file, max_length=2), ["one two three"])["ids"].tolist() == [[2, 3]]

    @pytest.mark.parametrize(
        "wrong", [{"max_length": 0}, {"padding": "none"}, {"multiple_of": 3}, {"multiple_of": 0}, {"tokenizer": "none"}]
    )
    def test_wrong_arguments(self, file: Path, wrong: dict[str, Any]) -> None:
        """They are refused when the recipe is built."""
        with pytest.raises(InvalidRecipe, match="step 'tokens' has"):
            tokenize(**({"name": "tokens", "tokenizer": file, "max_length": 8} | wrong))

    def tokens(self, step: Function, text: list[str]) -> dict[str, np.ndarray]:
        array = np.array([[row.encode()] for row in text], object)
        return step.function(array, **step.options, tokenizer=str(step.files["tokenizer"]))


RECIPE = """\
import numpy as np
from naiad.export.steps import Function

LABELS = ["even", "odd"]
MAX_BATCH_SIZE = 4

def pipeline(shift: int = 0):
    return [Function("parity", parity, options={"shift": shift})]

def parity(number, *, shift):
    return {"parity": np.array(LABELS)[(number + shift) % 2]}

def samples():
    return [{"number": np.arange(5)[:, None]}]
"""


class TestRecipes:
    def test_a_recipe_of_functions_by_the_command(self, tmp_path: Path) -> None:
        """`naiad export` publishes the pipeline of a recipe; show and verify know it."""
        (tmp_path / "parity.py").write_text(RECIPE)
        done = run_naiad("export", "parity.py", "-o", "shift=1", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["model"], found["served"]) == ("parity", [1])
        shown = run_naiad("models", "show", "parity", cwd=tmp_path)
        assert "parity_parity version 1 (function, needs numpy)" in shown.stdout
        repo = Repository(tmp_path / "model_repository")
        assert repo.verify("parity", 1).ok
        manifest = repo.manifest("parity_parity", 1)
        assert manifest["source"]["options"] == {"shift": 1}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (RECIPE + "def build(): pass\n", r"defines build\(\) and pipeline\(\)"),
            (RECIPE.replace("def samples", "def no_samples"), r"defines no samples\(\)"),
            (RECIPE.replace("return [Function", "return (Function").replace("shift})]", "shift}))"), "expected a list"),
        ],
    )
    def test_recipes_that_are_wrong(self, tmp_path: Path, text: str, message: str) -> None:
        """The message says what a recipe needs."""
        (tmp_path / "parity.py").write_text(text)
        with pytest.raises((InvalidRecipe, RecipeFailed), match=message):
            load_recipe(tmp_path / "parity.py").pipeline()

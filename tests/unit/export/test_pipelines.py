"""Pipelines: what steps may be, how they fit together, and how what is wrong with them is reported."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline_helpers
from export_helpers import contents, run_naiad
from naiad.export import (
    ExportError,
    InvalidExport,
    InvalidRecipe,
    Metric,
    RecipeFailed,
    Repository,
    VerificationFailed,
    export_pipeline,
    load_recipe,
)
from naiad.export._repository import golden
from naiad.export.steps import Function, Model
from pipeline_helpers import assert_wired, net, publish

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
    (["decode"], InvalidRecipe, "has str as a step; expected Function, Model or Script"),
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

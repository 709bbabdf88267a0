"""The models that a model calls, found by their configurations."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from naiad.client import ModelNotFound
from naiad.loadtest._data.pipeline import pipeline_of

PLAIN = 'backend: "onnxruntime"'


def ensemble(*steps: str) -> str:
    """Steps as ``model(needs, …)``: each makes a tensor of its own name; ``model:2=name(needs)`` is a version."""
    written = ""
    for step in steps:
        model, _, needs = step.rstrip(")").partition("(")
        model, _, made = model.partition("=")
        name, _, version = model.partition(":")
        inputs = "".join(f'input_map {{ key: "{tensor}" value: "{tensor}" }}' for tensor in needs.split(","))
        written += (
            f'step {{ model_name: "{name}" model_version: {version or -1} {inputs} '
            f'output_map {{ key: "y" value: "{made or name}" }} }}'
        )
    return f'platform: "ensemble" ensemble_scheduling {{ {written} }}'


def script(calls: str) -> str:
    return f'backend: "python" parameters {{ key: "naiad.calls" value {{ string_value: "{calls}" }} }}'


def found(tested: str, **others: str):
    """The pipeline of ``tested``, whose neighbours are ``others``; those that are missing are refused."""

    def config_of(name: str, version: str | None) -> model_config_pb2.ModelConfig:
        del version
        if name not in others:
            raise ModelNotFound(f"no model '{name}'", model=name)
        return text_format.Parse(f'name: "{name}" {others[name]}', model_config_pb2.ModelConfig())

    return pipeline_of(text_format.Parse(f'name: "tested" {tested}', model_config_pb2.ModelConfig()), config_of)


def shown(pipeline):
    return [(step.model, step.version, step.kind, step.depth, step.callers, step.calls) for step in pipeline.steps]


def test_a_plain_model_has_no_steps_and_asks_nothing():
    """No question goes to the server for a model that calls no other."""
    assert found(PLAIN) is None
    assert found(script("")) is None
    assert found(script(" , ")) is None


def test_the_steps_of_an_ensemble_come_in_their_order():
    """-1 is the newest version, another number that one; nothing runs at the same time."""
    pipeline = found(ensemble("b(x)", "a:3(b)"), a=PLAIN, b=PLAIN)
    assert shown(pipeline) == [
        ("b", None, "model", 1, ("tested",), 1),
        ("a", "3", "model", 1, ("tested",), 1),
    ]
    assert (pipeline.kind, pipeline.parallel, pipeline.notes) == ("ensemble", False, ())


def test_a_script_says_what_it_calls_and_decides_how_often():
    """Spaces and missing versions do no harm; how often each is called is not in the configuration."""
    pipeline = found(script("a:2, b:-1,c"), a=PLAIN, b=PLAIN, c=PLAIN)
    assert [(step.model, step.version, step.calls) for step in pipeline.steps] == [
        ("a", "2", None),
        ("b", None, None),
        ("c", None, None),
    ]
    assert pipeline.kind == "script"


def test_what_a_step_calls_stands_behind_it():
    """A script within an ensemble, an ensemble within the script: each model once, with all its callers."""
    pipeline = found(
        ensemble("first(x)", "code(first)", "last(code)"),
        first=PLAIN,
        code=script("inner:-1,last:-1"),
        inner=ensemble("deep(x)", "deep=again(deep)"),
        deep=PLAIN,
        last=PLAIN,
    )
    assert shown(pipeline) == [
        ("first", None, "model", 1, ("tested",), 1),
        ("code", None, "script", 1, ("tested",), 1),
        ("inner", None, "ensemble", 2, ("code",), None),
        ("deep", None, "model", 3, ("inner",), None),
        ("last", None, "model", 2, ("code", "tested"), None),
    ]


def test_calls_multiply_and_add_up():
    """A model that is named twice in an ensemble that is called twice is called four times, and once more directly."""
    pipeline = found(
        ensemble("inner(x)", "inner=second(inner)", "a=third(second)"),
        inner=ensemble("a(x)", "a=b(a)"),
        a=PLAIN,
    )
    assert {step.model: step.calls for step in pipeline.steps} == {"inner": 2, "a": 5}


@pytest.mark.parametrize(
    ("steps", "parallel"),
    [
        (("a(x)", "b(a)", "c(b)"), False),
        (("a(x)", "b(a)", "c(a)"), True),
        (("a(x)", "b(x)", "c(a,b)"), True),
        (("c(b)", "b(a)", "a(x)"), False),
    ],
)
def test_branches_may_run_at_the_same_time(steps, parallel):
    """Two steps of which neither needs the other, in whatever order they are written."""
    assert found(ensemble(*steps), a=PLAIN, b=PLAIN, c=PLAIN).parallel is parallel


def test_a_refused_configuration_leaves_the_step():
    """It is there with its name, and a note says why nothing is known of what it calls."""
    pipeline = found(ensemble("a(x)", "hidden(a)"), a=PLAIN)
    assert [(step.model, step.kind) for step in pipeline.steps] == [("a", "model"), ("hidden", "unknown")]
    (note,) = pipeline.notes
    assert "hidden" in note


def test_an_optional_step_need_not_be_there():
    """A script that does without a model has no such step where that is not served, and nobody is told of it."""
    optional = ' parameters { key: "naiad.optional_calls" value { string_value: "b,c" } }'
    pipeline = found(script("a:1,b:1,c:2") + optional, a=PLAIN, c=PLAIN)
    assert [(step.model, step.version) for step in pipeline.steps] == [("a", "1"), ("c", "2")]
    assert pipeline.notes == ()


def test_a_script_may_call_itself():
    """Recursion ends: a model within its own calls is no step of it."""
    pipeline = found(script("tested:-1,other:-1"), other=script("tested:-1,other:-1,a:-1"), a=PLAIN)
    assert [step.model for step in pipeline.steps] == ["other", "a"]


def test_a_graph_of_many_paths_is_followed_for_a_moment_only():
    """Forty levels, each of which calls the next one twice by different ways, do not take two to the fortieth steps."""
    levels = {f"m{level}": script(f"m{level + 1}:-1,n{level + 1}:-1") for level in range(30)}
    levels |= {f"n{level}": script(f"m{level + 1}:-1,n{level + 1}:-1") for level in range(30)}
    pipeline = found(script("m0:-1,n0:-1"), **levels, m30=PLAIN, n30=PLAIN)
    assert len(pipeline.steps) == 62


def test_how_often_is_not_guessed_where_not_all_ways_were_followed():
    """Where the search ends early, a step's calls are not known rather than too few."""
    levels = {
        f"m{level}": ensemble(f"m{level + 1}(x)", f"m{level + 1}=y(x)", f"n{level + 1}(x)") for level in range(12)
    }
    levels |= {f"n{level}": ensemble(f"m{level + 1}(x)", f"n{level + 1}(x)") for level in range(12)}
    pipeline = found(ensemble("m0(x)", "n0(x)"), **levels, m12=PLAIN, n12=PLAIN)
    assert {step.model: step.calls for step in pipeline.steps}["m12"] is None


def test_only_so_many_models_are_watched():
    """The rest is left out, and the report says so."""
    others = {f"m{number}": PLAIN for number in range(100)}
    pipeline = found(script(",".join(f"{name}:-1" for name in others)), **others)
    assert len(pipeline.steps) == 64
    assert "more than 64 models" in pipeline.notes[0]

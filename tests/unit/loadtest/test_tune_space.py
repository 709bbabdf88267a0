"""What may be tuned, and the fields of the configuration that follow from a choice."""

from __future__ import annotations

from typing import Any

import pytest

from naiad.loadtest import InvalidPlan
from naiad.loadtest._tune.space import apply_settings
from tune_helpers import CONFIG, space


def changed(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in {**CONFIG, **fields}.items() if value is not None}


def test_the_current_configuration_changes_nothing() -> None:
    """Its choice stands for no settings, and is the first to be tried."""
    found = space()
    assert found.settings(found.current) == {}
    assert found.guesses()[0] == found.current


def test_values_that_nobody_would_guess_stay_possible() -> None:
    """A delay of 736 µs for 3 or 32 rows, found in the configuration, is among the choices."""
    config = changed(
        dynamic_batching={"preferred_batch_size": [3, 32], "max_queue_delay_microseconds": "736"},
        instance_group=[{"count": 3}],
    )
    found = space(config)
    assert found.current["delay_us"] in found.values["delay_us"]
    assert found.current["preferred"] in found.values["preferred"]
    assert 3 in found.values["instances"]
    assert found.settings(found.current) == {}


def test_a_choice_becomes_fields_of_the_configuration() -> None:
    """As Triton's JSON has them: what is not set is left as it is, what is taken out is None."""
    found = space()
    chosen = {"instances": 2, "threads": 2, "spinning": "off", "delay_us": 500, "preferred": "16"}
    assert found.settings(chosen) == {
        "instance_group": [{"count": 2}],
        "parameters.intra_op_thread_count": "2",
        "parameters.session.intra_op.allow_spinning": "0",
        "dynamic_batching": {"preferred_batch_size": [16], "max_queue_delay_microseconds": "500"},
    }
    assert found.settings({"batching": "off"}) == {"dynamic_batching": None}


def test_priorities_and_queue_policies_stay() -> None:
    """The tuner changes how batches are formed, not who goes first."""
    config = changed(dynamic_batching={"priority_levels": "2", "default_priority_level": "1"})
    assert space(config).settings({"delay_us": 100})["dynamic_batching"] == {
        "priority_levels": "2",
        "default_priority_level": "1",
        "max_queue_delay_microseconds": "100",
    }


def test_an_override_is_the_whole_configuration() -> None:
    """Fields are set and taken out, and a warm-up that would be too large goes."""
    found = apply_settings(
        CONFIG,
        {"max_batch_size": 8, "dynamic_batching": None, "parameters.session.intra_op.allow_spinning": "0"},
    )
    assert found["max_batch_size"] == 8
    assert "dynamic_batching" not in found
    assert found["parameters"]["session.intra_op.allow_spinning"] == {"string_value": "0"}
    assert found["parameters"]["intra_op_thread_count"] == {"string_value": "1"}
    assert [warmup["name"] for warmup in found["model_warmup"]] == ["one"]
    assert CONFIG["max_batch_size"] == 32


def test_choices_with_one_effect_are_one_choice() -> None:
    """Without batching there is no delay, without a delay no size is waited for, one thread does not spin."""
    found = space()
    assert found.canonical({**found.current, "batching": "off", "delay_us": 500}) == found.canonical(
        {**found.current, "batching": "off", "preferred": "8"}
    )
    assert found.canonical({**found.current, "preferred": "8"}) == found.current
    assert found.canonical({**found.current, "spinning": "off"}) == found.current


def test_delays_leave_time_for_the_work() -> None:
    """None is longer than half the objective."""
    assert max(space(limit_us=2_500.0).values["delay_us"]) == 1_000


def test_smaller_batches_are_tried_only_if_allowed() -> None:
    """They refuse requests that clients may send today."""
    assert "max_batch" not in space().values
    assert space(smaller_batches=True).values["max_batch"] == (4, 8, 16, 32)
    assert space(smaller_batches=True).settings({"max_batch": 8}) == {"max_batch_size": 8}


def test_other_backends_have_no_threads_to_tune() -> None:
    """Parameters of ONNX Runtime mean nothing to them."""
    found = space(changed(backend="python", parameters=None))
    assert not {"threads", "spinning"} & set(found.values)
    assert "thread" not in found.describe(found.current)


def test_stateful_models_are_not_batched_dynamically() -> None:
    """Their scheduler is the sequence batcher."""
    found = space(changed(sequence_batching={}, dynamic_batching=None))
    assert not {"batching", "delay_us", "preferred"} & set(found.values)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            changed(ensemble_scheduling={"step": [{"model_name": "tokens"}, {"model_name": "encoder"}]}),
            "tokens, encoder",
        ),
        (changed(instance_group=[{"count": 1}, {"count": 2}]), "2 instance groups"),
    ],
)
def test_what_cannot_be_tuned_is_refused(config: dict[str, Any], words: str) -> None:
    """With what to do instead."""
    with pytest.raises(InvalidPlan, match=words):
        space(config)


def test_one_core_and_no_batches_leave_nothing() -> None:
    """The message says so."""
    with pytest.raises(InvalidPlan, match="nothing to tune"):
        space(changed(max_batch_size=0, dynamic_batching=None), cores=1)

"""The gate's verdicts: what each one takes, and how often it is wrong."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

from naiad.loadtest._gate.decision import assess
from naiad.loadtest._gate.options import GateOptions
from naiad.loadtest.errors import InvalidPlan

ONE = GateOptions(metrics=("p50",), watched=())


def drawn(effect, noise, number=30, seed=0):
    return np.random.default_rng(seed).normal(effect, noise, number)


def verdict(differences, options=ONE, look=None):
    last = len(options.looks) - 1 if look is None else look
    return assess({"p50": differences}, options, last).verdict


@pytest.mark.parametrize(
    ("effect", "noise", "expected"),
    [
        (math.log(1.3), 0.1, "regression"),
        (math.log(1.05), 0.02, "no regression"),  # surely slower, but within the margin
        (0.0, 0.05, "no regression"),
        (math.log(0.7), 0.1, "no regression"),  # faster
        (0.0, 0.6, "inconclusive"),  # not significant is no pass
        (math.log(1.3), 1.5, "inconclusive"),
    ],
)
def test_three_verdicts(effect, noise, expected):
    """A regression takes proof and size, "no regression" takes proof that there is none of that size."""
    assert verdict(drawn(effect, noise)) == expected


def test_the_worst_metric_decides():
    """One regression among three metrics is one; one undecided metric keeps the others from passing."""
    options = GateOptions(watched=())
    last = len(options.looks) - 1
    same, slower, noisy = drawn(0, 0.05), drawn(0.3, 0.05, seed=1), drawn(0, 0.8, seed=2)
    worse = assess({"p50": same, "p90": slower, "throughput": same}, options, last)
    assert worse.verdict == "regression"
    assert [item.verdict for item in worse.judgements] == ["no regression", "regression", "no regression"]
    assert assess({"p50": same, "p90": noisy, "throughput": same}, options, last).verdict == "inconclusive"


def test_a_watched_metric_decides_nothing():
    """What is only watched is shown with its own verdict, and changes nothing."""
    options = GateOptions(metrics=("p50",), watched=("p99",))
    found = assess({"p50": drawn(0, 0.05), "p99": drawn(0.5, 0.05)}, options, len(options.looks) - 1)
    assert found.verdict == "no regression"
    assert found.judgements[1].verdict == "regression"


def test_more_pairs_see_smaller_effects():
    """The smallest effect that a gate can call falls with the noise and is never below its margin."""
    found = [assess({"p50": drawn(0, noise)}, ONE, 11).judgements[0].smallest_effect for noise in (0.05, 0.2, 0.5)]
    assert found == sorted(found)
    assert found[0] > ONE.margin


def test_a_blind_gate_is_known_after_its_first_look():
    """Noise that would hide the margin even in thirty pairs is told by eight, with what would help."""
    (item,) = assess({"p50": np.linspace(-1, 1, 8)}, ONE, 0).blind
    assert item.pairs_needed > 100
    assert item.margin_needed > 0.3
    assert not assess({"p50": np.linspace(-0.1, 0.1, 8)}, ONE, 0).blind


def test_what_already_looks_worse_than_the_margin_is_not_refused():
    """A large effect may be called in spite of the noise: the gate goes on."""
    assert not assess({"p50": np.linspace(-0.5, 1.5, 8)}, ONE, 0).blind


def heavy_tailed(generator, effect, noise):
    """Three correlated metrics with outliers, thirty pairs."""
    common = generator.standard_t(3, 30)
    return {
        name: effect + noise * (0.6 * common + 0.4 * generator.standard_t(3, 30))
        for name in ("p50", "p90", "throughput")
    }


def share_of(wanted, effect, noise, trials, seed):
    """How many gates end with this verdict, with all their looks and all their metrics."""
    options, generator, count = GateOptions(watched=()), np.random.default_rng(seed), 0
    for _ in range(trials):
        differences = heavy_tailed(generator, effect, noise)
        for look, number in enumerate(options.looks):
            found = assess({name: values[:number] for name, values in differences.items()}, options, look, quick=True)
            if found.verdict != "inconclusive":
                count += found.verdict == wanted
                break
    return count / trials


def test_false_alarms_stay_below_alpha_over_all_looks_and_metrics():
    """Without any change, noise large enough to exceed the margin is called a regression in at most 5 % of gates."""
    assert share_of("regression", 0.0, 0.25, 200, seed=11) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def test_a_change_of_the_margins_size_is_hardly_ever_passed():
    """ "No regression" where every metric is worse by exactly the margin: at most 5 % of gates."""
    assert share_of("no regression", math.log(1.1), 0.1, 100, seed=12) <= 0.05


def test_twenty_per_cent_are_called_where_the_noise_is_that_of_short_runs():
    """At least nine of ten gates call +20 %, and none passes it."""
    assert share_of("regression", math.log(1.2), 0.12, 40, seed=13) >= 0.9
    assert share_of("no regression", math.log(1.2), 0.12, 40, seed=13) == 0


def test_the_quick_look_gives_the_same_verdict():
    """Leaving the bootstrap out where it cannot matter changes no verdict."""
    options = GateOptions(watched=())
    for seed in range(0, 30, 4):
        differences = heavy_tailed(np.random.default_rng(seed), 0.02 * seed, 0.15)
        verdicts = {assess(differences, options, 5, quick=quick).verdict for quick in (True, False)}
        assert len(verdicts) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"margin": 0}, "margin"),
        ({"alpha": 0.9}, "alpha"),
        ({"pairs": 5}, "6"),
        ({"max_pairs": 7}, "max_pairs"),
        ({"alpha": 1e-6, "max_pairs": 12}, "max_pairs of at least"),
        ({"metrics": ()}, "at least one metric"),
        ({"metrics": ("p99:x",)}, "p99:25"),
        ({"metrics": ("errors",)}, "objective"),
        ({"window_s": 0.01}, "window"),
    ],
)
def test_options_that_cannot_work_are_refused(fields, message):
    """What no gate could decide is wrong use, before anything is measured."""
    with pytest.raises(InvalidPlan, match=message):
        GateOptions(**fields)


def test_a_metric_may_have_its_own_margin():
    """``p99:25`` allows a quarter where the others have the gate's margin."""
    rules = {rule.name: rule.margin for rule in GateOptions(metrics=("p50", "p99:25"), margin=0.05).rules}
    assert rules["p50"] == 0.05
    assert rules["p99"] == 0.25


def test_rates_are_worse_when_they_fall():
    """Half the throughput is as bad as twice the latency."""
    p50, throughput = GateOptions(metrics=("p50", "throughput")).rules[:2]
    assert p50.difference(1.0, 2.0) == pytest.approx(throughput.difference(200.0, 100.0))


def test_options_survive_pickling():
    """They are plain values."""
    assert pickle.loads(pickle.dumps(replace(ONE, seed=3))) == replace(ONE, seed=3)

"""The gate's statistics, held against SciPy's and against published figures."""

import math

import numpy as np
import pytest
from scipy import stats

from naiad.loadtest._gate.spending import nominal_levels, spent
from naiad.loadtest._gate.statistics import Estimate, holm_levels, holm_p_values, signed_rank_tail


def pairs(number, effect=0.1, seed=3):
    return np.random.default_rng(seed).normal(effect, 0.2, number)


@pytest.mark.parametrize("number", [6, 10, 12, 20, 30, 49])
def test_the_sign_flip_test_is_scipys_exact_signed_rank_test(number):
    """The p-value is that of Wilcoxon's exact test, for few pairs and for many."""
    differences = pairs(number)
    expected = stats.wilcoxon(differences, alternative="greater", method="exact").pvalue
    assert Estimate(differences).p_value() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("number", [6, 8, 11])
def test_the_sign_flip_test_counts_every_flip_of_the_signs(number):
    """SciPy's permutation test, which tries all flips of the signed ranks, gives the same p-value."""
    differences = pairs(number)

    def positive_ranks(values, axis):
        ranks = stats.rankdata(np.abs(values), axis=axis)
        return np.sum(np.where(values > 0, ranks, 0), axis=axis)

    found = stats.permutation_test(
        (differences,),
        positive_ranks,
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert Estimate(differences).p_value() == pytest.approx(found.pvalue)


def test_every_sign_flip_has_the_same_chance():
    """The chances of all sums of ranks begin at 1 and end at that of one flip in 2 to the number of pairs."""
    tail = signed_rank_tail(12)
    assert tail[0] == pytest.approx(1)
    assert tail[-1] == pytest.approx(2.0**-12)
    assert len(tail) == 12 * 13 / 2 + 1


@pytest.mark.parametrize("level", [0.025, 0.005])
def test_the_interval_holds_exactly_the_effects_that_the_test_does_not_reject(level):
    """Just outside of a bound the test rejects, just inside it does not."""
    estimate = Estimate(pairs(15))
    low, high = estimate.flip_bounds(level)
    assert estimate.p_value(low - 1e-9) <= level < estimate.p_value(low + 1e-9)
    mirrored = Estimate(-estimate.differences)
    assert mirrored.p_value(-high - 1e-9) <= level < mirrored.p_value(-high + 1e-9)


def test_few_pairs_have_no_interval_at_a_strict_level():
    """Six pairs show nothing at 1 %, and say so."""
    assert Estimate(pairs(6)).flip_bounds(0.01) == (-math.inf, math.inf)


def test_ties_never_help_a_finding():
    """Pairs without any difference give no evidence of one, in either direction."""
    estimate = Estimate(np.zeros(12))
    assert estimate.p_value() == 1.0
    assert estimate.effect == 0.0
    assert estimate.flip_bounds(0.025) == (0.0, 0.0)


def test_the_effect_shrugs_at_an_outlier():
    """One absurd pair among twenty moves the effect by less than its noise."""
    differences = pairs(20)
    spoilt = np.append(differences[:-1], 50.0)
    assert Estimate(spoilt).effect == pytest.approx(Estimate(differences).effect, abs=0.05)


def test_the_bootstrap_is_scipys():
    """Resampled bounds of the effect agree with SciPy's percentile bootstrap of the same estimator."""
    differences = pairs(20)

    def hodges_lehmann(values, axis):
        left, right = np.triu_indices(values.shape[axis])
        return np.median((values[..., left] + values[..., right]) / 2, axis=-1)

    expected = stats.bootstrap(
        (differences,), hodges_lehmann, confidence_level=0.9, n_resamples=4000, method="percentile", rng=1
    ).confidence_interval
    assert Estimate(differences).bootstrap_bounds(0.05) == pytest.approx((expected.low, expected.high), abs=0.012)


def test_the_standard_error_is_that_of_the_estimator():
    """It agrees with how much the effect varies from sample to sample."""
    effects = [Estimate(pairs(20, seed=seed)).effect for seed in range(400)]
    errors = [Estimate(pairs(20, seed=seed)).standard_error for seed in range(400)]
    assert np.median(errors) == pytest.approx(np.std(effects), rel=0.15)


def test_intervals_cover_as_often_as_they_say():
    """Of 2,000 samples with heavy tails, at most 5 % (and not far fewer) have a true effect below the lower bound."""
    generator = np.random.default_rng(5)
    samples = 0.1 + 0.2 * generator.standard_t(3, (2000, 12))
    missed = sum(Estimate(sample).flip_bounds(0.05)[0] > 0.1 for sample in samples)
    assert 0.03 < missed / 2000 < 0.06


def test_spent_error_gives_the_published_bounds():
    """Five equal looks at one-sided 2.5 %, by the Pocock-type and the O'Brien-Fleming-type function.

    The figures are those of gsDesign and of Reboussin et al. (Controlled Clinical Trials 21, 2000).
    """
    shares = (0.2, 0.4, 0.6, 0.8, 1.0)
    pocock = [-stats.norm.ppf(level) for level in nominal_levels(shares, 0.025)]
    assert pocock == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=0.001)
    late = [-stats.norm.ppf(level) for level in nominal_levels(shares, 0.025, "obrien-fleming")]
    assert late == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=0.001)


@pytest.mark.parametrize("spending", ["pocock", "obrien-fleming"])
def test_all_error_is_spent_by_the_end_and_none_before_the_start(spending):
    """The spending functions rise from nothing to alpha."""
    shares = np.linspace(0.01, 1, 50)
    values = [spent(share, 0.05, spending) for share in shares]
    assert values == sorted(values)
    assert values[0] < 0.002
    assert values[-1] == 0.05


def test_one_look_spends_everything():
    """A gate that looks once tests at alpha itself."""
    assert nominal_levels((1.0,), 0.05) == pytest.approx((0.05,))


def test_holm_is_the_step_down_procedure():
    """Corrected p-values are those of Holm's published example of four."""
    adjusted = holm_p_values({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_holm_makes_it_easier_only_after_a_rejection():
    """The second metric is tested at the next level when the first was rejected, else at the first one's."""
    levels = (0.05, 0.025, 0.0167)
    assert holm_levels({"a": 0.001, "b": 0.02, "c": 0.9}, levels) == {"a": 0.0167, "b": 0.025, "c": 0.05}
    assert holm_levels({"a": 0.02, "b": 0.021, "c": 0.022}, levels) == {"a": 0.0167, "b": 0.0167, "c": 0.0167}

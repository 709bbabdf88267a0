"""The rule by which a candidate counts as faster, on numbers made up for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from naiad.export import OutputParity
from naiad.export._precision.conversion import Conversion
from naiad.export._precision.judge import speed_up, why_not_faster
from naiad.export._precision.search import Trial, fastest
from naiad.export._runtime.turns import Turns
from naiad.export._verify.parity import Comparison


def turns(*ratios: float) -> Turns:
    """A baseline of one second a run, and a candidate that is `ratio` times as fast in each round."""
    return Turns(baseline_s=(1.0,) * len(ratios), candidate_s=tuple(1 / ratio for ratio in ratios))


def trial(ratio: float, error: float, *, refused: str | None = None, no_gain: str | None = None) -> Trial:
    parity = OutputParity(output="y", max_abs_error=error, max_rel_error=error, worst_batch=1)
    return Trial(
        conversion=Conversion(precision="int8", method=str(ratio)),
        path=Path(),
        comparison=Comparison(parity=(parity,), cases=(), failure=None),
        turns={1: turns(*(ratio,) * 9)},
        refused=refused,
        no_gain=no_gain,
    )


def test_speed_is_the_geometric_mean_over_batches() -> None:
    """Twice as fast at one batch size and half as fast at another is no gain; a stray round does not count."""
    assert speed_up({1: turns(2, 2, 2), 8: turns(0.5, 0.5, 0.5)}) == pytest.approx(1)
    assert speed_up({1: turns(2, 2, 2, 2, 90)}) == pytest.approx(2)


def test_a_gain_at_every_batch_is_one() -> None:
    """Twice as fast in every round needs no excuse."""
    assert why_not_faster({1: turns(*(2.0,) * 9), 8: turns(*(1.8,) * 9)}) is None


@pytest.mark.parametrize(
    ("by_batch", "reason"),
    [
        ({1: turns(*(0.7,) * 9)}, "0.70 times as fast as fp32; at least 1.05 is asked for (batch 1: 0.70×)"),
        ({1: turns(*(1.02,) * 9), 8: turns(*(1.04,) * 9)}, "no gain"),
        ({1: turns(*(0.8,) * 9), 8: turns(*(2.0,) * 9)}, "slower at batch 1 (batch 1: 0.80×, batch 8: 2.00×)"),
        ({0: turns(0.5, 0.6, 0.7, 0.8, 1.1, 1.2, 1.3, 1.4, 1.5)}, "within the noise of this machine (1.10×)"),
    ],
    ids=["slower", "as fast", "slower at one batch", "noise"],
)
def test_what_is_no_gain_is_said_with_the_numbers(by_batch: dict[int, Turns], reason: str) -> None:
    """Slower, as fast, slower somewhere, or perhaps faster: each is a sentence with the speed at every batch."""
    found = why_not_faster(by_batch)
    assert found is not None
    assert reason in found


def test_few_noisy_rounds_do_not_hide_a_large_gain() -> None:
    """A candidate that is twice as fast passes although another process disturbed one round in five."""
    noisy = turns(2.1, 1.9, 0.2, 2.0, 2.2, 1.8, 2.0, 0.4, 2.1, 1.9)
    assert why_not_faster({1: noisy, 4: noisy, 16: noisy}) is None


def test_the_fastest_is_taken() -> None:
    """Of what passes the fastest is published, never one that was refused."""
    trials = [trial(1.5, 0.01), trial(3.0, 0.02), trial(9.0, 0.0, refused="its answers differ")]
    assert fastest(trials) is trials[1]


def test_of_equally_fast_ones_the_nearest_is_taken() -> None:
    """A speed within 5 % of the best counts as equal, and then the error decides."""
    trials = [trial(1.97, 0.001), trial(2.0, 0.02), trial(1.5, 0.0)]
    assert fastest(trials) is trials[0]


def test_without_a_gain_fp32_stays() -> None:
    """What passes without being faster is taken only if that was allowed."""
    trials = [trial(0.9, 0.01, no_gain="0.90 times as fast"), trial(0.5, 0.0, refused="its answers differ")]
    assert fastest(trials) is None
    assert fastest(trials, allow_slower=True) is trials[0]

"""A gate's course: pairs in random order, looks, discarded pairs, the end."""

import json
from dataclasses import replace

import pytest

from gate_sessions import DrawnSession
from naiad.client import ServerUnavailable
from naiad.loadtest import GateFailed, GateOptions, InvalidPlan, Slo
from naiad.loadtest._gate.compare import judge_session
from naiad.loadtest._gate.noise import Calm, NoiseRule, look_at_machine, reference
from naiad.loadtest._gate.pairs import fitting_window_s
from naiad.loadtest._gate.subjects import RunValues

OPTIONS = GateOptions(metrics=("p50", "throughput"), watched=("p99",), noise=None, seed=5)


def test_a_slower_candidate_is_a_regression():
    """Half as slow again, with 10 % of noise: called at the first look, with exit code 1."""
    result = judge_session(DrawnSession(slower=1.5), OPTIONS)
    assert (result.verdict, result.exit_code, result.num_pairs) == ("regression", 1, 8)
    assert result.metric["p50"].ratio == pytest.approx(1.5, rel=0.15)
    assert result.metric["throughput"].ratio == pytest.approx(1 / 1.5, rel=0.15)
    low, high = result.metric["throughput"].interval
    assert low < result.metric["throughput"].ratio < high < 1


def test_an_equal_candidate_passes():
    """Little noise and no change: no regression, exit code 0."""
    result = judge_session(DrawnSession(noise=0.03), OPTIONS)
    assert (result.verdict, result.exit_code) == ("no regression", 0)
    assert result.ok


def test_a_faster_candidate_passes_and_is_called_better():
    """An improvement is no regression, and the result shows that it is one."""
    result = judge_session(DrawnSession(slower=0.7, noise=0.05), OPTIONS)
    assert result.verdict == "no regression"
    assert result.metric["p50"].improved
    assert result.metric["p50"].worse_by < -0.2


def test_noise_ends_in_no_verdict_and_says_what_would_help():
    """The budget is used up, or the gate is refused as blind: inconclusive, with the pairs or the margin it takes."""
    blind = judge_session(DrawnSession(noise=1.5, seed=2), OPTIONS)
    assert (blind.verdict, blind.exit_code) == ("inconclusive", 3)
    assert "pairs" in blind.reason
    patient = judge_session(DrawnSession(noise=1.5, seed=2), replace(OPTIONS, refuse_blind=False))
    assert patient.num_pairs == 30


def test_the_order_within_pairs_is_random_and_comes_from_the_seed():
    """Both orders occur; the same seed gives the same ones, another seed others."""

    def order(seed):
        session = DrawnSession(noise=1.5)
        judge_session(session, replace(OPTIONS, seed=seed, refuse_blind=False))
        return session.sides[2:]  # after the pilots

    first = order(1)
    assert first == order(1) != order(2)
    starts = first[::2]
    assert {"baseline", "candidate"} == set(starts)
    assert all({one, two} == {"baseline", "candidate"} for one, two in zip(starts, first[1::2], strict=True))


def test_several_runs_of_a_side_alternate_and_make_one_pair():
    """Two runs a side go A B B A or B A A B, and count as one pair with half of their noise's variance."""
    session = DrawnSession(noise=0.2, seed=4)
    result = judge_session(session, replace(OPTIONS, runs_per_side=2, refuse_blind=False))
    pairs = [session.sides[at : at + 4] for at in range(2, len(session.sides), 4)]
    assert all(pair == pair[::-1] and len(set(pair[:2])) == 2 for pair in pairs)
    assert len(pairs) == result.num_pairs
    single = judge_session(DrawnSession(noise=0.2, seed=4), replace(OPTIONS, refuse_blind=False))
    errors = [found.metric["p50"].judgement.standard_error * found.num_pairs**0.5 for found in (result, single)]
    assert errors[0] < errors[1]


def test_a_result_without_a_seed_names_the_one_it_drew():
    """So that the order can be had again."""
    seeds = {judge_session(DrawnSession(), replace(OPTIONS, seed=None)).seed for _ in range(3)}
    assert len(seeds) == 3


def test_a_doubtful_run_discards_its_whole_pair():
    """Both runs go, the pair is counted with its reason, and another one is measured in its place."""
    session = DrawnSession(slower=1.5, spoil=lambda number: "the generator was late" if number == 5 else "")
    result = judge_session(session, OPTIONS)
    assert result.num_pairs == 8
    (gone,) = result.discarded
    assert "the generator was late" in gone.discarded
    assert not gone.noise
    assert len(result.metric["p50"].baselines) == 8
    assert "doubts about a run" in result.warnings[0]


def test_too_many_discarded_pairs_are_no_verdict():
    """Where most pairs do not count, the gate is invalid, exit code 4."""
    result = judge_session(DrawnSession(slower=2.0, spoil=lambda number: "late"), OPTIONS)
    assert (result.verdict, result.exit_code) == ("invalid", 4)
    assert "late" in result.reason
    assert len(result.discarded) == OPTIONS.max_pairs // 2 + 1


def test_a_bad_start_is_gone_through():
    """The first ten pairs do not count, and the gate comes to its verdict with those after them."""
    session = DrawnSession(slower=2.0, spoil=lambda number: "late" if number < 20 else "")
    result = judge_session(session, OPTIONS)
    assert (result.verdict, result.num_pairs) == ("regression", 8)
    assert len(result.discarded) >= 8


def test_an_objective_that_the_candidate_misses_has_its_own_exit_code():
    """No regression, but 5 ms of p99 are more than the objective: 2. A regression comes first: 1."""
    slos = (Slo.parse("p99<4ms"),)
    assert judge_session(DrawnSession(noise=0.02), OPTIONS, slos=slos).exit_code == 0

    class Slow(DrawnSession):
        def measure(self, side, *, window_s, settle_s):
            run = super().measure(side, window_s=window_s, settle_s=settle_s)
            return replace(run, objectives={"p99<4ms": 5000.0})

    missed = judge_session(Slow(noise=0.02), OPTIONS, slos=slos)
    assert (missed.verdict, missed.exit_code, missed.ok) == ("no regression", 2, False)
    assert judge_session(Slow(noise=0.02, slower=1.5), OPTIONS, slos=slos).exit_code == 1


def test_a_side_that_answers_nothing_is_an_error():
    """No verdict can come of no requests."""

    class Silent(DrawnSession):
        def measure(self, side, *, window_s, settle_s):
            return RunValues(values={}, completed=0, failure="ServerUnavailable: nobody listens")

    with pytest.raises(GateFailed, match="baseline answered no request: ServerUnavailable"):
        judge_session(Silent(), OPTIONS)


def test_one_silent_run_discards_its_pair_and_three_end_the_gate():
    """A window in which nothing was answered may be the machine's hiccup; several in a row are none."""

    class Silent(DrawnSession):
        def measure(self, side, *, window_s, settle_s):
            run = super().measure(side, window_s=window_s, settle_s=settle_s)
            silent = side == "candidate" and len(self.sides) in self.when
            return RunValues(values={}, completed=0) if silent else run

    once = Silent(slower=1.5)
    once.when = range(7, 9)  # a pair
    result = judge_session(once, OPTIONS)
    assert (result.verdict, len(result.discarded)) == ("regression", 1)
    assert "no request" in result.discarded[0].discarded
    gone = Silent()
    gone.when = range(7, 99)
    assert judge_session(gone, OPTIONS).exit_code == 5


def test_a_server_that_dies_on_the_way_leaves_what_was_measured():
    """The pairs so far are in the result, which is invalid, with exit code 5."""

    class Dying(DrawnSession):
        def measure(self, side, *, window_s, settle_s):
            if len(self.sides) == 12:
                raise ServerUnavailable("nobody listens any more")
            return super().measure(side, window_s=window_s, settle_s=settle_s)

    result = judge_session(Dying(), OPTIONS)
    assert (result.verdict, result.exit_code, result.num_pairs) == ("invalid", 5, 5)
    assert "nobody listens any more" in result.reason
    json.dumps(result.to_json(), allow_nan=False)


def test_ctrl_c_ends_the_gate_with_what_there_is():
    """An interrupted gate has no verdict, but its pairs."""

    class Interrupted(DrawnSession):
        def measure(self, side, *, window_s, settle_s):
            if len(self.sides) == 22:
                raise KeyboardInterrupt
            return super().measure(side, window_s=window_s, settle_s=settle_s)

    result = judge_session(Interrupted(noise=0.4), replace(OPTIONS, refuse_blind=False))
    assert result.interrupted
    assert (result.verdict, result.num_pairs) == ("inconclusive", 10)
    assert result.metrics


def test_a_metric_that_the_runs_do_not_have_is_wrong_use():
    """It is refused after the first runs, with the metrics that there are."""
    with pytest.raises(InvalidPlan, match=r"queue.*p50"):
        judge_session(DrawnSession(), GateOptions(metrics=("queue",), noise=None))


def test_progress_is_told_after_every_pair():
    """Pairs, those discarded, and the interval since the last look."""
    told = []
    judge_session(DrawnSession(spoil=lambda n: "late" if n == 3 else ""), OPTIONS, on_progress=told.append)
    assert told[0].phase == "warming up"
    assert [item.num_pairs for item in told[1:5]] == [0, 1, 2, 3]
    assert told[1].discarded
    assert told[-1].assessment is not None


@pytest.mark.parametrize(
    ("rate", "metrics", "expected"),
    [(10_000, ["p50"], 0.5), (200, ["p90"], 0.5), (100, ["p90"], 1.0), (1000, ["p99"], 1.0), (5, ["p99"], 3.0)],
)
def test_the_window_fits_the_rate(rate, metrics, expected):
    """As short as the percentiles allow, and never longer than three seconds."""
    assert fitting_window_s(rate, metrics) == expected


def calm(canary_s=0.005, wait=0.0, steal=0, total=0):
    return Calm(canary_s=canary_s, wait=wait, steal_ticks=steal, total_ticks=total)


@pytest.mark.parametrize(
    ("looks", "reason"),
    [
        ([calm(), calm(total=100), calm(total=200)], ""),
        ([calm(), calm(canary_s=0.009), calm()], "canary"),
        ([calm(), calm(), calm(steal=30, total=200)], "stolen"),
        ([calm(wait=0.9), calm(wait=0.8), calm()], "waited"),
        ([calm(), calm(wait=0.9), calm()], ""),
    ],
)
def test_the_noise_rule(looks, reason):
    """A slow canary, stolen time, or pressure while no load runs spoils a pair; one short wait does not."""
    found = NoiseRule().reason(looks, 0.005)
    assert reason in found
    assert bool(found) == bool(reason)


def test_the_machine_can_be_looked_at():
    """The canary takes time, and the counters only grow."""
    first, second = look_at_machine(), look_at_machine()
    assert first.canary_s > 0
    assert first.total_ticks <= second.total_ticks
    assert reference() > 0


def test_the_rule_discards_pairs_in_a_gate():
    """A rule that nothing meets leaves no pair, and the reason names the canary."""
    strict = NoiseRule(max_canary_ratio=1.0000001)
    result = judge_session(DrawnSession(), replace(OPTIONS, noise=replace(strict, max_wait=-1.0)))
    assert result.verdict == "invalid"
    assert all(pair.noise for pair in result.discarded)
    assert all(pair.canary_s for pair in result.pairs)

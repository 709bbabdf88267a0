"""When requests are due: exact, reproducible, and the same for any number of engines."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from naiad.loadtest import InvalidPlan, Rate, Trace
from naiad.loadtest._engine.schedule import Mix, arrivals, read_trace


def first(number, load, *, weights=(1.0,), seed=0, shard=0, num_shards=1):
    schedule = arrivals(load, weights, seed=seed, shard=shard, num_shards=num_shards)
    return list(itertools.islice(schedule, number))


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_constant_rate_is_exact_after_any_time():
    """Arrival k is due k / rate after the start, rounded to the nanosecond once: nothing adds up."""
    found = first(100_000, Rate(per_s=30.0, arrivals="constant"))
    assert found[0] == (0, 0, 0)
    assert [due for due, _, _ in found[:4]] == [0, 33_333_333, 66_666_667, 100_000_000]
    assert found[90_000][0] == 3_000_000_000_000
    assert [number for _, _, number in found] == list(range(100_000))


def test_poisson_arrivals_have_exponential_gaps():
    """Mean, spread and the share of short gaps are those of an exponential distribution, within their own noise."""
    dues = np.array([due for due, _, _ in first(200_000, Rate(per_s=1000.0))])
    gaps_s = np.diff(dues, prepend=0) / 1e9
    assert gaps_s.mean() == pytest.approx(1e-3, rel=0.01)
    assert gaps_s.std() == pytest.approx(1e-3, rel=0.01)
    for quantile in (0.01, 0.5, 0.99):
        assert np.quantile(gaps_s, quantile) == pytest.approx(-np.log1p(-quantile) * 1e-3, rel=0.05)


def test_a_poisson_schedule_follows_its_seed():
    """The same seed gives the same arrivals, another one others."""
    load = Rate(per_s=100.0)
    assert first(5000, load, seed=4) == first(5000, load, seed=4)
    assert first(10, load, seed=4) != first(10, load, seed=5)


@pytest.mark.parametrize("kind", ["constant", "poisson", "trace"])
@pytest.mark.parametrize("num_shards", [2, 3, 7])
def test_shards_make_up_the_one_schedule(kind, num_shards, tmp_path):
    """Arrival k belongs to engine k mod n: merged, the arrivals and their traffic are those of one engine."""
    stamps = np.cumsum(np.random.default_rng(1).random(3000))
    load = Trace(path=write(tmp_path / "trace", *stamps)) if kind == "trace" else Rate(per_s=50.0, arrivals=kind)
    weights = (3.0, 1.0)
    whole = first(3000, load, weights=weights)
    parts = [first(1000, load, weights=weights, shard=k, num_shards=num_shards) for k in range(num_shards)]
    for shard, part in enumerate(parts):
        assert {number % num_shards for _, _, number in part} == {shard}
    merged = sorted(itertools.chain(*parts), key=lambda arrival: arrival[2])
    assert merged[:1000] == whole[:1000]


def test_the_traffic_of_arrivals_follows_the_weights():
    """A mix of 5 : 3 : 2 is met within the noise of 100,000 draws."""
    found = Counter(traffic for _, traffic, _ in first(100_000, Rate(per_s=100.0), weights=(5.0, 3.0, 2.0)))
    assert [found[index] / 100_000 for index in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.01)


def test_the_mix_of_a_schedule_does_not_change_its_times():
    """A second model shares the arrivals of the first one."""
    load = Rate(per_s=100.0)
    alone, shared = first(1000, load), first(1000, load, weights=(1.0, 1.0))
    assert [due for due, _, _ in alone] == [due for due, _, _ in shared]


def test_a_trace_is_replayed_from_its_first_stamp(tmp_path):
    """Absolute stamps, blank lines and a speed: the distances count. The schedule then ends."""
    path = write(tmp_path / "trace.txt", "1700000000.5", "", "1700000000.75", "1700000000.75", "  1700000002.5  ")
    assert [due for due, _, _ in first(10, Trace(path=path))] == [0, 250_000_000, 250_000_000, 2_000_000_000]
    assert [due for due, _, _ in first(10, Trace(path=path, speed=4.0))][-1] == 500_000_000


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0.5", "1.0", "0.75"], "line 3: expected time stamps in order, found 0.75 after 1.0"),
        (["0.5", "soon"], "line 2: expected a time stamp in seconds, found 'soon'"),
        (["nan"], "line 1: expected a time stamp in seconds, found 'nan'"),
        (["0", "inf"], "line 2: expected a time stamp in seconds"),
        (["", ""], "expected time stamps in .*, found none"),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(lines, message, tmp_path):
    """The message says where, what was expected and what was found."""
    with pytest.raises(InvalidPlan, match=message):
        read_trace(Trace(path=write(tmp_path / "trace.txt", *lines)))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_trace_that_cannot_be_read_is_refused(content, tmp_path):
    """No file, or no text: the path is in the message."""
    path = tmp_path / "trace.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidPlan, match=r"trace\.txt"):
        read_trace(Trace(path=path))


def test_users_choose_by_weight_and_each_the_same_again():
    """Every user sees the weights, and what it sends does not depend on how many engines there are."""
    mix, again = Mix((3.0, 1.0), seed=2), Mix((3.0, 1.0), seed=2)
    for user in (0, 1, 63, 5000):
        turns = [mix.traffic(user, turn) for turn in range(4000)]
        assert turns == [again.traffic(user, turn) for turn in range(4000)]
        assert turns.count(0) / 4000 == pytest.approx(0.75, abs=0.03)
    assert [mix.traffic(0, turn) for turn in range(40)] != [mix.traffic(1, turn) for turn in range(40)]


def test_even_a_small_weight_gets_its_share():
    """A model with one part in a thousand is asked one request in a thousand."""
    mix = Mix((999.0, 1.0), seed=0)
    assert sum(mix.traffic(7, turn) for turn in range(65_536)) == pytest.approx(65.5, abs=1)

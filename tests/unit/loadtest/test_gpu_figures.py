"""What is made of the GPUs' samples: means, energy, doubts, and what the limit was."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from loadtest_samples import TARGET, TEST, measurement, report
from naiad.loadtest._gate.history import append_history
from naiad.loadtest._gate.metric import MetricResult
from naiad.loadtest._gate.options import GateMetric
from naiad.loadtest._gate.sessions import values_of
from naiad.loadtest._sweep.point import Point
from naiad.loadtest._truth.cost import Cost
from naiad.loadtest._truth.gpu_doubts import gpu_doubts
from naiad.loadtest._truth.gpu_use import GpuSample, GpuUse, Spread
from naiad.loadtest._truth.limit import limit_of
from naiad.loadtest._truth.resources import Resources, ServerSample
from naiad.loadtest._tune.measuring import operating


def sample(at_s=0.0, **figures):
    known = {"index": 0, "name": "H200", "busy_share": 0.5, "memory_bytes": 7, "power_w": 300.0}
    return GpuSample(at_s=at_s, **{**known, **figures})


def use(**figures):
    known = {"index": 0, "name": "H200", "busy_share": 0.5, "memory_bytes": 7, "power_w": 300.0}
    return GpuUse(**{**known, **figures})


def spread(value):
    return Spread(mean=value, min=value, p50=value, p95=value, max=value)


def measured(*gpus, cpu_s=0.1, cpu_cores=None):
    """One second of 1,000 requests on a server that used these GPUs."""
    used = Resources(cpu_cores=cpu_cores, cpu_us_per_request=None, rss_bytes=None, num_threads=None, gpus=gpus)
    return replace(measurement(cpu_s=cpu_s), resources=used)


def test_figures_have_a_mean_and_a_spread():
    """Memory is the most, shares and power are means; the median and the 95th percentile are of the samples."""
    found = GpuUse.of([sample(k, busy_share=k / 20, memory_bytes=k) for k in range(21)])
    assert (found.busy_share, found.memory_bytes, found.power_w) == (pytest.approx(0.5), 20, pytest.approx(300))
    assert found.figures["busy_share"] == Spread(
        mean=pytest.approx(0.5), min=0.0, p50=0.5, p95=pytest.approx(0.95), max=1.0
    )
    assert found.figures["temperature_c"] is None


def test_one_sample_is_its_own_spread():
    """A very short window has one."""
    assert GpuUse.of([sample(busy_share=0.3)]).figures["busy_share"] == spread(0.3)


def test_energy_is_the_difference_of_the_counters():
    """Whatever the samples of the power say: 400 W over 10 s; the window is 8 s long."""
    found = GpuUse.of([sample(5.0, energy_j=1000.0), sample(15.0, energy_j=5000.0)], 8.0)
    assert (found.power_w, found.energy_j, found.energy_source) == (400, 3200, "counter")


@pytest.mark.parametrize(
    "counters",
    [(None, None, None), (1000.0, None, None), (1000.0, 1000.0, 1000.0), (9000.0, 100.0, 9500.0)],
    ids=["none", "one", "does not count", "began anew"],
)
def test_without_a_counter_energy_is_the_integral_of_the_power(counters):
    """100 W for 1 s on the way to 200 W, then 3 s at 200 W: 187.5 W on average."""
    powers, times = (100.0, 200.0, 200.0), (0.0, 1.0, 4.0)
    seen = [sample(at_s, power_w=w, energy_j=j) for at_s, w, j in zip(times, powers, counters, strict=True)]
    found = GpuUse.of(seen, 2.0)
    assert (found.power_w, found.energy_j, found.energy_source) == (187.5, 375.0, "samples")


def test_unknown_power_makes_no_energy():
    """It is unknown, and not zero."""
    found = GpuUse.of([sample(power_w=None)] * 2, 2.0)
    assert (found.power_w, found.energy_j, found.energy_source) == (None, None, None)


@pytest.mark.parametrize(
    ("before", "idle_w"),
    [
        ([], None),
        ([sample(power_w=80.0, busy_share=0.0)], 80),
        ([sample(power_w=80.0, busy_share=0.04), sample(power_w=90.0, busy_share=0.0)], 85),
        ([sample(power_w=300.0, busy_share=0.5)], None),
        ([sample(power_w=80.0, busy_share=None)], None),
    ],
)
def test_power_before_the_load_is_idle_power_only_where_the_gpu_was_idle(before, idle_w):
    """A run that follows another one finds the GPU at work; where the load is not known, neither is the idle power."""
    assert GpuUse.of([sample()], before=before).idle_power_w == idle_w


def test_pcie_is_compared_with_the_link_at_its_fastest():
    """An idle link clocks down; the busier way counts."""
    seen = [
        sample(pcie_rx_bytes_per_s=2e9, pcie_tx_bytes_per_s=1e9, pcie_limit_bytes_per_s=4e9),
        sample(pcie_rx_bytes_per_s=6e9, pcie_tx_bytes_per_s=1e9, pcie_limit_bytes_per_s=16e9),
    ]
    assert GpuUse.of(seen).pcie_share == 0.25
    assert GpuUse.of([sample()]).pcie_share is None


def test_reasons_are_shares_of_the_samples_that_tell_any():
    """A sample that tells nothing counts for neither side."""
    reasons = [("power cap",), (), None, ("power cap", "temperature"), ()]
    found = GpuUse.of([sample(slowed_by=one) for one in reasons])
    assert found.slowed_by == {"power cap": 0.5, "temperature": 0.25}


def test_a_clock_that_falls_is_seen_by_its_halves():
    """Of fewer than four samples nothing is said."""
    clocks = [2000.0, 2000.0, 1500.0, 1500.0]
    assert GpuUse.of([sample(sm_mhz=mhz) for mhz in clocks]).sm_clock_ratio == 0.75
    assert GpuUse.of([sample(sm_mhz=mhz) for mhz in clocks[1:]]).sm_clock_ratio is None


def test_a_gpu_that_was_lost_keeps_what_was_seen_before():
    """Its figures are of the samples until then."""
    gone = GpuSample(index=0, name="H200", busy_share=None, memory_bytes=None, power_w=None, lost=True)
    found = GpuUse.of([sample(busy_share=0.9), gone])
    assert (found.lost, found.busy_share, found.memory_bytes) == (True, 0.9, 7)


def test_gpus_of_a_window_are_told_apart_and_know_what_was_before():
    """By their numbers, in order."""

    def at(at_s, *gpus):
        return ServerSample(at_s=at_s, snapshots={}, gpus=gpus)

    idle = at(-0.5, sample(power_w=70.0, busy_share=0.0), sample(index=1, power_w=60.0, busy_share=0.0))
    busy = at(1.0, sample(index=1, busy_share=0.1), sample(busy_share=0.9))
    found = Resources.of([busy, busy], 10.0, window_s=1.0, before=[idle])
    assert found is not None
    assert [(gpu.index, gpu.busy_share, gpu.idle_power_w) for gpu in found.gpus] == [(0, 0.9, 70), (1, 0.1, 60)]
    assert found.cpu_cores is None


def test_the_energy_of_a_request_is_of_all_gpus():
    """1,000 requests per second at 300 + 200 W, 100 W of which they draw idle."""
    found = Cost.of(measured(use(idle_power_w=60.0), use(power_w=200.0, idle_power_w=40.0)), None, None)
    assert found.joules_per_request == pytest.approx(0.5)
    assert found.joules_per_request_above_idle == pytest.approx(0.4)
    assert found.requests_per_second_per_watt == pytest.approx(2.0)


@pytest.mark.parametrize("gpus", [(), (use(), use(power_w=None)), (use(power_w=None),)])
def test_energy_is_unknown_where_the_power_of_one_gpu_is(gpus):
    """A sum of a part would look like the whole."""
    found = Cost.of(measured(*gpus), None, None)
    assert (found.joules_per_request, found.requests_per_second_per_watt) == (None, None)


def test_a_gpu_that_draws_less_than_before_the_load_needs_nothing_for_it():
    """Clocks fall after a pause: the difference is no negative energy."""
    assert Cost.of(measured(use(idle_power_w=400.0)), None, None).joules_per_request_above_idle == 0.0


@pytest.mark.parametrize(("power_w", "energy_uj"), [(300.0, 300_000), (None, None)])
def test_a_gate_can_compare_the_energy_of_a_request(power_w, energy_uj):
    """In µJ, as ratios of smaller figures would be ones of rounding; absent where it is not known."""
    found = report(measured(use(power_w=power_w)))
    assert values_of(found, found.test).values.get("energy") == (energy_uj and pytest.approx(energy_uj))


@pytest.mark.parametrize("busy", [0.9, None])
def test_points_of_sweeps_and_searches_have_the_busiest_gpu(busy):
    """And requests per second and watt, where there is a GPU."""
    gpus = [use(busy_share=0.2), use(busy_share=busy)] if busy else []
    found = report(measured(*gpus))
    for point in (Point.of(1.0, found), operating(found, 1.0)):
        per_watt = pytest.approx(1000 / 600) if busy else None
        assert (point.gpu_share, point.requests_per_second_per_watt) == (busy, per_watt)


def kinds(gpus, targets=(TARGET,)):
    found = gpu_doubts(measured(*gpus), targets)
    assert not any(doubt.invalid for doubt in found)
    return [doubt.kind for doubt in found]


@pytest.mark.parametrize(
    ("gpu", "found"),
    [
        (use(), []),
        (use(slowed_by={"power cap": 0.04}), []),
        (use(slowed_by={"power cap": 0.06}), ["gpu_slowed"]),
        (use(slowed_by={"power cap": 0.06}, sm_clock_ratio=0.5), ["gpu_slowed"]),
        (use(sm_clock_ratio=0.96), []),
        (use(sm_clock_ratio=0.94), ["gpu_clock"]),
        (use(num_foreign=0), []),
        (use(num_foreign=2), ["gpu_shared"]),
        (use(lost=True), ["gpu_lost"]),
    ],
)
def test_what_a_reader_should_know_of_a_gpu(gpu, found):
    """Held down, slower in the end, shared or lost; none of them makes the result another one's."""
    assert kinds([gpu]) == found


@pytest.mark.parametrize(
    ("instances", "busy", "found"),
    [
        (("1 × GPU",), [0.0, 0.001], ["gpu_idle"]),
        (("1 × GPU",), [0.0, 0.2], []),
        (("1 × GPU",), [None], []),
        (("1 × GPU",), [0.0, None], []),
        (("2 × CPU", "1 × AUTO"), [0.0], []),
    ],
)
def test_a_model_for_the_gpu_that_leaves_it_idle_is_doubtful(instances, busy, found):
    """Only where it was to run there, and no GPU did anything."""
    gpus = [use(index=index, busy_share=share) for index, share in enumerate(busy)]
    assert kinds(gpus, [replace(TARGET, instances=instances)]) == found


def test_nothing_measured_is_no_matter_of_the_gpu():
    """A run without an answer has failed; there is nothing to doubt."""
    found = replace(measured(use(num_foreign=2)), latencies=measurement([]).latencies)
    assert gpu_doubts(found, [TARGET]) == []
    assert limit_of(found, [], 4) is None


def limit(*gpus, doubts=(), cpu_s=0.1, cpu_cores=None):
    found = limit_of(measured(*gpus, cpu_s=cpu_s, cpu_cores=cpu_cores), doubts, 4)
    assert found is not None
    return found


MEMORY = {"memory_busy_share": spread(0.85)}


@pytest.mark.parametrize(
    ("kind", "gpus", "also"),
    [
        ("gpu compute", [use(busy_share=0.9)], {}),
        ("gpu compute", [use(busy_share=0.1), use(busy_share=0.97)], {}),
        ("gpu compute", [use(busy_share=0.95, figures=MEMORY)], {}),
        ("gpu compute", [use(busy_share=0.95)], {"cpu_s": 0.95}),  # busy all the time: it had enough to do
        ("client", [use()], {"cpu_s": 0.95}),
        ("client", [use()], {"doubts": ["generator_lag"]}),
        ("client", [use(pcie_share=0.8)], {"cpu_s": 0.95}),
        ("copies", [use(pcie_share=0.7)], {}),
        ("copies", [use(figures=MEMORY)], {}),
        ("copies", [use(pcie_share=0.8)], {"cpu_cores": 4.0}),
        ("server cpu", [use()], {"cpu_cores": 3.7}),
        ("unknown", [use(busy_share=0.89)], {"cpu_cores": 3.5}),
        ("unknown", [use()], {"doubts": ["foreign_load"]}),
        ("unknown", [use(busy_share=0.95, pcie_share=0.8)], {}),  # either of the two
        ("unknown", [use(busy_share=None)], {}),
        ("unknown", [use(busy_share=None, figures=MEMORY)], {}),  # kernels may have read it
    ],
)
def test_the_limit_is_named_only_where_a_figure_is_near_its_end(kind, gpus, also):
    """A busy GPU goes first: whatever else is busy, it had enough to do; then a client that cannot send more."""
    assert limit(*gpus, **also).kind == kind


def test_the_limit_comes_with_its_figures():
    """Those of the busiest GPU, and of both sides' CPUs."""
    found = limit(use(busy_share=0.2, pcie_share=0.3), use(index=1, busy_share=0.6, figures=MEMORY), cpu_cores=1.0)
    assert found.to_json() == {
        "kind": "copies",
        "text": "the memory of GPU 1 was busy 85% of the time; GPU 1 was busy 60% of the time",
        "gpu_busy_share": 0.6,
        "memory_busy_share": 0.85,
        "pcie_share": 0.3,
        "generator_cpu_share": pytest.approx(0.1),
        "server_cpu_share": 0.25,
    }


def test_without_a_gpu_there_is_no_limit():
    """Reports of CPU servers are as they were."""
    assert limit_of(measured(), [], 4) is None
    assert limit_of(measurement(), [], 4) is None


def test_a_history_has_the_energy_of_a_request_where_it_is_known(tmp_path):
    """Beside throughput and latencies; runs without a GPU have the fields they had."""
    path = tmp_path / "history.jsonl"
    for gpus in ((use(),), ()):
        append_history(path, TEST, measured(*gpus))
    first, second = (json.loads(line)["metrics"] for line in path.read_text().splitlines())
    assert first["energy"] == pytest.approx(300_000)
    assert set(first) - set(second) == {"energy"}


def test_a_gate_writes_energies_with_their_unit():
    """In µJ, mJ or J, whichever one reads best."""
    metric = MetricResult(
        judgement=SimpleNamespace(rule=GateMetric(name="energy", margin=0.1)), baselines=(), candidates=()
    )
    assert (metric.unit, metric.written(300_000), metric.written(450)) == ("uJ", "300 mJ", "450 µJ")

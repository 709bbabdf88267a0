"""The search for a configuration, on a model that is a formula."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tune_helpers
from naiad.loadtest import ConfigurationRefused, InvalidPlan, LoadTest, Report, Slo, Tuning, tune
from naiad.loadtest._tune.trial import Operating, Trial, front
from tune_helpers import CONFIG, TEST, SimulatedBench, confirm_on, space


def search(bench: SimulatedBench, test: LoadTest = TEST, **options: Any) -> Tuning:
    known = {"confirm": confirm_on(bench), "num_trials": 14, "budget_s": 1e6, "clock": bench.clock}
    return tune(test, bench, options.pop("space", space()), **{**known, **options})


@pytest.fixture(scope="module")
def found() -> Tuning:
    return search(SimulatedBench())


def test_a_better_configuration_is_found_and_confirmed(found: Tuning) -> None:
    """The delay that fills the batches wins, and the A/B run says by how much."""
    assert found.winner is not None
    assert found.gain is not None
    assert found.gain.ratio > 1.2
    assert found.gain.interval[0] > 1.0
    assert int(found.winner.settings["dynamic_batching"]["max_queue_delay_microseconds"]) > 0
    assert "throughput ×" in found.text


def test_of_equals_the_plainest_wins(found: Tuning) -> None:
    """More instances bring nothing here, so that the winner has one."""
    assert found.winner is not None
    assert found.winner.choice["instances"] == 1
    assert found.winner.choice["threads"] == 1


def test_the_current_configuration_and_tritons_are_measured_to_the_end(found: Tuning) -> None:
    """They are what the others are held against."""
    for label in ("current", "Triton's default"):
        trial = found.labelled(label)
        assert trial is not None
        assert trial.state == "measured"
        assert trial.goodput_per_s > 0


def test_bad_configurations_end_early(found: Tuning) -> None:
    """Their windows stay short; those that were measured to the end had longer ones."""
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned
    longest = max(point.window_s for trial in found.trials for point in trial.points)
    assert any(max(point.window_s for point in trial.points) < longest for trial in pruned)


def test_no_choice_is_measured_twice(found: Tuning) -> None:
    """Proposals that were tried cost nothing."""
    choices = [json.dumps(dict(trial.choice), sort_keys=True) for trial in found.trials]
    assert len(choices) == len(set(choices)) == 14


def test_each_is_judged_at_its_own_load(found: Tuning) -> None:
    """The winner answers more with more users than the current one can take within the objective."""
    current, winner = found.labelled("current"), found.winner
    assert current is not None
    assert winner is not None
    assert current.best is not None
    assert winner.best is not None
    assert all(point.kept for point in (current.best, winner.best))
    assert (winner.best.users or 0) != 8


def test_the_same_seed_proposes_the_same() -> None:
    """A search can be made again."""
    searches = [search(SimulatedBench(), num_trials=12, seed=3) for _ in range(2)]
    assert [trial.choice for trial in searches[0].trials] == [trial.choice for trial in searches[1].trials]


def test_without_a_gain_nothing_is_confirmed() -> None:
    """Where every configuration is the same, the one that is there stays."""
    found = search(SimulatedBench(gain=0.0, noise=0.002))
    assert found.winner is None
    assert found.text.startswith("no gain")


def test_an_objective_that_none_keeps_is_said_so() -> None:
    """There is no winner among configurations that all miss it."""
    found = search(SimulatedBench(), replace(TEST, slos=(Slo.parse("p99<50us"),)), num_trials=4)
    assert found.winner is None
    assert "none of 4 configurations keeps p99<50us" in found.text


def test_a_configuration_that_the_server_refuses_is_a_failed_trial() -> None:
    """The search goes on, and the trial says why."""
    found = search(SimulatedBench(refuses='"count": 4'))
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert failed
    assert all("too many" in trial.error for trial in failed)
    assert found.winner is not None


def test_a_model_that_does_not_load_as_it_is_ends_the_search() -> None:
    """There is nothing to compare with."""
    with pytest.raises(ConfigurationRefused):
        search(SimulatedBench(refuses="{"))


def test_tritons_default_may_be_what_to_beat() -> None:
    """For a model whose configuration is good already."""
    found = search(SimulatedBench(), against="triton", num_trials=8)
    assert found.gain is not None
    assert "of Triton's default configuration" in found.text
    assert found.gain.ratio > 1.5


def test_the_time_ends_a_search() -> None:
    """What was found until then counts."""
    bench = SimulatedBench()
    found = search(bench, num_trials=None, budget_s=60.0)
    assert 2 <= len(found.trials) < 20


def test_ctrl_c_gives_what_was_tried() -> None:
    """Nothing is confirmed then, and nothing lost."""
    bench = SimulatedBench()

    def measure(test: LoadTest) -> Report:
        if len(bench.applied) == 4:
            raise KeyboardInterrupt
        return SimulatedBench.measure(bench, test)

    bench.measure = measure  # type: ignore[method-assign]
    found = search(bench)
    assert found.interrupted
    assert len(found.trials) == 3
    assert found.winner is None


def test_a_killed_search_goes_on(tmp_path: Path) -> None:
    """kill -9 in the middle of a trial: what was measured is there, what was under way is tried again."""
    path = tmp_path / "study.db"
    command = [sys.executable, tune_helpers.__file__, str(path)]
    with subprocess.Popen(
        [*command, "100", "0.02"], stdout=subprocess.PIPE, text=True, env=_environment(), start_new_session=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 3:
                break
        os.kill(process.pid, signal.SIGKILL)
    with sqlite3.connect(path) as connection:
        states = [state for (state,) in connection.execute("select state from trials")]
    connection.close()
    assert states.count("RUNNING") == 1
    done = subprocess.run([*command, "6", "0"], capture_output=True, text=True, env=_environment(), timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["trials"]) == 6
    assert result["current"]["goodput_per_s"] > 0
    assert int(done.stdout.splitlines()[0]) >= 3  # nothing of the first session was measured again


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    """Trials of another configuration or objective cannot be compared."""
    path = tmp_path / "study.db"
    bench = SimulatedBench()
    search(bench, num_trials=2, study=path)
    with pytest.raises(InvalidPlan, match="another objectives"):
        search(bench, replace(TEST, slos=(Slo.parse("p99<9ms"),)), study=path)
    with pytest.raises(InvalidPlan, match="another configuration"):
        search(bench, space=space({**CONFIG, "max_batch_size": 16}), study=path)


def test_a_file_that_is_no_study_is_refused_and_kept(tmp_path: Path) -> None:
    """It may be somebody's report."""
    path = tmp_path / "study.db"
    path.write_text("not a database, but long enough to look like one" * 100)
    with pytest.raises(InvalidPlan, match="cannot be used for the study"):
        search(SimulatedBench(), study=path)
    assert path.read_text().startswith("not a database")


def test_an_objective_is_needed() -> None:
    """Without one, more users are always better."""
    with pytest.raises(InvalidPlan, match="expected an objective"):
        search(SimulatedBench(), replace(TEST, slos=()))


def test_the_front_has_what_nothing_beats() -> None:
    """More goodput, a lower p99 or less CPU time: each is a reason to be on it."""

    def trial(number: int, per_s: float, p99_us: float, cpu_us: float) -> Trial:
        point = Operating(
            users=1, rate_per_s=None, throughput_per_s=per_s, p99_us=p99_us, worst=0.5, cpu_us=cpu_us, window_s=1.0
        )
        return Trial(number=number, choice={}, settings={}, text="", state="measured", points=(point,))

    trials = [
        trial(0, 100, 10, 5),
        trial(1, 200, 20, 5),
        trial(2, 90, 11, 5),
        trial(3, 100, 10, 4),
        trial(4, 50, 50, 1),
    ]
    assert [each.number for each in front(trials)] == [1, 3, 4]


def test_the_result_can_be_written(found: Tuning, tmp_path: Path) -> None:
    """As JSON, and as a page that has every configuration and loads nothing."""
    found.write(html=tmp_path / "tune.html", json=tmp_path / "tune.json")
    page = (tmp_path / "tune.html").read_text()
    assert found.text.partition(":")[0] in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    content = json.loads((tmp_path / "tune.json").read_text())
    assert content["winner"]["settings"] == dict(found.winner.settings)  # type: ignore[union-attr]
    assert len(content["trials"]) == len(found.trials)


def _environment() -> dict[str, str]:
    folder = str(Path(tune_helpers.__file__).parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH", ""))))}

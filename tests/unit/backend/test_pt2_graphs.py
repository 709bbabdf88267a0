"""Recordings of a package's work, by the shapes of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from pt2_helpers import Doubling, graphs, record


def rows(number: int, value: float = 1.0) -> list[torch.Tensor]:
    return [torch.full((number, 2), value)]


class Recorder:
    """Counts what it records."""

    def __init__(self) -> None:
        self.recorded: list[int] = []

    def __call__(self, run: Any, inputs: Sequence[torch.Tensor]) -> Any:
        self.recorded.append(inputs[0].shape[0])
        return record(run, inputs)


def test_each_set_of_shapes_is_recorded_once_and_replayed() -> None:
    """The values of a request go into the place that was recorded, and its answer comes from there."""
    recorder = Recorder()
    runner = graphs.Graphs(Doubling().run, recorder, pytest.fail)
    answers = [runner.run(rows(number, value))[0].clone() for number, value in ((2, 1.0), (3, 2.0), (2, 4.0))]
    assert [answer[0, 0].item() for answer in answers] == [2, 4, 8]
    assert [len(answer) for answer in answers] == [2, 3, 2]
    assert recorder.recorded == [2, 3]


def test_shapes_beyond_the_limit_are_run_as_they_are() -> None:
    """Each recording holds memory, so a client that sends every size cannot take all of it."""
    recorder, package = Recorder(), Doubling()
    runner = graphs.Graphs(package.run, recorder, pytest.fail)
    for number in range(1, graphs.MOST_GRAPHS + 3):
        assert runner.run(rows(number, 3.0))[0].shape == (number, 2)
    assert recorder.recorded == list(range(1, 33))
    package.runs.clear()
    assert runner.run(rows(34, 3.0))[0][33, 1].item() == 6
    assert package.runs == [34]


def test_work_that_cannot_be_recorded_is_run_as_it_is() -> None:
    """One failure is reported, and no further recording is tried."""
    failures: list[Exception] = []
    attempts: list[int] = []

    def refuse(run: Any, inputs: Sequence[torch.Tensor]) -> Any:
        attempts.append(inputs[0].shape[0])
        raise RuntimeError("operation not permitted when stream is capturing")

    runner = graphs.Graphs(Doubling().run, refuse, failures.append)
    assert [runner.run(rows(number, 2.0))[0][0, 0].item() for number in (1, 2)] == [4, 4]
    assert attempts == [1]
    assert [str(each) for each in failures] == ["operation not permitted when stream is capturing"]

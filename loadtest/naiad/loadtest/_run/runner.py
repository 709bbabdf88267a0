"""A run from start to report: look at the server, start what sends, follow it, sum up, judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final, Literal

from naiad.loadtest._data.payloads import check_traffic, make_samples
from naiad.loadtest._data.pipeline import Key
from naiad.loadtest._data.target import Target, connect, describe
from naiad.loadtest._engine.generator import Generator
from naiad.loadtest._engine.group import EngineGroup
from naiad.loadtest._engine.messages import Drained, Exhausted, Failed, Interval, Lost, Message
from naiad.loadtest._run.course import Course
from naiad.loadtest._run.progress import OnProgress, Progress, progress_of
from naiad.loadtest._truth.calibration import Calibration, calibrate
from naiad.loadtest._truth.gpu_doubts import gpu_doubts
from naiad.loadtest._truth.measurement import Measurement
from naiad.loadtest._truth.noise import MachineLoad
from naiad.loadtest._truth.sampler import ServerSampler
from naiad.loadtest._truth.validity import doubts
from naiad.loadtest.baseline import DEFAULT_MARGIN, Baseline
from naiad.loadtest.errors import EngineFailed
from naiad.loadtest.plan import Connection, LoadTest
from naiad.loadtest.report import Report

__all__ = ["run"]

_SILENCE_S: Final = 30.0  # engines speak four times a second: after this long they are stuck
_POLL_S: Final = 0.5


def run(
    test: LoadTest,
    *,
    generator: Generator | None = None,
    group: EngineGroup | None = None,
    baseline: Baseline | None = None,
    margin: float = DEFAULT_MARGIN,
    any_machine: bool = False,
    calibration: Calibration | bool = True,
    on_progress: OnProgress | None = None,
) -> Report:
    """Run a load test and return its report, also when the server died on the way or Ctrl-C ended it.

    Args:
        test: what to do.
        generator: what sends; by default engine processes on this machine, started for this run.
        group: engine processes to use again, where many runs follow each other.
        baseline: a stored result to compare with.
        margin: by how much worse than the baseline is still no regression, as a fraction.
        any_machine: compare with a baseline of another machine.
        calibration: what the generator itself can do with such requests: measured before the run (a second), given
            from an earlier one, or left out (``False``).
        on_progress: told four times a second how far the run is.

    Raises:
        naiad.client.ClientError: the server does not answer, or does not serve the model.
        InvalidData: the samples do not fit the model.
        InvalidBaseline: the baseline is of another model, load or machine.
        EngineFailed: the processes that send the requests could not start.
    """
    if baseline is not None:
        baseline.check_comparable(test, any_machine=any_machine)
    targets, notes = _look(test)
    with _sending(test, generator, group) as sender:
        if calibration is True:
            calibration = _calibrate(test, targets[0], sender, on_progress)
        log = _Log(test, targets, sender, on_progress, notes)
        log.follow()
    return log.report(calibration or None, None if baseline is None else (baseline, margin))


def _calibrate(
    test: LoadTest, target: Target, sender: Generator, on_progress: OnProgress | None
) -> Calibration | Literal[False]:
    """Measure the generator; what sends from other machines cannot be measured here."""
    if not isinstance(sender, EngineGroup):
        return False
    if on_progress is not None:
        on_progress(Progress(phase="calibrating"))
    found = calibrate(test, target, sender)
    sender.run_next(test)
    return found or False


def _look(test: LoadTest) -> tuple[tuple[Target, ...], list[str]]:
    """Ask the server about all models, check that what is to be sent fits them, and note what is special about it."""
    statistics_url = test.connection.statistics_url
    with ExitStack() as clients:
        client = clients.enter_context(connect(test.connection))
        behind = None if statistics_url is None else clients.enter_context(connect(Connection(url=statistics_url)))
        targets = tuple(describe(client, traffic, servers=behind) for traffic in test.mix)
    notes = list[str]()
    for traffic, target in zip(test.mix, targets, strict=True):
        notes += [] if target.pipeline is None else target.pipeline.notes
        check_traffic(traffic, target.signature)
        found = make_samples(traffic, target.signature, test.seed).notes
        notes += [f"{traffic.model}: {note}" for note in found] if len(test.mix) > 1 else found
    return targets, notes


@contextmanager
def _sending(test: LoadTest, generator: Generator | None, group: EngineGroup | None) -> Iterator[Generator]:
    if generator is not None:
        yield generator
    elif group is not None:
        group.run_next(test)
        yield group
    else:
        with EngineGroup(test) as own:
            yield own


def _steps(targets: Sequence[Target]) -> list[Key]:
    return [step.key for target in targets if target.pipeline is not None for step in target.pipeline.steps]


class _Log:
    """Everything that happened in a run."""

    def __init__(
        self,
        test: LoadTest,
        targets: tuple[Target, ...],
        sender: Generator,
        on_progress: OnProgress | None,
        notes: Sequence[str] = (),
    ) -> None:
        self._test, self._targets, self._sender, self._on_progress = test, targets, sender, on_progress
        self._ends_itself = getattr(sender, "ends_itself", False)
        self._course = Course(test, ends_itself=self._ends_itself)
        self._sampler = ServerSampler(test.connection, test.mix, steps=_steps(targets))
        self._incidents: list[str] = []
        self._notes = [*notes]
        self._machine_load: MachineLoad | None = None
        self._interrupted = self._stopping = self._ended = self._drained = False

    def follow(self) -> None:
        """Collect messages until the end; Ctrl-C ends the run early, a second one at once."""
        before = MachineLoad.now(getattr(self._sender, "pids", ()))
        with self._sampler:
            self._sender.start()
            self._sampler.start(self._sender.started_ns)
            silent_s = 0.0
            while not self._ended:
                try:
                    message = self._sender.next_message(_POLL_S)
                    silent_s = 0.0 if message is not None else silent_s + _POLL_S
                    if message is not None:
                        self._take(message)
                    elif silent_s >= _SILENCE_S:
                        self._take(Failed(message=f"the engine said nothing for {_SILENCE_S:g} s: it is stuck"))
                except KeyboardInterrupt:
                    if self._interrupted:
                        break
                    self._interrupted = True
                    self._stop()
            self._sampler.stop()
        self._machine_load = MachineLoad.since(before)
        if not self._course.intervals and not self._interrupted:
            reason = self._incidents[0] if self._incidents else "the load generator ended before it sent anything"
            raise EngineFailed(reason, model=self._test.mix[0].model)

    def _take(self, message: Message) -> None:
        if isinstance(message, Interval):
            self._take_interval(message)
        elif isinstance(message, Drained):
            self._ended = self._drained = True
        elif isinstance(message, Exhausted):
            self._course.exhausted(message.at_s)
        elif isinstance(message, Lost):
            self._incidents.append(message.message)
            self._stop()
        elif isinstance(message, Failed):
            self._incidents.append(message.message)
            self._ended = True

    def _take_interval(self, interval: Interval) -> None:
        course, phase = self._course, self._course.phase
        if not course.add(interval):
            return
        if course.phase != phase:  # the server's counters at this edge
            self._sampler.mark()
        if course.phase == "drain":
            self._stop()
        if self._on_progress is not None:
            self._on_progress(progress_of(self._test, course))

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._course.close()
            self._sender.stop()

    def report(self, calibration: Calibration | None, baseline: tuple[Baseline, float] | None) -> Report:
        """Sum up and judge."""
        course, test, targets = self._course, self._test, self._targets
        measurement = Measurement.of(
            test, targets, course.intervals, self._sampler.samples, window=course.window, looks=course.looks
        )
        if not self._drained:  # the engines never said what became of the last requests: nothing to hold against counts
            parts = tuple(replace(part, counted=None) for part in measurement.parts)
            measurement = replace(measurement, counted=None, parts=parts)
        incidents = list(self._incidents)
        if self._interrupted:
            incidents.append(f"the run was interrupted: {measurement.window_s:.1f} s were measured")
        return Report(
            test=test,
            targets=targets,
            measurement=measurement,
            steadiness=course.steadiness,
            precision=course.precision,
            calibration=calibration,
            doubts=(
                *doubts(
                    test,
                    measurement,
                    steadiness=course.steadiness,
                    calibration=calibration,
                    machine_load=self._machine_load,
                ),
                *gpu_doubts(measurement, targets),
            ),
            slos=[slo.judge(measurement) for slo in test.slos],
            comparisons=None if baseline is None else baseline[0].compare(measurement, baseline[1]),
            incidents=incidents,
            notes=[*self._notes, *getattr(self._sender, "notes", ()), *self._sampler.notes],
            interrupted=self._interrupted,
        )

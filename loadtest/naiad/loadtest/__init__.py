"""Load tests for models on NVIDIA Triton: numbers that are true, and a verdict.

::

    from naiad.loadtest import LoadTest, Rate, Slo, Traffic, Users, run

    report = run(LoadTest(traffic=Traffic(model="digits"), load=Users(users=64), slos=(Slo.parse("p99<20ms"),)))
    report.write(html="report.html", json="report.json")
    report.ok

What needs heavy packages (the gate, the sweeps, the tuner, Locust) is imported when it is asked for; importing
:class:`TritonUser` or :class:`ClientUser` brings Locust, which patches the standard library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from naiad.loadtest._report.files import check_writable as check_writable
from naiad.loadtest._report.files import write_atomically as write_atomically
from naiad.loadtest.baseline import Baseline as Baseline
from naiad.loadtest.baseline import Comparison as Comparison
from naiad.loadtest.errors import EngineFailed as EngineFailed
from naiad.loadtest.errors import GateFailed as GateFailed
from naiad.loadtest.errors import InvalidBaseline as InvalidBaseline
from naiad.loadtest.errors import InvalidData as InvalidData
from naiad.loadtest.errors import InvalidPlan as InvalidPlan
from naiad.loadtest.errors import InvalidReport as InvalidReport
from naiad.loadtest.errors import InvalidScenario as InvalidScenario
from naiad.loadtest.errors import InvalidSlo as InvalidSlo
from naiad.loadtest.errors import LoadTestError as LoadTestError
from naiad.loadtest.errors import OutputNotWritable as OutputNotWritable
from naiad.loadtest.latencies import Latencies as Latencies
from naiad.loadtest.machine import Machine as Machine
from naiad.loadtest.plan import Connection as Connection
from naiad.loadtest.plan import Files as Files
from naiad.loadtest.plan import Golden as Golden
from naiad.loadtest.plan import LoadTest as LoadTest
from naiad.loadtest.plan import Precision as Precision
from naiad.loadtest.plan import Rate as Rate
from naiad.loadtest.plan import Sequence as Sequence
from naiad.loadtest.plan import Synthetic as Synthetic
from naiad.loadtest.plan import Trace as Trace
from naiad.loadtest.plan import Traffic as Traffic
from naiad.loadtest.plan import Users as Users
from naiad.loadtest.slo import Slo as Slo
from naiad.loadtest.slo import SloResult as SloResult

if TYPE_CHECKING:
    from naiad.loadtest._engine.group import EngineGroup as EngineGroup
    from naiad.loadtest._gate.compare import GateProgress as GateProgress
    from naiad.loadtest._gate.compare import compare as compare
    from naiad.loadtest._gate.false_alarms import FalseAlarms as FalseAlarms
    from naiad.loadtest._gate.false_alarms import measure_false_alarms as measure_false_alarms
    from naiad.loadtest._gate.history import append_gate as append_gate
    from naiad.loadtest._gate.history import append_history as append_history
    from naiad.loadtest._gate.history import read_history as read_history
    from naiad.loadtest._gate.history import trends as trends
    from naiad.loadtest._gate.junit import to_junit as to_junit
    from naiad.loadtest._gate.markdown import to_markdown as to_markdown
    from naiad.loadtest._gate.noise import NoiseRule as NoiseRule
    from naiad.loadtest._gate.options import GateOptions as GateOptions
    from naiad.loadtest._gate.result import GateResult as GateResult
    from naiad.loadtest._gate.subjects import Subject as Subject
    from naiad.loadtest._gate.wheels import WheelSubject as WheelSubject
    from naiad.loadtest._gate.wheels import wheel_metrics as wheel_metrics
    from naiad.loadtest._locust.client_user import ClientUser as ClientUser
    from naiad.loadtest._locust.options import add_options as add_options
    from naiad.loadtest._locust.triton_user import TritonUser as TritonUser
    from naiad.loadtest._report.compare_page import compare_html as compare_html
    from naiad.loadtest._report.gate_page import gate_html as gate_html
    from naiad.loadtest._run.progress import Progress as Progress
    from naiad.loadtest._run.runner import run as run
    from naiad.loadtest._scenario.settings import Settings as Settings
    from naiad.loadtest._sweep.axis import Axis as Axis
    from naiad.loadtest._sweep.axis import parse_axis as parse_axis
    from naiad.loadtest._sweep.capacity import Capacity as Capacity
    from naiad.loadtest._sweep.find_max import find_max as find_max
    from naiad.loadtest._sweep.point import SweepProgress as SweepProgress
    from naiad.loadtest._sweep.sweep import Sweep as Sweep
    from naiad.loadtest._sweep.sweep import sweep as sweep
    from naiad.loadtest._truth.calibration import Calibration as Calibration
    from naiad.loadtest._truth.calibration import calibrate as calibrate
    from naiad.loadtest._truth.measurement import Measurement as Measurement
    from naiad.loadtest._truth.server_times import ServerTimes as ServerTimes
    from naiad.loadtest._tune.bench import ConfigurationRefused as ConfigurationRefused
    from naiad.loadtest._tune.bench import ServerBench as ServerBench
    from naiad.loadtest._tune.confirm import ABRun as ABRun
    from naiad.loadtest._tune.result import Tuning as Tuning
    from naiad.loadtest._tune.space import Space as Space
    from naiad.loadtest._tune.trial import Trial as Trial
    from naiad.loadtest._tune.tuner import TuneProgress as TuneProgress
    from naiad.loadtest._tune.tuner import tune as tune
    from naiad.loadtest.report import Report as Report
    from naiad.loadtest.scenario import Scenario as Scenario
    from naiad.loadtest.scenario import find_scenario as find_scenario

_LATER: Final = {
    "ABRun": "_tune.confirm",
    "Axis": "_sweep.axis",
    "Calibration": "_truth.calibration",
    "Capacity": "_sweep.capacity",
    "ClientUser": "_locust.client_user",
    "ConfigurationRefused": "_tune.bench",
    "EngineGroup": "_engine.group",
    "FalseAlarms": "_gate.false_alarms",
    "GateOptions": "_gate.options",
    "GateProgress": "_gate.compare",
    "GateResult": "_gate.result",
    "Measurement": "_truth.measurement",
    "NoiseRule": "_gate.noise",
    "Progress": "_run.progress",
    "Report": "report",
    "Scenario": "scenario",
    "ServerBench": "_tune.bench",
    "ServerTimes": "_truth.server_times",
    "Settings": "_scenario.settings",
    "Space": "_tune.space",
    "Subject": "_gate.subjects",
    "Sweep": "_sweep.sweep",
    "SweepProgress": "_sweep.point",
    "Trial": "_tune.trial",
    "TritonUser": "_locust.triton_user",
    "TuneProgress": "_tune.tuner",
    "Tuning": "_tune.result",
    "WheelSubject": "_gate.wheels",
    "add_options": "_locust.options",
    "append_gate": "_gate.history",
    "append_history": "_gate.history",
    "calibrate": "_truth.calibration",
    "compare": "_gate.compare",
    "compare_html": "_report.compare_page",
    "find_max": "_sweep.find_max",
    "find_scenario": "scenario",
    "gate_html": "_report.gate_page",
    "measure_false_alarms": "_gate.false_alarms",
    "parse_axis": "_sweep.axis",
    "read_history": "_gate.history",
    "run": "_run.runner",
    "sweep": "_sweep.sweep",
    "to_junit": "_gate.junit",
    "to_markdown": "_gate.markdown",
    "trends": "_gate.history",
    "tune": "_tune.tuner",
    "wheel_metrics": "_gate.wheels",
}
"""Where the names are that are imported when they are asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})

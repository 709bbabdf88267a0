"""Load tests for models on NVIDIA Triton: numbers that are true, and a verdict.

::

    from naiad.loadtest import LoadTest, Slo, run

    report = run(LoadTest(model="digits", url="grpc://localhost:8001", users=64, slos=(Slo.parse("p99<20ms"),)))
    report.write(html="report.html", json="report.json")
    report.ok

:class:`TritonUser`, for locustfiles, is imported when it is asked for: it brings Locust, which patches the standard
library.
"""

from typing import TYPE_CHECKING, Any

from naiad.loadtest._files import check_writable as check_writable
from naiad.loadtest.baseline import Baseline as Baseline
from naiad.loadtest.baseline import Comparison as Comparison
from naiad.loadtest.errors import EngineFailed as EngineFailed
from naiad.loadtest.errors import InvalidBaseline as InvalidBaseline
from naiad.loadtest.errors import InvalidData as InvalidData
from naiad.loadtest.errors import InvalidPlan as InvalidPlan
from naiad.loadtest.errors import InvalidSlo as InvalidSlo
from naiad.loadtest.errors import LoadTestError as LoadTestError
from naiad.loadtest.errors import OutputNotWritable as OutputNotWritable
from naiad.loadtest.latencies import Latencies as Latencies
from naiad.loadtest.machine import Machine as Machine
from naiad.loadtest.measurement import Measurement as Measurement
from naiad.loadtest.plan import LoadTest as LoadTest
from naiad.loadtest.plan import Traffic as Traffic
from naiad.loadtest.report import Report as Report
from naiad.loadtest.runner import Progress as Progress
from naiad.loadtest.runner import run as run
from naiad.loadtest.server_times import ServerTimes as ServerTimes
from naiad.loadtest.slo import Slo as Slo
from naiad.loadtest.slo import SloResult as SloResult

if TYPE_CHECKING:
    from naiad.loadtest.user import TritonUser as TritonUser


def __getattr__(name: str) -> Any:
    if name == "TritonUser":
        from naiad.loadtest.user import TritonUser

        return TritonUser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Builds of the client as subjects: which one really calls, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

import naiad.client
from naiad.loadtest import Connection, GateFailed, InvalidPlan, LoadTest, Subject, Traffic, WheelSubject, wheel_metrics
from naiad.loadtest._gate.sessions import open_session
from naiad.loadtest._gate.wheels import WheelSession
from programmed_server import MODEL, Holds, ProgrammedServer

CLIENT = Path(naiad.client.__file__).parents[2]
BURN_S = 0.02


@pytest.fixture(scope="module")
def server():
    with ProgrammedServer(Holds(median_ms=1, low_ms=1, tail_share=0), seed=1) as running:
        yield running


def wheel(path: Path, *, before_a_call: str = "", leave_out: str = "none") -> Path:
    """Pack the client as it is here, with a line more in ``Model.infer``."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((CLIENT / "naiad" / "client").rglob("*.py")):
            name = file.relative_to(CLIENT).as_posix()
            text = file.read_text("utf-8")
            if name.endswith("_model/model.py"):
                first = "        return self._infer(inputs,"
                assert first in text
                text = text.replace(first, f"        {before_a_call}\n{first}")
            if leave_out not in name:
                archive.writestr(name, text)
    return path


def subject(path: Path, url: str, **fields) -> WheelSubject:
    return WheelSubject(path=path, traffic=Traffic(model=MODEL), connection=Connection(url=url), **fields)


def test_each_side_calls_with_its_own_client(server, tmp_path):
    """A wheel whose calls burn 20 ms of CPU time shows them; the other side, a folder, does not."""
    burn = f"import time; until = time.thread_time() + {BURN_S}\n        while time.thread_time() < until: pass"
    slow = wheel(tmp_path / "naiad-2.0-py3-none-any.whl", before_a_call=burn)
    session = WheelSession(subject(CLIENT, server.url, in_flight=2), subject(slow, server.url, in_flight=2))
    try:
        runs = {side: session.measure(side, window_s=0.5, settle_s=0.1) for side in ("baseline", "candidate")}
    finally:
        session.close()
    assert runs["candidate"].values["mean"] >= BURN_S * 1e6
    # Half of it: a call that the window's edge cuts is counted where it ends, and its CPU time where it was spent.
    assert runs["candidate"].values["cpu"] > BURN_S * 1e6 / 2
    assert runs["baseline"].values["cpu"] < runs["candidate"].values["cpu"] / 2
    assert set(runs["baseline"].values) == {"p50", "p90", "p99", "mean", "throughput", "cpu"}
    assert not runs["baseline"].doubts


def test_sync_and_asyncio_callers_are_measured_apart(server):
    """With both kinds, every metric has its caller's name."""
    both = subject(CLIENT, server.url, callers=("sync", "asyncio"), in_flight=2)
    session = WheelSession(both, both)
    try:
        values = session.measure("baseline", window_s=0.3, settle_s=0.1).values
    finally:
        session.close()
    assert set(wheel_metrics(both.callers, "p50", "cpu")) == {"p50@sync", "p50@asyncio", "cpu@sync", "cpu@asyncio"}
    assert set(wheel_metrics(both.callers, "p50", "cpu")) <= set(values)


def test_a_client_that_cannot_be_imported_is_an_error(server, tmp_path):
    """The last line of what it said is in the message."""
    broken = wheel(tmp_path / "broken.whl", leave_out="naiad/client/result.py")
    session = WheelSession(subject(broken, server.url), subject(broken, server.url))
    try:
        with pytest.raises(GateFailed, match=r"candidate's client could not call: .*result"):
            session.measure("candidate", window_s=0.3, settle_s=0.1)
    finally:
        session.close()


def test_calls_that_fail_are_a_doubt(server, tmp_path):
    """A client whose later calls fail gives figures, and a reason not to use them."""
    fail = "type(self).calls = getattr(type(self), 'calls', 0) + 1; assert type(self).calls % 3, 'it failed'"
    flaky = wheel(tmp_path / "flaky.whl", before_a_call=fail)
    session = WheelSession(subject(CLIENT, server.url), subject(flaky, server.url))
    try:
        run = session.measure("candidate", window_s=0.3, settle_s=0.0)
    finally:
        session.close()
    assert "it failed" in run.doubts[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"callers": ()}, "none"), ({"callers": ("threads",)}, "threads"), ({"in_flight": 0}, "in_flight")],
)
def test_calls_that_cannot_be_are_refused(fields, message):
    """Wrong callers or numbers are wrong use."""
    with pytest.raises(InvalidPlan, match=message):
        subject(CLIENT, "grpc://127.0.0.1:1", **fields)


def test_what_holds_no_client_is_refused(tmp_path):
    """A folder, an archive or a file without the client is named."""
    (tmp_path / "text.whl").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    for path in (tmp_path, tmp_path / "text.whl", tmp_path / "other.whl"):
        with pytest.raises(InvalidPlan, match=path.name):
            WheelSession(subject(path, "grpc://127.0.0.1:1"), subject(path, "grpc://127.0.0.1:1"))


def test_a_wheel_and_a_server_cannot_be_compared():
    """They have nothing in common."""
    server = Subject(name="a server", test=LoadTest(traffic=Traffic(model="m")))
    with pytest.raises(InvalidPlan, match="one of each"):
        open_session(subject(CLIENT, "grpc://127.0.0.1:1"), server)

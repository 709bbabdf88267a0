"""Engine processes: what they are told, what they say, and that none is ever left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from naiad.loadtest import Connection, EngineFailed, InvalidPlan, LoadTest, Rate, Slo, Synthetic, Trace, Traffic, Users
from naiad.loadtest._engine.group import EngineGroup
from naiad.loadtest._engine.link import EngineLink
from naiad.loadtest._engine.messages import Drained, Exhausted, Failed, Interval, Lost, Ready
from naiad.loadtest._engine.plans import decode_test, encode_test
from naiad.loadtest._engine.priority import realtime
from naiad.loadtest.latencies import Latencies
from programmed_server import MODEL, Holds, ProgrammedServer

WAIT_S = 60.0
QUICK = Holds(median_ms=2.0, low_ms=1.0, high_ms=4.0, tail_share=0.0)


@pytest.fixture(scope="module")
def server():
    with ProgrammedServer(QUICK) as running:
        yield running


def plan(url, load=None, **fields):
    return LoadTest(traffic=Traffic(model=MODEL), load=load or Users(users=4), connection=Connection(url=url), **fields)


def collect(group, until, stop=True):
    """Take messages until one is as wanted, stop, and take the rest."""
    found, stopped, deadline_s = [], False, time.monotonic() + WAIT_S
    while not found or not isinstance(found[-1], Drained | Failed):
        assert time.monotonic() < deadline_s, found
        message = group.next_message(0.5)
        if message is not None:
            found.append(message)
            if not stopped and until(found):
                if not stop:
                    break
                stopped = True
                group.stop()
    return found


def intervals(messages):
    return [message for message in messages if isinstance(message, Interval)]


def completed(messages):
    return sum(interval.latencies.count for interval in intervals(messages))


def test_a_test_survives_the_way_to_an_engine(tmp_path):
    """Every field arrives as it was, nested ones, tuples and paths among them."""
    test = LoadTest(
        traffic=(
            Traffic(model="a", data=Synthetic(shapes={"x": (2, 3)}, ranges={"x": (0.5, 1.5)})),
            Traffic(model="b", version="2", weight=0.5),
        ),
        load=Trace(path=tmp_path / "trace", speed=2.0),
        connection=Connection(url="grpcs://host:1", headers={"x-api-key": "secret"}, ca=tmp_path / "ca.pem"),
        slos=(Slo.parse("p99<20ms"),),
    )
    assert decode_test(encode_test(test)) == test


def test_two_engines_send_what_was_planned_and_count_what_the_server_counts(server):
    """Users are divided, each engine reports the same intervals, and the sums are the server's."""
    server.record()
    with EngineGroup(plan(server.url, Users(users=5)), num=2) as group:
        group.start()
        found = collect(group, lambda messages: len(intervals(messages)) >= 4)
        record = server.record()
    by_engine = {engine: [i for i in intervals(found) if i.engine == engine] for engine in (0, 1)}
    assert [max(i.users for i in by_engine[engine]) for engine in (0, 1)] == [3, 2]
    assert completed(found) == len(record.held_ns) == sum(i.sent for i in intervals(found))
    common = min(map(len, by_engine.values())) - 1
    assert [(i.start_s, i.end_s) for i in by_engine[0][:common]] == [
        (i.start_s, i.end_s) for i in by_engine[1][:common]
    ]
    assert all(i.cpu_s > 0 for i in intervals(found))


def test_an_engine_with_real_time_priority_has_it_for_its_test_alone(server):
    """Where this user may have it; else the test is refused with what it needs. The next test runs as others do."""
    test = replace(plan(server.url), realtime=True)
    if not may_be_realtime():
        with pytest.raises(EngineFailed, match="CAP_SYS_NICE"), EngineGroup(test) as group:
            group.start()
        return
    with EngineGroup(test) as group:
        (pid,) = group.pids
        group.start()
        assert os.sched_getscheduler(pid) == os.SCHED_FIFO
        collect(group, lambda messages: completed(messages) > 0)
        group.run_next(plan(server.url))
        group.start()
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER


def may_be_realtime() -> bool:
    """Asked of a process of its own."""
    ask = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"
    return subprocess.run([sys.executable, "-c", ask], stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_real_time_priority_that_is_refused_says_what_it_needs(monkeypatch):
    """As of an ordinary user."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with pytest.raises(InvalidPlan, match=r"Operation not permitted.*CAP_SYS_NICE"), realtime():
        pass


@pytest.mark.parametrize("num", [1, 3])
def test_a_trace_is_replayed_once_by_any_number_of_engines(num, server, tmp_path):
    """All of its arrivals are sent, by one engine or divided among three; then its end is said, once."""
    path = tmp_path / "trace"
    path.write_text("\n".join(str(number / 100) for number in range(50)))
    with EngineGroup(plan(server.url, Trace(path=path)), num=num) as group:
        group.start()
        found = collect(group, lambda messages: isinstance(messages[-1], Exhausted))
    assert completed(found) == 50
    assert [message.at_s for message in found if isinstance(message, Exhausted)] == [pytest.approx(0.49, abs=0.03)]
    assert {interval.engine for interval in intervals(found)} == set(range(num))


def test_one_process_does_one_test_after_another(server):
    """Messages are of the latest test only, also where the one before was given up in the middle."""
    with EngineGroup(plan(server.url, Users(users=2))) as group:
        pids = group.pids
        group.start()
        collect(group, lambda messages: len(intervals(messages)) >= 2)
        group.run_next(plan(server.url, Users(users=3)))
        group.start()
        collect(group, lambda messages: len(intervals(messages)) >= 2, stop=False)
        group.run_next(plan(server.url, Rate(per_s=100.0, arrivals="constant")))
        group.start()
        found = collect(group, lambda messages: len(intervals(messages)) >= 2)
        assert intervals(found)[0].start_s == 0
        assert all(interval.users == 0 for interval in intervals(found))
        num_arrived = int((server.record().arrived_ns >= group.started_ns).sum())
        assert 0 <= num_arrived - completed(found) <= 3  # those of the test before that were on their way
        assert group.pids == pids


def test_requests_made_for_one_server_can_go_to_another(server):
    """The model is described by the server of the test; what is sent reaches the other one only."""
    with ProgrammedServer(QUICK) as other, EngineGroup(plan(server.url), send_to=other.url) as group:
        server.record()
        group.start()
        found = collect(group, lambda messages: completed(messages) > 0)
        assert len(other.record().held_ns) == completed(found)
        assert len(server.record().held_ns) == 0


def test_users_can_be_changed_while_a_test_runs(server):
    """More users in all engines together, then none: nothing is sent any more."""
    with EngineGroup(plan(server.url, Users(users=2)), num=2) as group:
        group.start()
        collect(group, lambda messages: bool(intervals(messages)), stop=False)
        group.set_users(7)
        collect(group, lambda messages: {i.users for i in intervals(messages)[-2:]} == {4, 3}, stop=False)
        group.set_users(0)
        found = collect(group, lambda messages: sum(i.sent + i.in_flight for i in intervals(messages)[-2:]) == 0)
        assert {interval.users for interval in intervals(found)[-2:]} == {0}


def test_a_test_that_cannot_be_sent_is_an_error_before_it_starts(server):
    """The model is not served: the client's own message comes through, and the processes can go on."""
    with EngineGroup(LoadTest(traffic=Traffic(model="other"), connection=Connection(url=server.url))) as group:
        with pytest.raises(EngineFailed, match="other"):
            group.start()
        group.run_next(plan(server.url))
        group.start()
        assert completed(collect(group, lambda messages: len(intervals(messages)) >= 1)) > 0


def test_an_engine_that_dies_is_reported(server):
    """Killed in the middle: the message says how it ended."""
    with EngineGroup(plan(server.url), num=2) as group:
        group.start()
        collect(group, lambda messages: bool(intervals(messages)), stop=False)
        os.kill(group.pids[1], signal.SIGKILL)
        found = collect(group, lambda _: False)
        assert found[-1].message == "an engine process ended unexpectedly (signal 9)"


def test_an_engine_that_breaks_before_it_is_ready_says_why(server, monkeypatch, tmp_path):
    """The last line of its errors is in the message."""
    broken = tmp_path / "naiad" / "loadtest"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('broken on purpose')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        EngineGroup(plan(server.url)) as group,
        pytest.raises(EngineFailed, match=r"\(exit code 1\): RuntimeError: broken on purpose"),
    ):
        group.start()


def test_leaving_the_group_leaves_no_process(server):
    """In the middle of a run, all engines end with the block."""
    with EngineGroup(plan(server.url), num=2) as group:
        group.start()
        processes = [psutil.Process(pid) for pid in group.pids]
    assert not any(process.is_running() for process in processes)


@pytest.mark.parametrize("started", [False, True])
def test_an_engine_ends_with_the_process_that_started_it(started, server):
    """Even where that one was killed and could not say so."""
    code = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from naiad.loadtest._engine.group import EngineGroup\n"
        "from naiad.loadtest import *\n"
        f"test = LoadTest(traffic=Traffic(model={MODEL!r}), connection=Connection(url={server.url!r}))\n"
        "group = EngineGroup(test)\n"
        f"group.start() if {started} else None\n"
        "print(group.pids[0], flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    engine = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    engine.wait(WAIT_S)


def test_a_lost_server_is_said_once():
    """After 5 s without a success the server is asked; it is gone, and all engines of a run together say so once."""
    with (
        ProgrammedServer(QUICK) as dying,
        EngineGroup(plan(dying.url, Users(users=4)), num=2) as closed,
        EngineGroup(plan(dying.url, Rate(per_s=20.0))) as opened,
    ):
        for group in (closed, opened):
            group.start()
            collect(group, lambda messages: completed(messages) > 5, stop=False)
        dying.kill()
        for group in (closed, opened):
            found = collect(group, lambda messages: any(isinstance(message, Lost) for message in messages))
            lost = [message for message in found if isinstance(message, Lost)]
            assert len(lost) == 1
            assert "the server stopped answering" in lost[0].message
            assert sum(interval.errors.get("ServerUnavailable", 0) for interval in intervals(found)) > 0


def test_a_link_can_be_one_engine_of_many(server):
    """As Locust's workers use it: its share of all engines, no users until it is told of them."""
    link = EngineLink()
    found = []
    try:
        link.job(plan(server.url, Users(users=100)), engine=2, num_engines=8, users=0)
        for job, message in link.messages():
            assert job == 1
            found.append(message)
            if isinstance(message, Ready):
                link.start(time.perf_counter_ns())
            elif isinstance(message, Interval) and not message.sent and not message.users:
                link.set_users(1)
            elif isinstance(message, Interval) and message.latencies.count:
                link.stop()
            elif isinstance(message, Drained):
                break
        assert {interval.engine for interval in intervals(found)} == {2}
        assert max(interval.users for interval in intervals(found)) == 1
    finally:
        link.close()
        link.release()


def test_intervals_keep_everything_on_the_way():
    """As JSON and back: the histograms, too."""
    from naiad.loadtest._engine.messages import decode_message, encode_message

    interval = Interval(
        traffic=1,
        engine=3,
        start_s=0.25,
        end_s=0.5,
        users=2,
        sent=5,
        responses=4,
        latencies=Latencies([1_500_000, 2_500_000]),
        errors={"Overloaded": 1},
        examples={"Overloaded": "full"},
        cpu_s=0.01,
    )
    job, back = decode_message(encode_message(interval, 7))
    assert job == 7
    assert list(back.latencies.counts()) == list(interval.latencies.counts())
    assert back.to_json() == interval.to_json()

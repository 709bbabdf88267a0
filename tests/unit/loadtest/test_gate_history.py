"""A history of results: written by many at once, and what changed in it."""

import json
import multiprocessing
import resource
import signal

import numpy as np
import pytest

from loadtest_samples import measurement
from naiad.loadtest import (
    InvalidBaseline,
    LoadTest,
    Machine,
    OutputNotWritable,
    Traffic,
    Users,
    append_history,
    read_history,
    trends,
)
from naiad.loadtest._gate.changes import change_points

TEST = LoadTest(traffic=Traffic(model="m"), load=Users(users=4))


def series(*parts, noise=0.05, seed=1):
    generator = np.random.default_rng(seed)
    return np.concatenate([mean * np.exp(generator.normal(0, noise, number)) for mean, number in parts]).tolist()


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(100, 60)], []),
        ([(100, 40), (120, 20)], [40]),
        ([(100, 40), (110, 12)], [40]),
        ([(100, 60), (112, 30), (100, 60)], [60, 90]),
        ([(100, 100), (300, 40), (330, 40)], [100, 140]),  # the large change does not hide the small one
        ([(100, 30), (130, 5)], [30]),
        ([(100, 3)], []),
        ([], []),
    ],
)
def test_changes_are_found_where_they_are(parts, expected):
    """Steps of 10 % and more among noise of 5 %, within two values of where they were made."""
    found = [point.index for point in change_points(series(*parts) if parts else [])]
    assert len(found) == len(expected)
    assert all(abs(one - other) <= 2 for one, other in zip(found, expected, strict=True))


def test_an_outlier_is_no_change():
    """One run three times as slow is not the beginning of something."""
    values = series((100, 60))
    values[30] *= 3
    assert change_points(values) == []


def test_noise_is_rarely_called_a_change():
    """Of 200 series of 60 equal values, at most one in twenty has one."""
    assert sum(bool(change_points(series((100, 60), seed=seed))) for seed in range(200)) <= 10


def test_a_series_without_any_noise_changes_where_it_does():
    """Exact figures, such as counts, have no variance."""
    assert [point.index for point in change_points([5.0] * 10 + [6.0] * 10)] == [10]


def write(path, factor=1.0, **fields):
    append_history(path, TEST, measurement([latency * factor for latency in (1.0, 2.0, 3.0)] * 100), **fields)


def test_a_history_is_read_as_it_was_written(tmp_path):
    """One line for each run, with its label, and no name of the machine."""
    path = tmp_path / "history.jsonl"
    write(path, label="abc123")
    write(path)
    entries, unreadable = read_history(path)
    assert [entry.label for entry in entries] == ["abc123", ""]
    assert unreadable == 0
    assert entries[0].load == "4 users"
    assert set(json.loads(path.read_text().splitlines()[0])["machine"]) >= {"cores", "cpu", "system"}


def append_many(path, number):
    for _ in range(number):
        write(path)


def test_many_writers_lose_nothing(tmp_path):
    """Three processes with ten runs each leave thirty whole lines."""
    path = tmp_path / "history.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(path, 10)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    entries, unreadable = read_history(path)
    assert (len(entries), unreadable) == (30, 0)


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    """What a killed writer left neither hides other lines nor eats the next one."""
    path = tmp_path / "history.jsonl"
    write(path)
    whole = path.read_text()
    path.write_text(whole + whole[:100])
    write(path)
    entries, unreadable = read_history(path)
    assert (len(entries), unreadable) == (2, 1)


def fill_disk(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, size + 50))
    try:
        write(path)
    except OutputNotWritable:
        raise SystemExit(7) from None


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    """Half a line is taken back, and the error names the file."""
    path = tmp_path / "history.jsonl"
    write(path)
    before = path.read_bytes()
    writer = multiprocessing.get_context("spawn").Process(target=fill_disk, args=(path,))
    writer.start()
    writer.join()
    assert writer.exitcode == 7
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [None, "no history\n", "[]\n{}\n"])
def test_what_is_no_history_is_refused(tmp_path, content):
    """A missing or foreign file is one clear error."""
    path = tmp_path / "history.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidBaseline, match=r"history\.jsonl"):
        read_history(path)


def changed(path, factors):
    path.unlink(missing_ok=True)
    write(path)
    line = json.loads(path.read_text())
    lines = []
    for factor in factors:
        metrics = {
            name: value / factor if name == "throughput" else value * factor for name, value in line["metrics"].items()
        }
        lines.append(json.dumps({**line, "metrics": metrics}))
    path.write_text("\n".join(lines) + "\n")
    entries, _ = read_history(path)
    return entries


def test_a_regression_is_the_last_change_if_it_is_recent(tmp_path):
    """Slower since five runs is one; slower since fifteen is not, nor is faster."""
    path = tmp_path / "history.jsonl"
    (recent,) = trends(changed(path, series((1, 30), (1.3, 5))))
    assert {item.metric for item in recent.regressions()} == {"throughput", "p50", "p90", "p99"}
    (old,) = trends(changed(path, series((1, 30), (1.3, 15))))
    assert old.regressions() == []
    assert len(old.regressions(recent=20)) == 4
    (better,) = trends(changed(path, series((1, 30), (0.7, 5))))
    assert better.regressions() == []
    json.dumps(better.to_json(), allow_nan=False)


def test_runs_of_other_machines_and_loads_are_kept_apart(tmp_path):
    """Only this machine's runs make a series, and each load makes its own."""
    path = tmp_path / "history.jsonl"
    write(path)
    append_history(path, LoadTest(traffic=Traffic(model="m"), load=Users(users=8)), measurement())
    entries, _ = read_history(path)
    assert [trend.load for trend in trends(entries)] == ["4 users", "8 users"]
    here = Machine.this()
    elsewhere = Machine.from_json({**here.to_json(), "cpu": "another CPU"})
    assert trends(entries, elsewhere) == []

"""What ``naiad loadtest`` prints at its end, while it runs, and the exit code that it leaves."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

import report_contents
from naiad.cli.loadtest import curves, live, summary
from naiad.cli.loadtest.figures import duration, sparkline, time_us, with_interval
from naiad.cli.loadtest.outcome import exit_code
from naiad.loadtest import LoadTest, Precision, Progress, Traffic


@pytest.mark.parametrize(
    ("value_us", "text"), [(None, "–"), (0.4, "0.40 µs"), (927, "927 µs"), (12_345, "12.3 ms"), (2.5e6, "2.50 s")]
)
def test_times_have_three_digits_and_a_unit(value_us, text):
    """As people read them."""
    assert time_us(value_us) == text


def test_an_interval_has_the_unit_of_its_value():
    """``p99 12.3 ms (11.8–12.9)``."""
    assert with_interval(12_300, (11_800, 12_900)) == "12.3 ms (11.8–12.9)"
    assert with_interval(12_300, None) == "12.3 ms"


def test_durations_and_curves_are_short():
    """Seconds up to a minute and a half, then minutes."""
    assert [duration(s) for s in (0.25, 9.0, 30.4, 125)] == ["0.2 s", "9 s", "30 s", "2 min 05 s"]
    assert sparkline([0, 1, 2, 4], 3) == "▃▅█"
    assert sparkline([0, 0], 5) == "▁▁"


def printed(content, monkeypatch):
    buffer = io.StringIO()
    monkeypatch.setattr(summary, "out", Console(file=buffer, width=200, highlight=False))
    summary.print_report(content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "make", [report_contents.content, report_contents.mix, report_contents.pipeline, report_contents.evil]
)
def test_a_report_is_printed_whatever_is_in_it(make, monkeypatch):
    """Figures with their intervals, where the time went, every model of a mix, the verdict."""
    content = make()
    text = printed(content, monkeypatch)
    for word in ("throughput", "p99.9", "mean time", "queue", content["verdict"]):
        assert word in text
    for part in content["parts"]:
        assert part["model"] in text


def test_each_step_has_its_line(monkeypatch):
    """Steps in the order of their calls, what a step calls behind it, what is left, and what is not known."""
    lines = printed(report_contents.pipeline(), monkeypatch).splitlines()
    at = next(index for index, line in enumerate(lines) if line.strip().startswith("in steps"))
    decode, find, encoder, unknown, rest = lines[at : at + 5]
    assert "3.00 ms" in decode
    assert "30%" in decode
    assert "6.00 ms" in find
    assert "2.25 calls per request" in encoder
    assert "1,234 requests of others" in encoder
    assert encoder.index("encoder") > find.index("find")
    assert "not known" in unknown
    assert "between them" in rest
    assert "998 µs" in rest
    assert "in steps" not in printed(report_contents.content(), monkeypatch)


def test_a_report_of_nothing_is_printed(monkeypatch):
    """No request was answered: there are no figures, and the reason is said."""
    content = report_contents.empty()
    text = printed(content, monkeypatch)
    assert content["failures"][0] in text
    assert "p99 –" in text


def test_names_are_not_taken_for_markup(monkeypatch):
    """Square brackets of names and errors are shown as they are."""
    content = report_contents.content(name="[bold]x[/]", failures=["a [red]reason[/]"], verdict="failed")
    text = printed(content, monkeypatch)
    assert "[bold]x[/]" in text
    assert "a [red]reason[/]" in text


def result(**fields):
    """A report, as far as an exit code depends on it."""
    defaults = {
        "interrupted": False,
        "verdict": "failed",
        "incidents": (),
        "slos": (),
        "comparisons": None,
        "measurement": SimpleNamespace(latencies=SimpleNamespace(count=10)),
    }
    return SimpleNamespace(**{**defaults, **fields})


MISSED, SLOWER = SimpleNamespace(met=False), SimpleNamespace(regressed=True)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"verdict": "passed"}, 0),
        ({"comparisons": [SLOWER]}, 1),
        ({"comparisons": [SLOWER], "slos": [MISSED]}, 1),
        ({"slos": [MISSED]}, 2),
        ({"verdict": "invalid", "slos": [MISSED]}, 4),
        ({}, 5),
        ({"incidents": ["the server died"], "slos": [MISSED]}, 5),
        ({"measurement": SimpleNamespace(latencies=SimpleNamespace(count=0)), "slos": [MISSED]}, 5),
        ({"interrupted": True, "incidents": ["interrupted"]}, 130),
    ],
)
def test_the_exit_code_says_why_it_is_no_pass(fields, code):
    """What makes the rest doubtful goes first."""
    assert exit_code(result(**fields)) == code


def test_the_live_view_shows_the_phase_the_figures_and_how_sure_they_are():
    """In every phase, with or without an end that is known."""
    test = LoadTest(traffic=Traffic(model="digits"), precision=Precision())
    screen = live._Screen(test)
    console = Console(file=io.StringIO(), width=120)
    console.print(screen)
    seen = [
        Progress(phase="calibrating"),
        Progress(phase="warmup", elapsed_s=1, total_s=30, throughput=900.0, p50_us=800.0, p99_us=5000.0, users=4),
        Progress(phase="window", elapsed_s=4, throughput=1200.0, p50_us=800.0, p99_us=4000.0, precision=0.08, errors=3),
        Progress(phase="drain"),
    ]
    for progress in seen:
        screen.update(progress)
        console.print(screen)
    text = console.file.getvalue()
    for word in ("digits", "warming up", "measuring", "1,200 requests/s", "p99 4.00 ms", "±8.0% of ±5.0%", "3 errors"):
        assert word in text


def test_gpus_have_their_lines_and_a_server_without_one_has_none(monkeypatch):
    """A line for each GPU, the energy of a request, the limit; nothing of the kind otherwise."""
    lines = {line[:12].strip(): line[12:] for line in printed(report_contents.mix(), monkeypatch).splitlines()}
    assert lines["GPU 0"].startswith(
        "H200 · 82% busy · 9.8 GB of 150.0 GB · 310 W · 1,980 MHz · 51 °C · PCIe 2.1 GB/s in"
    )
    assert lines["energy"] == "96.9 mJ per request · 73.4 mJ above idle · 10.3 requests/s per W"
    assert lines["limit"].startswith("unknown: nothing")
    without = printed(report_contents.content(), monkeypatch)
    assert not any(word in without for word in ("GPU", "energy", "limit "))


def test_what_a_gpu_does_not_tell_is_left_out(monkeypatch):
    """Neither a zero nor a dash; that it was lost is said."""
    content = report_contents.mix()
    (gpu,) = content["results"]["resources"]["gpus"]
    unknown = {"busy_share": None, "memory_bytes": None, "power_w": None, "lost": True}
    gpu |= unknown | {"figures": dict.fromkeys(gpu["figures"])}
    content["cost"] |= {"joules_per_request": None}
    lines = printed(content, monkeypatch).splitlines()
    assert "GPU 0       H200 · lost within the run" in lines
    assert not any(line.startswith("energy") for line in lines)


@pytest.mark.parametrize("busy", [0.93, None])
def test_a_sweeps_table_has_columns_of_gpus_only_where_there_are_any(busy, monkeypatch):
    """How busy the GPU was, and requests per second and watt."""
    buffer = io.StringIO()
    monkeypatch.setattr(curves, "out", Console(file=buffer, width=200, highlight=False))
    sweep = report_contents.sweep()["sweep"]
    sweep["points"][0] |= {"gpu_share": busy, "requests_per_second_per_watt": 77.7 if busy else None}
    curves._print(sweep)
    assert all((word in buffer.getvalue()) == bool(busy) for word in ("GPU busy", "93%", "req/s per W", "77.7"))

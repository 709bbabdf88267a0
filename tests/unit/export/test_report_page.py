"""`export-report.html`: complete, self-contained, and safe whatever the names in it are."""

from __future__ import annotations

import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from naiad.export import (
    BatchLatency,
    CaseParity,
    CheckFailed,
    Divergence,
    Finding,
    InvalidExport,
    MetricResult,
    OutputParity,
    PrecisionLatency,
    PrecisionRefused,
    PrecisionResult,
    Report,
    VerificationFailed,
)
from naiad.export._report import client_code, plot, writing
from naiad.export._report.page import render

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements and the text of a page; it fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(output: str = "probs", **changes: Any) -> Report:
    """Return a report in which every section has something to say."""
    parity = OutputParity(
        output=output,
        max_abs_error=1.25e-6,
        max_rel_error=2.5e-6,
        worst_batch=7,
        cosine=0.9999999,
        worst_sizes="batch 7",
    )
    latency = tuple(
        PrecisionLatency(batch=batch, median_ms=batch / 8, spread_ms=0.01, rows_per_s=8000.0) for batch in (1, 8)
    )
    values: dict[str, Any] = {
        "batches": (1, 7),
        "num_cases": 2,
        "parity": (parity,),
        "latency": (BatchLatency(batch=1, median_ms=0.125), BatchLatency(batch=7, median_ms=0.5)),
        "findings": (Finding(check="unused input", message="no operator reads it"),),
        "size_bytes": 123_456,
        "cases": tuple(
            CaseParity(output=output, sizes=f"batch {batch}", max_abs_error=1e-6, max_rel_error=2e-6)
            for batch in (1, 7)
        ),
        "left_out": ("batch 64 was not compared",),
        "metric": MetricResult(name="accuracy", pytorch=0.98, candidate=0.9756, limit="max drop 0.5%", change=-0.0044),
        "precision": (
            PrecisionResult(precision="fp32", chosen=True, parity=(parity,), latency=latency, speed_up=1.0),
            PrecisionResult(precision="int8", method="dynamic", refused="0.9 times as fast", latency=latency),
        ),
    }
    return Report(**(values | changes))


def manifest(name: str = "probs", **changes: Any) -> dict[str, Any]:
    """Return a manifest with one input and one output."""
    return {
        "model": "scores",
        "version": 3,
        "inputs": [{"name": "x", "dtype": "FP32", "shape": ["batch", 4]}],
        "outputs": [{"name": name, "dtype": "FP32", "shape": ["batch", 3]}],
        "max_batch_size": 8,
        "precision": "fp32",
        "samples": {"num_samples": 2, "generated": False},
        "report": report(name).to_dict(),
        "created": "2026-01-02T03:04:05+00:00",
        "command": "naiad export scores",
        "versions": {"naiad": "1.2.3"},
        **changes,
    }


def test_a_page_has_every_section_and_its_numbers() -> None:
    """Tensors, code, parity, metric, precision, latency, configuration and provenance, in that order."""
    page = Page(render(manifest(), 'name: "scores"'))
    assert page.ids == [
        "findings",
        "tensors",
        "calling",
        "parity",
        "metric",
        "precision",
        "latency",
        "configuration",
        "provenance",
    ]
    for text in ("scores", "version 3", "verified", "2.5e-06", "0.9756", "0.9 times as fast", "int8 dynamic", "123 KB"):
        assert text in page.text
    assert page.tags.count("svg") == 2
    assert 'name: "scores"' in page.text


def test_a_page_needs_no_network_and_no_script() -> None:
    """It has no script and no reference to anything outside itself, and it is small."""
    html = render(manifest(), "x" * 200_000)
    page = Page(html)
    assert "script" not in page.tags
    assert {value for name, value in page.attributes if name in ("src", "href")} == {"data:,"}
    assert not re.search(r"url\(|@import|https?://", html)
    assert len(html.encode()) < 300_000


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(min_size=1, max_size=40))
@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "&amp;"]
)
def test_names_are_text_whatever_they_are(hostile: str, name: str) -> None:
    """Names of tensors, findings and reasons add no element and no attribute, and are shown as they are."""
    name = f"{hostile}{name}".replace("\r", "").replace("\x00", "")
    expected = Page(render(manifest(), "config"))
    found = Page(
        render(
            manifest(name, model=name, command=name, report=report(name, left_out=(name,)).to_dict()),
            name,
        )
    )
    assert found.tags == expected.tags
    assert [key for key, _ in found.attributes] == [key for key, _ in expected.attributes]
    assert name in found.text


def test_an_older_manifest_has_a_page_too() -> None:
    """What a manifest of an earlier release lacks has no section."""
    old = {"batches": [1], "num_cases": 1, "parity": [], "latency": [], "findings": [], "size_bytes": 1}
    page = Page(render({"model": "scores", "version": 1, "report": old}))
    assert page.ids == []
    assert "scores" in page.text


def test_a_refused_export_says_why_on_top(tmp_path: Path) -> None:
    """The message, the node with its module and line, and what was measured by then; nothing how to call it."""
    where = Divergence(
        cause="conversion",
        tensor="t",
        node="node_gelu",
        operator="Gelu",
        module="blocks.1",
        source="m.py:4",
        detail="off",
    )
    worst = CaseParity(output="probs", sizes="batch 1", max_abs_error=2.0, max_rel_error=0.5, passed=False)
    parity = OutputParity(output="probs", max_abs_error=2.0, max_rel_error=0.5, worst_batch=1)
    error = VerificationFailed("it differs", divergence=where, parity=(parity,), cases=(worst,))
    known = {key: value for key, value in manifest().items() if key not in ("report", "version")}
    place = tmp_path / "report.html"
    with pytest.raises(VerificationFailed), writing.on_refusal(place, known):
        raise error
    page = Page(place.read_text(encoding="utf-8"))
    assert page.ids == ["failure", "tensors", "parity", "provenance"]
    for text in ("refused", "it differs", "node_gelu", "Gelu", "blocks.1", "m.py:4", "✗ beyond"):
        assert text in page.text


def test_an_export_that_failed_before_there_was_a_graph_has_a_page_too() -> None:
    """Only the reason and what was asked for are known then."""
    page = Page(writing.of_refusal(CheckFailed("it fails at batch 1"), {"model": "scores", "precision": "int8"}))
    assert page.ids == ["failure"]
    for text in ("scores", "refused", "it fails at batch 1", "int8"):
        assert text in page.text


def test_a_precision_that_was_refused_shows_what_was_tried() -> None:
    """The table of candidates with their numbers and reasons."""
    error = PrecisionRefused("no gain", model="scores", precision="int8", results=report().precision)
    page = Page(writing.of_refusal(error, {"model": "scores", "precision": "int8"}))
    assert page.ids == ["failure", "precision", "latency"]
    assert "0.9 times as fast" in page.text


@pytest.mark.parametrize("place", [".", "nowhere/report.html"])
def test_a_place_that_cannot_be_is_refused_before_the_work(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory, and a file in one that does not exist."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidExport, match="the report cannot be written"):
        writing.check_place(place)


@pytest.mark.parametrize("name", ["x", "class", "my-input", "a\nb", "x'y", 'x"y', "ünï", "0"])
def test_the_code_that_calls_it_is_python_with_the_real_names(name: str) -> None:
    """It compiles, and sends every input by its name with its type and shape."""
    inputs = [
        {"name": name, "dtype": "INT64", "shape": ["batch", "length", 3]},
        {"name": "text", "dtype": "STRING", "shape": ["batch"]},
    ]
    code = client_code.python("scores", inputs, [{"name": name, "dtype": "FP32", "shape": []}])
    calls: list[dict[str, Any]] = []

    class Triton:
        def __init__(self, url: str) -> None:
            self.url = url

        def __enter__(self) -> Triton:
            return self

        def __exit__(self, *exc: object) -> None: ...

        def model(self, model: str) -> Any:
            assert model == "scores"
            return lambda **given: calls.append(given) or {name: 1}

    code = code.replace("from naiad.client import Client\n", "")
    exec(compile(code, "code", "exec"), {"Client": Triton})
    (call,) = calls
    assert (call[name].shape, call[name].dtype) == ((1, 8, 3), np.int64)
    assert call["text"].tolist() == ["text"]


def test_a_chart_needs_two_sizes_and_numbers_above_zero() -> None:
    """Otherwise there is nothing to draw; what is drawn is one path a line and one point a value."""
    assert plot.chart([plot.Line(label="a", values={1: 0.5})], unit="ms", title="t") == ""
    assert plot.chart([plot.Line(label="a", values={1: 0.5, 2: 0.0})], unit="ms", title="t") == ""
    svg = plot.chart([plot.Line(label="<a>", values={1: 0.5, 2: 0.5, 64: 900.0})], unit="ms", title="<t>")
    assert (svg.count("<path"), svg.count("<circle")) == (1, 3)
    assert "<a>" not in svg
    assert all(0 <= float(y) <= 260 for y in re.findall(r'cy="([\d.]+)"', svg))


def test_a_report_survives_the_manifest() -> None:
    """What the page is made from is what was measured."""
    assert Report.from_dict(asdict(report())) == report()

"""Reports of real runs: what the schema describes is what a run writes."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import pytest

from naiad.loadtest import Connection, Golden, LoadTest, Rate, Report, Slo, Traffic, Users, compare_html, run

SCHEMA = json.loads(files("naiad.loadtest._report").joinpath("report.schema.json").read_text("utf-8"))


def users(triton, golden):
    """One model, a closed loop, checked answers, objectives and a price; the generator is calibrated."""
    return LoadTest(
        traffic=Traffic(model="linear", data=Golden(path=golden), check=True),
        load=Users(users=4),
        connection=Connection(url=triton.grpc_url),
        warmup_s=0.5,
        duration_s=1.0,
        slos=tuple(map(Slo.parse, ("p99<1s", "errors<1%", "goodput>1%"))),
        price_per_hour=2.0,
        name="four users",
    )


def mix(triton, golden):
    """Two models at a rate."""
    return LoadTest(
        traffic=(Traffic(model="linear", weight=3), Traffic(model="reloaded", batch=4)),
        load=Rate(per_s=100),
        connection=Connection(url=triton.grpc_url),
        warmup_s=0.5,
        duration_s=1.0,
    )


@pytest.mark.parametrize("plan", [users, mix])
def test_a_real_report_is_what_its_schema_says(plan, triton, golden, tmp_path):
    """Nothing is missing, nothing is undescribed, and page and tables come from it."""
    report = run(plan(triton, golden), calibration=plan is users)
    report.write(html=tmp_path / "r.html", json=tmp_path / "r.json", csv=tmp_path / "r.csv")
    content = Report.read(tmp_path / "r.json")
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    assert content == Report.read(tmp_path / "r.html")
    assert sum(item["count"] for item in content["results"]["bins"]) == content["results"]["latency_us"]["count"] > 0
    assert len((tmp_path / "r.csv").read_text().splitlines()) > len(content["results"]["points"]) > 1
    assert len(content["parts"]) == (0 if plan is users else 2)
    assert "<!DOCTYPE html>" in compare_html(content, content)

"""The gate and the report from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from export_helpers import contents, run_naiad
from naiad.export import InvalidExport, export_recipe, load_recipe, parse_tolerance

RECIPE = """\
import numpy as np
import torch

MAX_BATCH_SIZE = 4
TOLERANCE = {"outputs": {"output": {"atol": 1e-3}}}

class Head(torch.nn.Module):
    def __init__(self, wrong):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.wrong = wrong

    def forward(self, x):
        y = self.linear(x)
        if self.wrong and x.shape[0] > 1:
            return y * 1.5
        return y

def build(wrong=False):
    torch.manual_seed(0)
    return torch.nn.Sequential(Head(wrong))

def samples():
    torch.manual_seed(1)
    return [(torch.randn(6, 4),)]

def evaluate(predict):
    x = np.eye(4, dtype=np.float32)
    return {"accuracy": 0.9 + 0 * float(predict({"input": x})["output"].sum()), "rows": 4}
"""


def test_a_metric_and_a_report(tmp_path: Path) -> None:
    """Both values of the metric are in the manifest and on the page, which is in the version and where asked for."""
    (tmp_path / "scores.py").write_text(RECIPE)
    done = run_naiad(
        "export",
        "scores.py",
        *("--metric", "recipe:accuracy", "--max-drop", "0.5%"),
        *("--tolerance", "cosine=0.99,rtol=1e-2", "--tolerance", "output:atol=0.002"),
        *("--report", "page.html"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    version = tmp_path / "model_repository/scores/1"
    report = json.loads((version / "manifest.json").read_text())["report"]
    assert report["metric"] == {
        "name": "accuracy",
        "pytorch": 0.9,
        "candidate": 0.9,
        "limit": "max drop 0.5%",
        "change": 0.0,
        "passed": True,
    }
    assert report["tolerance"]["rtol"] == 1e-2
    assert report["tolerance"]["outputs"]["output"]["atol"] == 0.002
    assert [case["sizes"] for case in report["cases"]] == [f"batch {size}" for size in (1, 2, 3, 4, 4)]
    page = (version / "export-report.html").read_text()
    assert (tmp_path / "page.html").read_text() == page
    assert "accuracy in PyTorch" in page
    assert "report: page.html" in done.stdout
    shown = run_naiad("models", "show", "scores", "--html", cwd=tmp_path)
    assert shown.stdout.strip() == str(version / "export-report.html")


def test_a_refusal_names_the_line_and_leaves_a_report(tmp_path: Path) -> None:
    """Exit code 1, the module and the line of the model, a page of what was measured, and no version."""
    (tmp_path / "scores.py").write_text(RECIPE)
    done = run_naiad("export", "scores.py", "-o", "wrong=true", "--report", "page.html", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "differs from PyTorch at batch 1 (sample 0, row 0)" in done.stderr
    assert "in 0 (scores.py:16: return y * 1.5)" in done.stderr
    assert "see page.html" in done.stderr
    assert 'id="failure"' in (tmp_path / "page.html").read_text()
    assert contents(tmp_path / "model_repository") == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_drop": "1%"}, "name it too, as in --metric recipe:accuracy"),
        ({"metric": "accuracy", "max_drop": "much"}, "'much' does not say how much worse"),
        ({"metric": "accuracy", "max_drop": "1", "max_rise": "1"}, "has max_drop and max_rise"),
        ({"tolerance": {"rtol": 2}}, "a tolerance is at least 0 and below 1"),
        ({"tolerance": {"probs": {"rtol": 0.1}}}, "a tolerance has no 'probs'"),
        ({"report": "nowhere/page.html"}, "is in a directory that does not exist"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_built(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    """One sentence, a ValueError, and no repository."""
    (tmp_path / "scores.py").write_text(RECIPE.replace("def build(wrong=False):", "def build():\n    assert False"))
    with pytest.raises(InvalidExport, match=message):
        export_recipe(load_recipe(tmp_path / "scores.py"), repository=tmp_path / "models", **given)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("text", ["loose", "rtol", "rtol=", "rtol=x", "size=1", "probs:"])
def test_a_tolerance_that_is_none_is_named(text: str) -> None:
    """A word, a missing number, an unknown measure."""
    with pytest.raises(InvalidExport, match=f"{text!r} is not a tolerance"):
        parse_tolerance([text])

"""Checkpoints and saved samples: what is read, what is refused, and what is never run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from export_helpers import Scores, answer_of, contents, rows, run_naiad
from naiad.export import InvalidExport, load_checkpoint
from naiad.export._source.saved import load_samples


class Marked:
    """A class that a checkpoint may ask for; to unpickle it would be noticed."""

    unpickled = 0

    def __setstate__(self, state: object) -> None:
        type(self).unpickled += 1

    def __getstate__(self) -> object:
        return {"a": 1}


def saved(directory: Path, kind: str) -> Path:
    """Save the weights of a model in one of the ways that trainers have."""
    state = Scores(seed=7).state_dict()
    path = directory / f"{kind}.ckpt"
    match kind:
        case "safetensors":
            path = directory / "weights.safetensors"
            safetensors.torch.save_file(dict(state), path)
        case "state dict":
            torch.save(state, path)
        case "lightning":
            torch.save({"epoch": 3, "state_dict": {f"model.{name}": value for name, value in state.items()}}, path)
        case "compiled and parallel":
            torch.save({"model": {f"module._orig_mod.{name}": value for name, value in state.items()}}, path)
        case "hyperparameters":
            torch.save({"state_dict": state, "hyper_parameters": argparse.Namespace(width=4)}, path)
        case "another class":
            torch.save({"state_dict": state, "callbacks": Marked()}, path)
        case "module":
            torch.save(Scores(seed=7), path)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "lightning", "compiled and parallel"])
def test_weights_are_loaded(tmp_path: Path, kind: str) -> None:
    """Every weight is the file's, whatever was put around the state dict; the file's hash is returned."""
    model = Scores()
    origin = load_checkpoint(model, saved(tmp_path, kind))
    for name, value in Scores(seed=7).state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert len(str(origin["sha256"])) == 64


@pytest.mark.parametrize(
    ("kind", "asked"),
    [("hyperparameters", r"argparse\.Namespace"), ("another class", r"Marked"), ("module", r"export_helpers\.Scores")],
)
def test_what_needs_a_pickle_needs_trust(tmp_path: Path, kind: str, asked: str) -> None:
    """The class is named and nothing is run; with trust it is loaded."""
    model, path, before = Scores(), saved(tmp_path, kind), Marked.unpickled
    with pytest.raises(InvalidExport, match=rf"asks for [\w.]*{asked} to be unpickled, which can run .*--trust-pickle"):
        load_checkpoint(model, path)
    assert Marked.unpickled == before
    load_checkpoint(model, path, trust_pickle=True)
    assert torch.equal(model.linear.weight, Scores(seed=7).linear.weight)


def _other_names(path: Path) -> None:
    torch.save({"linear.weight": torch.zeros(9, 4), "extra": torch.zeros(1)}, path)


UNFIT: list[Any] = [
    (_other_names, r"does not fit Scores: it lacks linear\.bias, .*; it has beyond the model's extra; shapes differ: "),
    (_other_names, r"linear\.weight is \[9, 4\], the model's is \[3, 4\]"),
    (lambda path: path.write_bytes(b"junk" * 9), r"cannot be read as a checkpoint: it is not what torch\.save writes"),
    (lambda path: path.write_bytes(b""), r"cannot be read as a checkpoint"),
    (lambda path: torch.save([1, 2], path), r"has no weights by name; it holds a list"),
    (lambda path: torch.save({"epoch": 3}, path), r"has no weights by name; it holds a dict with \['epoch'\]"),
    (lambda path: None, r"cannot read .*w\.pt: No such file"),
    (lambda path: path.mkdir(), r"cannot read .*w\.pt: Is a directory"),
]


@pytest.mark.parametrize(("write", "message"), UNFIT)
def test_weights_that_do_not_fit(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    """What is missing, too much, mis-shaped or no checkpoint is named in one sentence."""
    write(tmp_path / "w.pt")
    with pytest.raises(InvalidExport, match=message) as caught:
        load_checkpoint(Scores(), tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


def test_a_model_without_weights_takes_no_checkpoint(tmp_path: Path) -> None:
    """A checkpoint goes into a module, and nothing else."""
    with pytest.raises(InvalidExport, match=r"goes into a torch\.nn\.Module; found str"):
        load_checkpoint("model.onnx", saved(tmp_path, "state dict"))  # type: ignore[arg-type]


def test_saved_samples(tmp_path: Path) -> None:
    """Arrays by input name are one sample, numbered ones are one each, and golden pairs are their inputs."""
    x, text = rows(3, 4).numpy(), np.array(["a", "b"])
    np.savez(tmp_path / "one.npz", x=x, text=text)
    np.savez(tmp_path / "more.npz", **{"input/0/x": x, "input/1/x": x[:1], "output/0/y": x})
    (one,) = load_samples(tmp_path / "one.npz")
    assert list(one) == ["x", "text"]
    assert [sample["x"].shape for sample in load_samples(tmp_path / "more.npz")] == [(3, 4), (1, 4)]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"junk"), r"cannot be read as samples"),
        (lambda path: None, r"cannot read the samples .*No such file"),
        (lambda path: np.savez(path, x=np.array([{}])), r"cannot be read as samples: Object arrays cannot be loaded"),
        (lambda path: np.savez(path), r"has no arrays; expected one for each input"),
        (
            lambda path: np.save(path.with_suffix(".npy"), np.zeros(3)) or path.with_suffix(".npy").rename(path),
            "one array",
        ),
    ],
)
def test_saved_samples_that_cannot_be_read(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    """A file of something else is one sentence, and no pickle is ever loaded."""
    write(tmp_path / "samples.npz")
    with pytest.raises(InvalidExport, match=message):
        load_samples(tmp_path / "samples.npz")


RECIPE = """\
import torch
from naiad.export import Input

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x)

def build():
    return Net()

INPUTS = {"x": Input(shape=["batch", 4])}
MAX_BATCH_SIZE = 4
"""


def test_the_command_with_a_checkpoint(tmp_path: Path) -> None:
    """`--checkpoint` and `--samples` give the weights and the inputs of what a recipe builds; the manifest has the
    checkpoint's hash."""
    weights = nn.Linear(4, 2).state_dict()
    safetensors.torch.save_file(
        {f"linear.{name}": value for name, value in weights.items()}, tmp_path / "w.safetensors"
    )
    np.savez(tmp_path / "samples.npz", x=rows(6, 4).numpy())
    (tmp_path / "mine.py").write_text(RECIPE)
    args = ["export", "mine.py", "--checkpoint", "w.safetensors", "--samples", "samples.npz", "--json"]
    done = run_naiad(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    version = tmp_path / "model_repository" / "mine" / "1"
    made = json.loads((version / "manifest.json").read_text())
    assert made["source"]["checkpoint"]["file"] == "w.safetensors"
    assert made["samples"]["generated"] is False
    x = rows(3, 4, seed=5)
    expected = nn.functional.linear(x, weights["weight"], weights["bias"]).numpy()
    np.testing.assert_allclose(answer_of(version, x=x.numpy())[0], expected, rtol=1e-5, atol=1e-6)

    torch.save({"state_dict": weights, "who": argparse.Namespace()}, tmp_path / "pickled.ckpt")
    before = contents(tmp_path / "model_repository")
    done = run_naiad("export", "mine.py", "--checkpoint", "pickled.ckpt", cwd=tmp_path)
    assert done.returncode == 2
    assert "asks for argparse.Namespace to be unpickled" in done.stderr
    assert contents(tmp_path / "model_repository") == before

"""MNIST, as a run of the gallery: trained in two processes, served, called with arrays and with files."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.torch import load_file

from naiad.cli.demo.torchrun import torchrun
from naiad.client import InvalidInput
from naiad.export import Recipe, RecipeFailed, Repository, load_recipe
from naiad.server import EmbeddedTriton

RANKS = Path(__file__).with_name("mnist_ranks.py")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("mnist")


@pytest.fixture(scope="module")
def client(demo_of):
    """The repository of the run, served once more."""
    run = demo_of("mnist")
    assert run.found
    with EmbeddedTriton(run.repository, models=["mnist", "mnist_files"]) as triton, triton.client() as client:
        yield client


def test_mnist_is_served_as_well_as_it_was_trained(demo_of):
    """Trained on all images, right on 97.5 % of all test images, the same alone and in batches."""
    found = demo_of("mnist").found
    assert (found["training"], found["test"], found["single_calls"]) == (60_000, 10_000, 10_000)
    assert found["accuracy_served"] == found["accuracy_served_single"] >= 0.975
    assert found["same_digits"]
    assert found["accuracy_files"] >= 0.97


def test_the_net_that_is_served_is_that_of_torchrun(demo_of):
    """The second version has the weights that two processes wrote."""
    run = demo_of("mnist")
    found, repository = run.found, Repository(run.repository)
    assert found["training_distributed"]["processes"] == 2
    assert found["training_distributed"]["accuracy"] == found["accuracy_served"]
    assert repository.verify("mnist", 2).problems == ()
    weights = hashlib.sha256((run.report / "weights.safetensors").read_bytes()).hexdigest()
    assert weights in (run.repository / "mnist" / "2" / "manifest.json").read_text()


def test_the_command_reads_a_png(demo_of):
    """`naiad infer` was run on a file of a test image, a seven."""
    run = demo_of("mnist")
    assert run.found["infer_label"] == "7"
    assert run.found["infer_probability"] > 0.9
    with Image.open(run.report / "seven.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (28, 28))


@pytest.mark.parametrize("format_", ["png", "jpeg"])
@pytest.mark.parametrize("ground", ["dark", "light"])
def test_a_file_is_read_whatever_its_format_size_and_ground(client, recipe, format_, ground):
    """Four times as large, in colour, ink on paper or chalk on slate."""
    inputs, digits = recipe.held_out()
    rows = [digits.tolist().index(digit) for digit in (0, 1, 2, 3, 6, 7)]
    pictures = [Image.fromarray(inputs["image"][row].reshape(28, 28).astype(np.uint8)) for row in rows]
    if ground == "light":
        pictures = [picture.point(lambda value: 255 - value) for picture in pictures]
    files = [_file(picture.resize((112, 112)).convert("RGB"), format_) for picture in pictures]
    answer = client.model("mnist_files")(image=np.array(files, object)[:, None])
    assert [label.decode() for label in answer["label"].ravel()] == ["0", "1", "2", "3", "6", "7"]


def _file(picture: Image.Image, format_: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_)
    return file.getvalue()


def test_odd_input_is_refused_in_words(client):
    """Images of another size before anything is sent; a file that is no image by the step that reads it."""
    with pytest.raises(InvalidInput, match="784"):
        client.model("mnist")(image=np.zeros((1, 28, 28), np.float32))
    with pytest.raises(InvalidInput, match="float32"):
        client.model("mnist")(image=np.zeros((1, 784), np.uint8))
    with pytest.raises(InvalidInput, match="image"):
        client.model("mnist_files")(image=np.array([[b"no image"]], object))


def test_two_processes_see_each_image_once_and_train_one_net(tmp_path):
    """Halves without overlap; averaged gradients give both ranks the same weights, and those of one process."""
    torchrun(RANKS, [str(tmp_path)], processes=2)
    subprocess.run([sys.executable, RANKS, tmp_path], check=True, capture_output=True)
    first, second = (load_file(tmp_path / f"rank-{rank}-of-2.safetensors") for rank in (0, 1))
    alone = load_file(tmp_path / "rank-0-of-1.safetensors")
    halves = [set(net.pop("rows").tolist()) for net in (first, second)]
    assert [len(half) for half in halves] == [30_000, 30_000]
    assert halves[0] | halves[1] == set(alone.pop("rows").tolist()) == set(range(60_000))
    for name, weights in first.items():
        assert weights.equal(second[name])
        np.testing.assert_allclose(weights, alone[name], atol=1e-3)


def test_torchrun_says_what_a_process_raised(recipe, tmp_path):
    """The error of the recipe, and not that of the launcher; nothing is written."""
    with pytest.raises(RecipeFailed, match=r"in 2 processes failed.*expected train-images.*found no train-images"):
        torchrun(recipe.path, [str(tmp_path / "w.safetensors"), "--data", str(tmp_path)], processes=2)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_is_killed_is_said(tmp_path):
    """As by a machine that is out of memory: the other one ends too, and the signal is named."""
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal, time\n"
        "os.kill(os.getpid(), signal.SIGKILL) if os.environ['RANK'] == '1' else time.sleep(600)\n"
    )
    with pytest.raises(RecipeFailed, match=r"in 2 processes failed.*Signal 9 \(SIGKILL\)"):
        torchrun(script, [], processes=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_training_leaves_no_process_and_no_file(recipe, tmp_path, number):
    """The signal meets the demo's process alone, as that of a supervisor does; torchrun and its workers end."""
    weights = tmp_path / "weights.safetensors"
    code = (
        "import sys; from pathlib import Path; from naiad.cli.demo.torchrun import torchrun;"
        "torchrun(Path(sys.argv[1]), [sys.argv[2], '--epochs', '100000'], processes=2)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, recipe.path, weights], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        started = _wait_for(lambda: _family(process.pid), at_least=3)
        os.kill(process.pid, number)
        process.wait(timeout=60)
    finally:
        process.kill()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert (alive, list(tmp_path.iterdir())) == ([], [])


def _family(pid: int) -> list[psutil.Process]:
    """The launcher and its workers, once all of them run the recipe."""
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if child.is_running() and "mnist.py" in " ".join(child.cmdline())]


def _wait_for(found, *, at_least: int, limit_s: float = 90.0):
    deadline = time.monotonic() + limit_s
    while len(now := found()) < at_least:
        assert time.monotonic() < deadline, f"expected {at_least} processes, found {now}"
        time.sleep(0.1)
    return now

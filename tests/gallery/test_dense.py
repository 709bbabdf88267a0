"""A dense classifier: what the demo found, the repository that it left, and the recipe's own promises."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from naiad.client import InvalidInput
from naiad.export import InvalidRecipe, RecipeFailed, Repository, load_recipe
from naiad.server import EmbeddedTriton

PAGE = Path(__file__).parents[2] / "docs" / "gallery" / "dense.md"
SERVED_AT = "http://localhost:8000"


@pytest.fixture(scope="module")
def triton(demo_of) -> Iterator[EmbeddedTriton]:
    run = demo_of("dense")
    assert run.found
    with EmbeddedTriton(run.repository) as served:
        yield served


def naiad(*command: str, cwd: Path) -> str:
    arguments = [sys.executable, "-m", "naiad.cli", *command]
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=120, check=True).stdout


def test_three_versions_are_compared_and_the_best_is_served(demo_of):
    """Each has other hyper-parameters and is as good served as in PyTorch; most rows right is what is promoted."""
    run = demo_of("dense")
    versions = run.found["versions"]
    assert len({(each["epochs"], each["weight_decay"]) for each in versions}) == 3
    assert all(each["accuracy_served"] == each["accuracy_pytorch"] for each in versions)
    assert all(each["max_abs_error"] < 1e-5 for each in versions)
    best = max(versions, key=lambda each: (each["accuracy_served"], -each["loss_served"]))
    assert best["accuracy_served"] > 0.9 > versions[0]["accuracy_served"]
    assert run.found["promoted"] == best["version"]
    assert Repository(run.repository).served("dense") == (best["version"],)


def test_weight_decay_makes_the_loss_of_held_out_rows_smaller(demo_of):
    """What the page says of the third version in comparison with the second."""
    _, without, held_back = demo_of("dense").found["versions"]
    assert without["weight_decay"] < held_back["weight_decay"]
    assert held_back["loss_served"] < without["loss_served"]


def test_models_diff_says_what_the_demo_says(demo_of):
    """The command, run on what the demo left, finds the same distance and names the hyper-parameter."""
    run = demo_of("dense")
    first, *_, last = run.found["versions"]
    told = naiad("models", "diff", "dense", "1", "3", "-r", str(run.repository), "--json", cwd=run.folder)
    diff = json.loads(told)
    assert {"name": "source.options.epochs", "before": first["epochs"], "after": last["epochs"]} in diff["made"]
    (noted,) = (each for each in run.found["diffs"] if (each["a"], each["b"]) == (1, 3))
    assert diff["answers"][0]["max_abs_difference"] == pytest.approx(noted["max_abs_difference"])
    assert 0 < noted["changed_share"] < 0.5


def test_no_request_is_lost_while_a_version_is_promoted_and_rolled_back(demo_of):
    """Callers without a pause met both versions and no error; the journal says what happened, and why."""
    run = demo_of("dense")
    assert run.found["switch_failed"] == 0 < run.found["switch_requests"]
    actions = [(entry.action, entry.reason) for entry in Repository(run.repository).history("dense")]
    assert [action for action, _ in actions].count("rollback") == 2
    assert "of held-out rows right" in actions[-1][1]


def test_rest_and_grpc_give_the_same_answer(demo_of):
    """To the last bit."""
    assert demo_of("dense").found["rest_grpc_max_difference"] == 0


def test_a_killed_replica_costs_no_request(demo_of):
    """Both replicas had their share, one was killed, and callers that send nothing twice noticed nothing."""
    found = demo_of("dense").found
    shares = found["gateway_requests"]
    assert len(shares) == 2
    assert min(shares.values()) > 0.25 * sum(shares.values())
    assert found["failover_failed"] == 0 < found["failover_answers_meanwhile"] < found["failover_requests"]


def test_tensorboard_reads_loss_and_accuracy_of_each_version(demo_of):
    """A run for each version, a value for each epoch; the last one is what the summary says."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = demo_of("dense")
    for each in run.found["versions"]:
        logs = run.folder / run.found["tensorboard_logs"] / f"version-{each['version']}"
        events = accumulator.EventAccumulator(str(logs)).Reload()
        assert set(events.Tags()["scalars"]) == {
            f"{measured}/{rows}" for measured in ("loss", "accuracy") for rows in ("training", "held_out")
        }
        accuracy = events.Scalars("accuracy/held_out")
        assert [point.step for point in accuracy] == list(range(each["epochs"]))
        assert accuracy[-1].value == pytest.approx(each["accuracy_pytorch"], abs=1e-6)


def test_every_version_still_answers_its_golden_requests(demo_of, triton: EmbeddedTriton):
    """Served again from the repository that the demo left."""
    with triton.client() as client:
        (served,) = Repository(demo_of("dense").repository).verify_served("dense", client)
    assert served.ok


def test_rows_of_another_width_are_refused_before_anything_is_sent(triton: EmbeddedTriton):
    """99 features instead of 100: the error names the input."""
    with triton.client() as client, pytest.raises(InvalidInput, match="features"):
        client.model("dense")(features=np.zeros((1, 99), np.float32))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_page_s_curl_is_answered_as_the_client_is(triton: EmbeddedTriton):
    """The command as it stands there, but for the address, on a row of zeros."""
    (command,) = re.findall(r"^\$ (curl .*)$", PAGE.read_text(), re.MULTILINE)
    assert SERVED_AT in command
    asked = ["bash", "-c", command.replace(SERVED_AT, triton.http_url)]
    answer = json.loads(subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout)
    with triton.client() as client:
        expected = client.model("dense")(features=np.zeros((1, 100), np.float32))["probabilities"]
    assert np.array_equal(np.array(answer["outputs"][0]["data"], np.float32), expected[0])


def test_the_same_options_give_the_same_net():
    """So a version can be made again; another seed gives another one."""
    recipe = load_recipe("dense")
    first, again, other = (_weights(recipe.build(epochs=1, seed=seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def _weights(model) -> np.ndarray:
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in model.parameters()])


def test_an_option_that_training_has_not_is_refused():
    """The message has those it knows."""
    with pytest.raises(InvalidRecipe, match=r"'momentum'.*learning_rate, epochs, weight_decay"):
        load_recipe("dense").build(momentum=0.9)


def test_logs_without_tensorboard_are_refused_with_what_to_install(monkeypatch, tmp_path: Path):
    """Before anything is trained, and no folder is made."""
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RecipeFailed, match=r"install naiad\[gallery\]"):
        load_recipe("dense").build(log_dir=str(tmp_path / "logs"))
    assert not (tmp_path / "logs").exists()

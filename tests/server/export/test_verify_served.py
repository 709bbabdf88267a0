"""Golden pairs replayed on running servers: right ones pass, and each way to be wrong has a sentence of its own."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

from export_helpers import run_naiad
from naiad.client import Client, InvalidInput
from naiad.export import InvalidModel, Repository, ServedVersion, generate_keys
from naiad.server import EmbeddedTriton
from verbs_helpers import X, identity, linear, publish_graph, total, weights


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Small graphs of every kind of tensor."""
    repo = Repository(tmp_path_factory.mktemp("verify") / "models")
    named = [({"z": X}, {"y": X @ weights()})]
    publish_graph(repo, "named", graph=linear(weights(), "z"), pairs=named)
    publish_graph(repo, "linear", seed=0)
    publish_graph(repo, "linear", seed=1, promote=False)
    text = np.array([["a", "ö"], ["", "longer"]])
    publish_graph(
        repo, "text", graph=identity(TensorProto.STRING), datatype="STRING", pairs=[({"x": text}, {"y": text})]
    )
    half = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    publish_graph(
        repo, "half", graph=identity(TensorProto.BFLOAT16), datatype="BF16", pairs=[({"x": half}, {"y": half})]
    )
    sums = [({"x": X[:2]}, {"y": X[:2].sum(1, keepdims=True)})]
    publish_graph(repo, "widened", graph=total(4), pairs=sums)
    publish_graph(repo, "widened", graph=total("any"), pairs=sums, max_batch_size=16)
    repo.promote("widened", 1, 2)
    publish_graph(repo, "small_batches", seed=2)
    config = repo.path / "small_batches" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 3"))
    return repo


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(repository.path) as triton:
        yield triton


@pytest.fixture(scope="module")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """Another repository, which has other models under the same names."""
    repo = Repository(tmp_path_factory.mktemp("other") / "models")
    publish_graph(repo, "linear", seed=7)
    publish_graph(repo, "named")
    publish_graph(repo, "half")
    (repo.path / "half" / "1" / "model.onnx").write_bytes(b"no graph")
    publish_graph(repo, "small_batches", graph=linear(weights(2) * np.float32(1.05)))
    with EmbeddedTriton(repo.path, exit_on_load_error=False) as triton:
        yield triton


def check(repository: Repository, server: EmbeddedTriton, model: str, *versions: int) -> tuple[ServedVersion, ...]:
    return repository.verify_served(model, server.grpc_url, *versions)


@pytest.mark.parametrize(
    ("model", "num_pairs"), [("named", 1), ("linear", 3), ("text", 1), ("half", 1), ("small_batches", 3)]
)
def test_what_is_served_answers_as_it_did(
    repository: Repository, server: EmbeddedTriton, model: str, num_pairs: int
) -> None:
    """Every pair is answered within the tolerance: numbers, text, bfloat16, and batches larger than the owner lets the
    server take, which go in parts."""
    (found,) = check(repository, server, model)
    assert found.problems == ()
    assert (found.version, found.num_pairs) == (1, num_pairs)
    assert all(output.max_rel_error < 1e-4 for output in found.outputs)


def test_a_version_that_is_not_served_is_named(repository: Repository, server: EmbeddedTriton) -> None:
    """A version that exists and is not served, and a model the server has never heard of."""
    (found,) = check(repository, server, "linear", 2)
    assert not found.ok
    assert found.problems[0].startswith("the server has version 1 of linear and not 2")


def test_versions_that_take_more_share_the_published_configuration(
    repository: Repository, server: EmbeddedTriton
) -> None:
    """A version for any width and larger batches is served beside the one for a single width, under its dims."""
    assert [(each.version, each.problems) for each in check(repository, server, "widened")] == [(1, ()), (2, ())]


def test_a_version_that_should_not_be_served_is_found(
    repository: Repository, server: EmbeddedTriton, tmp_path: Path
) -> None:
    """A server that has not followed a change answers right for what is left, and has a version too many."""
    copy = Repository(shutil.copytree(repository.path, tmp_path / "models"))
    copy.promote("widened", 2)
    (found,) = copy.verify_served("widened", server.grpc_url)
    assert found.num_pairs == 1
    assert found.problems[0].startswith("the server also has version 1 of widened, which should not be served")
    assert copy.verify_served("widened", server.grpc_url, 2)[0].ok  # only about the version that was named


def test_a_version_that_failed_to_load_is_not_ready(repository: Repository, other_server: EmbeddedTriton) -> None:
    """The server knows it and cannot serve it, which its log explains."""
    (found,) = check(repository, other_server, "half")
    assert found.problems[0].startswith("the version is there but not ready")


def test_other_weights_are_found(repository: Repository, other_server: EmbeddedTriton) -> None:
    """The right name, version and tensors, and another model behind them."""
    (found,) = check(repository, other_server, "linear")
    assert "output 'y' differs from PyTorch in case 0: the largest error is" in found.problems[0]
    assert found.outputs[0].max_rel_error > 0.1


def test_other_tensors_are_found_before_a_request_is_sent(repository: Repository, other_server: EmbeddedTriton) -> None:
    """A model of the same name with other inputs and outputs."""
    (found,) = check(repository, other_server, "named")
    assert found.num_pairs == 0
    assert any("input 'z' is not known there, which has x FP32 [?, 4]" in problem for problem in found.problems)
    assert "another model is served under this name" in found.problems[-1]


def test_several_servers_are_asked_one_by_one(
    repository: Repository, server: EmbeddedTriton, other_server: EmbeddedTriton
) -> None:
    """Each server has its own outcome: one is right, one lacks the model, and nobody is at the third address."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
        url = f"grpc://{server.grpc_address},{other_server.grpc_address},{nobody}"
        found = repository.verify_served("text", url)
    assert [each.ok for each in found] == [True, False, False]
    assert "has no model 'text'" in found[1].problems[0]
    assert "nobody answers there" in found[2].problems[0]
    assert nobody in found[2].server


def test_a_client_of_the_callers_is_used_and_left_open(repository: Repository, server: EmbeddedTriton) -> None:
    """Whoever has a client, with its certificates and time-outs, gives that."""
    with Client(server.grpc_url) as client:
        assert repository.verify_served("linear", client)[0].ok
        assert client.live()


def test_the_tolerance_can_be_asked_for(repository: Repository, other_server: EmbeddedTriton) -> None:
    """Five per cent too much is refused by what held for the export, and allowed when that is asked for."""
    default, of_the_output, of_another = (
        repository.verify_served("small_batches", other_server.grpc_url, tolerance=tolerance)[0]
        for tolerance in (None, {"outputs": {"y": {"rtol": 0.06}}}, {"outputs": {"z": {"rtol": 0.06}}})
    )
    assert [default.ok, of_the_output.ok, of_another.ok] == [False, True, False]


def test_what_cannot_be_replayed_is_said(repository: Repository, server: EmbeddedTriton, tmp_path: Path) -> None:
    """A version without a manifest, one whose pairs are gone, and an address that is none."""
    by_hand = tmp_path / "models" / "hand"
    (by_hand / "1").mkdir(parents=True)
    (by_hand / "config.pbtxt").write_text('name: "hand" backend: "onnxruntime"')
    with pytest.raises(InvalidModel, match="not published by naiad export"):
        check(Repository(tmp_path / "models"), server, "hand")
    version = publish_graph(tmp_path / "models", "linear")
    (version.path / "golden.npz").unlink()
    with pytest.raises(InvalidModel, match=r"golden\.npz is missing, so there is no request to replay"):
        check(Repository(tmp_path / "models"), server, "linear")
    (version.path / "golden.npz").write_bytes(b"no archive")
    with pytest.raises(InvalidModel, match=r"golden\.npz is not a file of golden pairs"):
        check(Repository(tmp_path / "models"), server, "linear")
    with pytest.raises(InvalidInput):
        repository.verify_served("linear", "http://127.0.0.1:1")


def test_the_command_has_an_exit_code_for_each_outcome(
    repository: Repository, server: EmbeddedTriton, other_server: EmbeddedTriton, tmp_path: Path
) -> None:
    """0 when every server answers right, 1 when one does not, 2 for an address that is none; JSON has all of it."""
    base = ("models", "verify", "linear", "-r", repository.path)
    right = run_naiad(*base, "--server", server.grpc_url, cwd=tmp_path)
    assert right.returncode == 0, right.stderr
    assert "ok, 3 golden requests" in right.stdout
    wrong = run_naiad(*base, "--server", server.grpc_url, "--server", other_server.grpc_url, "--json", cwd=tmp_path)
    assert wrong.returncode == 1
    first, second = json.loads(wrong.stdout)
    assert [each["ok"] for each in first["servers"]] == [True, False]
    assert (first["ok"], second["ok"], second["servers"]) == (False, True, [])
    nonsense = run_naiad(*base, "--server", "http://127.0.0.1:1", cwd=tmp_path)
    assert nonsense.returncode == 2


def test_signing_what_is_served_loses_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server that watches its repository loads the version again, and goes on answering meanwhile."""
    repo = Repository(tmp_path / "models")
    publish_graph(repo)
    generate_keys(tmp_path / "a.pem", tmp_path / "a.pub")
    caplog.set_level("INFO", logger="naiad.server")
    with EmbeddedTriton(repo.path, watch=True) as triton, triton.client() as client:
        client.infer("linear", {"x": X})
        repo.sign("linear", 1, tmp_path / "a.pem")
        deadline = time.monotonic() + 60
        while "loaded again" not in caplog.text:
            assert client.infer("linear", {"x": X}).model_version == "1"
            assert time.monotonic() < deadline, "the server did not follow within a minute"
        assert repo.verify_served("linear", client)[0].ok
